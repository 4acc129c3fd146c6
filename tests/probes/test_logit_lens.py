"""The logit lens on a random GPT-J with padding rows, against Hugging Face's model and a softmax in float64."""

import json

import numpy as np
import pytest
import torch
from transformers import GPTJForCausalLM

from limber_interp.errors import InputError
from limber_interp.images import image_hash
from limber_interp.models.limber import Limber, load
from limber_interp.probes import layers as module
from limber_interp.probes import logit_lens
from limber_interp.probes.controls import DESCRIPTIONS, generator, noise
from limber_interp.probes.lens import UnembeddingLens, read
from limber_interp.records import LogitLens, Record

K = 4


@pytest.fixture(scope="module")
def reference(world) -> GPTJForCausalLM:
    return GPTJForCausalLM.from_pretrained(world.lm).eval()


@torch.no_grad()
def by_definition(reference: GPTJForCausalLM, residual: torch.Tensor, n_used: int) -> np.ndarray:
    """Log-probabilities (layers, pos, n_used) of one prompt, in float64 from its logits on."""
    output = reference(inputs_embeds=residual[None], output_hidden_states=True)
    final = reference.transformer.ln_f
    logits = [reference.lm_head(final(hidden[0])) for hidden in output.hidden_states[:-1]]
    logits.append(output.logits[0])  # the last of the hidden states is normalised already
    return torch.stack(logits)[..., :n_used].double().log_softmax(-1).numpy()


def test_equals_brute_force_with_hugging_face(tiny: Limber, images, reference, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 5 * tiny.vocabulary.n_used)  # blocks and slices that do not divide anything
    monkeypatch.setattr(module, "SLICE", 2 * tiny.vocabulary.n_used)
    n_used = tiny.vocabulary.n_used
    assert len(tiny.lm.W_U.T) > n_used, "without padding rows they are not tested"
    record = logit_lens(tiny, images, k=K, positions="all", targets=["dog", "cat"], controls="none", batch_size=2)
    assert record.layers == (0, 1, 2, 3)
    for image, item in zip(images, record.images, strict=True):
        prompt = tiny.embed([image.copy(), "A picture of"])
        expected = by_definition(reference, prompt.residual[0], n_used)
        assert list(item.positions) == list(range(prompt.residual.shape[1]))
        found = item.reading
        order = np.argsort(-expected, axis=-1, kind="stable")[..., :K]
        np.testing.assert_array_equal(found.token_ids, order)
        np.testing.assert_allclose(found.logprobs, np.take_along_axis(expected, order, -1), atol=1e-4)
        p = np.exp(expected)
        np.testing.assert_allclose(found.entropy, -(p * expected).sum(-1), atol=1e-4)
        np.testing.assert_allclose(found.kl, (p[-1] * (expected[-1] - expected)).sum(-1), atol=1e-4)
        assert (found.kl[:-1] > 0.01).all(), "a random model changes its mind at every layer"
        np.testing.assert_array_equal(found.agrees, expected.argmax(-1) == expected[-1].argmax(-1))
        for target in item.targets:
            own = expected[..., [target.token_id]]
            np.testing.assert_array_equal(target.ranks, 1 + (expected > own).sum(-1))
            np.testing.assert_allclose(target.logprobs, own[..., 0], atol=1e-4)


def test_the_last_layer_is_the_models_own(tiny: Limber, images):
    record = logit_lens(tiny, images[0], k=1, positions="all", targets=["dog"], controls="none")
    logits = tiny.run_with_hooks([images[0], "A picture of"])[0, :, : tiny.vocabulary.n_used]
    (target,) = record.images[0].targets
    np.testing.assert_allclose(target.logits[-1], logits[:, target.token_id], atol=1e-4)
    np.testing.assert_array_equal(record.images[0].reading.token_ids[-1, :, 0], logits.argmax(-1))
    assert record.images[0].reading.agrees[-1].all()
    assert (record.images[0].reading.kl[-1] == 0).all()


def test_what_is_written_into_the_residual_is_read_from_there_on(tiny: Limber, images):
    """An intervention: a token's direction, written at one patch after the second block, is read there and after."""
    token = tiny.vocabulary.id_of("dog")
    place = tiny.embed([images[0]]).layouts[0].patch(1, 0)

    def write(residual, hook):
        residual[:, place] += 100 * tiny.lm.W_U[:, token]
        return residual

    settings = {"k": 1, "targets": ["dog"], "controls": "none"}
    (before,) = logit_lens(tiny, images[0], **settings).images[0].targets
    with tiny.lm.hooks([("blocks.1.hook_resid_post", write)]):
        (target,) = logit_lens(tiny, images[0], **settings).images[0].targets
        assert len(tiny.lm.hook_dict["blocks.1.hook_resid_post"].fwd_hooks) == 1, "only the user's is left"
    assert (before.ranks[:, place] > 1).all()
    np.testing.assert_array_equal(target.ranks[2:, place], [1, 1])
    np.testing.assert_allclose(target.logprobs[:2], before.logprobs[:2], atol=1e-5)
    earlier = [position for position in range(4) if position < place]
    np.testing.assert_allclose(target.logprobs[:, earlier], before.logprobs[:, earlier], atol=1e-5)


@pytest.mark.parametrize("name", ["blocks.0.hook_resid_pre", "blocks.0.attn.hook_z", "ln_final.hook_normalized"])
def test_the_lens_of_an_intervened_model(tiny: Limber, images, name):
    """Hooks see the shapes that they see in a forward pass, and the last layer is what the intervened model says."""

    def halve(activation, hook):
        assert activation.shape[:2] == (1, 7)
        return activation / 2

    with tiny.lm.hooks([(name, halve)]):
        record = logit_lens(tiny, images[0], k=1, positions="all", targets=["dog"], controls="none")
        logits = tiny.run_with_hooks([images[0], "A picture of"])[0]
    untouched = tiny.run_with_hooks([images[0], "A picture of"])[0]
    (target,) = record.images[0].targets
    np.testing.assert_allclose(target.logits[-1], logits[:, target.token_id], atol=1e-4)
    assert not np.allclose(target.logits[-1], untouched[:, target.token_id], atol=1e-2)


def test_batches_and_left_padding_change_nothing(tiny: Limber, images):
    texts = ["A", "A picture of a dog", "A picture of"]
    batch = tiny.embed([[image, text] for image, text in zip(images, texts, strict=True)])
    assert batch.layouts[0].n_padding
    together = logit_lens(tiny, batch, positions="text", targets=["dog"], controls="fast", n_draws=2)
    assert together.prompt is None
    assert together.manifest.notes[-1] == "controls of whole prompts: noise in the images' places alone"
    for i, text in enumerate(texts):
        alone = logit_lens(tiny, images[i], positions="text", prompt=text, targets=["dog"], controls="none").images[0]
        item = together.images[i]
        np.testing.assert_array_equal(item.positions, alone.positions)
        assert item.inputs == alone.inputs == tuple(tiny.vocabulary.strings(tiny.vocabulary.encode(text)))
        np.testing.assert_array_equal(item.reading.token_ids, alone.reading.token_ids)
        np.testing.assert_allclose(item.reading.logprobs, alone.reading.logprobs, atol=1e-4)
        assert [control.name for control in item.controls] == ["noise"]
        np.testing.assert_array_less(0.1, np.abs(item.controls[0].reading.logprobs - item.reading.logprobs).max())


def test_noise_in_a_whole_prompt_is_noise_of_the_image(tiny: Limber, images):
    """The same draws, whether the image is given or the prompt with it."""
    whole = logit_lens(tiny, tiny.embed([images[0], "A picture of"]), controls="fast", n_draws=1)
    drawn = noise(tiny.soft_prompt(images[0])[0], 1, generator(0, "noise", 0))[0]
    expected = logit_lens(tiny, tiny.embed([drawn, "A picture of"]), controls="none").images[0].reading
    for reading in (
        whole.images[0].controls[0].reading,
        logit_lens(tiny, images[0], controls="fast", n_draws=3).images[0].controls[0].reading,
    ):
        np.testing.assert_array_equal(reading.token_ids, expected.token_ids)
        np.testing.assert_allclose(reading.logprobs, expected.logprobs, atol=1e-4)


def test_every_control_is_the_lens_of_its_prompt(tiny: Limber, images):
    record = logit_lens(tiny, images, k=K, targets=["dog", "cat"], others=[], n_draws=2, batch_size=2)
    alone = [logit_lens(tiny, image, k=K, targets=["dog", "cat"], controls="none").images[0] for image in images]
    mean = tiny.soft_prompt(images).mean(0)
    of_mean = logit_lens(tiny, tiny.embed([mean, "A picture of"]), controls="none").images[0].reading
    for i, item in enumerate(record.images):
        assert tuple(control.name for control in item.controls) == tuple(DESCRIPTIONS)
        controls = {control.name: control for control in item.controls}
        assert [control.n_draws for control in item.controls] == [2, 2, 1, 1, 2]
        np.testing.assert_allclose(
            controls["mean_prompt"].top_logprobs[0], of_mean.logprobs[:, :, 0], atol=1e-4, err_msg="mean prompt"
        )
        others = [j for j in range(3) if j != i]
        of_others = controls["other_images"]
        assert of_others.sources == tuple(record.images[j].image for j in others)
        for draw, j in enumerate(others):
            np.testing.assert_allclose(of_others.top_logprobs[draw], alone[j].reading.logprobs[:, :, 0], atol=1e-4)
            for t in range(2):
                np.testing.assert_array_equal(of_others.best_ranks[draw, :, t], alone[j].targets[t].best_ranks)
        for t, target in enumerate(item.targets):
            best = [alone[j].targets[t].best_logprobs for j in others]
            at_least = sum(other >= target.best_logprobs for other in best)
            np.testing.assert_allclose(target.p_images, (1 + at_least) / 3)
            assert target.n_images == 2


def test_p_values_against_words_by_hand(tiny: Limber, images, reference):
    vocabulary = tiny.vocabulary
    record = logit_lens(tiny, images[0], targets=["dog"], controls="none")
    (target,) = record.images[0].targets
    logprobs = by_definition(reference, tiny.embed([images[0]]).residual[0], vocabulary.n_used).max(axis=1)
    texts = vocabulary.strings(range(vocabulary.n_used))
    words = [id for id, text in enumerate(texts) if len(text) > 2 and text[0] == " " and text[1:].isalpha()]
    words.remove(target.token_id)
    at_least = (logprobs[:, words] >= logprobs[:, [target.token_id]]).sum(axis=1)
    np.testing.assert_allclose(target.p_words, (1 + at_least) / (1 + len(words)))
    assert target.n_words == len(words)


def test_controls_depend_on_the_seed_and_not_on_the_batches(tiny: Limber, images):
    def found(**settings) -> list[np.ndarray]:
        record = logit_lens(tiny, images, controls="fast", n_draws=3, **settings)
        return [control.top_logprobs for item in record.images for control in item.controls]

    for a, b, c in zip(found(batch_size=1), found(batch_size=2), found(seed=1), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
        assert not np.allclose(a, c, atol=1e-2)


def test_layers_and_positions_are_parts_of_all(tiny: Limber, images):
    whole = logit_lens(tiny, images[0], positions="all", controls="none").images[0]
    part = logit_lens(tiny, images[0], positions=[(1, 0), -1], layers=[-1, 1], targets=["dog"], controls="none")
    assert part.layers == (1, 3)
    item = part.images[0]
    assert list(item.positions) == [2, 6]
    assert [item.place(i) for i in range(2)] == [(1, 0), None]
    assert [item.label(i) for i in range(2)] == ["1,0", whole.inputs[6]]
    np.testing.assert_allclose(item.reading.kl, whole.reading.kl[[1, 3]][:, [2, 6]], atol=1e-5)
    assert item.targets[0].p_words.shape == (2,)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([0, -1]), [0, 6]),
        (torch.tensor([0, -1]), [0, 6]),
        (range(1, 3), [1, 2]),
        (np.array([[1, 0], [0, 1]]), [2, 1]),  # patches
        ([[1, 0], np.int64(-1)], [2, 6]),
        (2, [2]),
        (np.int64(2), [2]),
    ],
    ids=str,
)
def test_positions_as_arrays(tiny: Limber, images, given, expected):
    """An array fell with "the truth value of an array is ambiguous", as its comparison to "image" is an array too."""
    (item,) = logit_lens(tiny, images[0], positions=given, controls="none").images
    assert list(item.positions) == expected


def test_layers_as_arrays(tiny: Limber, images):
    for given in (np.array([1, -1]), torch.tensor([3, 1]), (1, 3)):
        assert logit_lens(tiny, images[0], layers=given, controls="none").layers == (1, 3)
    assert logit_lens(tiny, images[0], layers=2, controls="none").layers == (2,)


def test_a_string_is_one_word(tiny: Limber, images):
    """`targets="dog"` followed d, o and g."""
    settings = {"controls": "none", "positions": "last"}
    for word in ("dog", " dog"):
        (target,) = logit_lens(tiny, images[0], targets=word, **settings).images[0].targets
        assert (target.word, target.token) == (word, " dog")


def test_a_pooled_encoder_has_no_grid(world, images):
    item = logit_lens(load(world.config("nfresnet")), images[0], controls="full", n_draws=2).images[0]
    assert item.grid is None
    assert [item.label(i) for i in range(item.n_pos)] == ["0", "1", "2"]
    assert [control.name for control in item.controls] == list(DESCRIPTIONS)


def test_the_first_token_of_a_longer_word(tiny: Limber, images):
    pieces = tiny.vocabulary.encode(" doghouse")
    assert len(pieces) > 1
    settings = {"targets": ["doghouse"], "controls": "none"}
    (target,) = logit_lens(tiny, images[0], target_first_token=True, **settings).images[0].targets
    assert (target.word, target.token_id) == ("doghouse", pieces[0])
    with pytest.raises(InputError, match="'doghouse' is not one token"):
        logit_lens(tiny, images[0], **settings)


def test_it_is_a_lens_as_the_others_are(tiny: Limber, images):
    """`read` takes it, and finds at the last residual what the model predicts."""
    lens = UnembeddingLens(tiny.lm, tiny.vocabulary.n_used)
    logits, cache = tiny.run_with_cache([images[0], "A picture of"], names_filter="blocks.2.hook_resid_post")
    watched = torch.tensor([3, 7])
    found = read(lens, cache["blocks.2.hook_resid_post"][0], 3, watched)
    scores, ids = logits[0, :, : tiny.vocabulary.n_used].topk(3)
    torch.testing.assert_close(found.ids, ids)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-4)
    ranks = 1 + (logits[0, :, : tiny.vocabulary.n_used, None] > logits[0][:, None, watched]).sum(1)
    torch.testing.assert_close(found.ranks, ranks)


def test_json_and_disk(tiny: Limber, images, tmp_path):
    record = logit_lens(tiny, images[:2], k=2, targets=["dog"], others=images, n_draws=3)
    values = json.loads(record.to_json())
    assert list(values) == ["command", "k", "layers", "prompt", "images", "manifest"]
    assert (values["command"], values["k"], values["layers"]) == ("logit_lens", 2, [0, 1, 2, 3])
    assert list(values["manifest"]["images"].values()) == [image_hash(image) for image in images[:2]]
    image = values["images"][0]
    assert (image["grid"], image["positions"]) == ([2, 2], [0, 1, 2, 3])
    for name in ("token_ids", "tokens", "logprobs"):
        assert np.array(image[name]).shape == (4, 4, 2)
    for name in ("entropy", "kl", "agrees"):
        assert np.array(image[name]).shape == (4, 4)
    assert image["tokens"][1][2] == [tiny.vocabulary.decode(id) for id in image["token_ids"][1][2]]
    dog = image["targets"]["dog"]
    assert np.array(dog["rank"]).shape == np.array(dog["logprob"]).shape == np.array(dog["logit"]).shape == (4, 4)
    assert len(dog["p_words"]["p"]) == len(dog["p_images"]["p"]) == 4
    assert list(image["controls"]) == list(DESCRIPTIONS)
    for control in image["controls"].values():
        assert len(control["top1_logprob"]["median"]) == 4
        assert control["targets"].keys() == {"dog"}
        assert np.array(control["token_ids"]).shape == (4, 4, 2)
    assert image["controls"]["noise"]["n_draws"] == 3

    record.save(tmp_path / "record.npz")
    again = Record.load(tmp_path / "record.npz")
    assert isinstance(again, LogitLens)
    assert again.to_json() == record.to_json()
    np.testing.assert_array_equal(again.images[1].seen, record.images[1].seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k = 0: choose 1 to 320"),
        ({"k": 321}, "k = 321: choose 1 to 320"),
        ({"layers": [4]}, r"layer 4: the language model has 0 \(the input\) to 3"),
        ({"layers": [-5]}, "layer -5: "),
        ({"layers": []}, "layers: none given"),
        ({"positions": [7]}, "position 7 of a prompt of 7: count from 0"),
        ({"positions": "first"}, "positions 'first' are unknown; use image, text, last, all"),
        ({"positions": [(2, 0)]}, r"patch \(2, 0\) lies outside the 2 x 2 grid"),
        ({"positions": []}, r"the prompt has none of \[\]"),
        ({"positions": np.array([], dtype=int)}, r"the prompt has none of \[\]"),
        ({"positions": np.array([True, False])}, "positions: found True, expected a whole number"),
        ({"positions": [0.5]}, "positions: found 0.5, expected a whole number"),
        ({"positions": [(0, 1, 2)]}, r"positions: found \(0, 1, 2\), expected a place or a patch's"),
        ({"layers": np.array([0.5])}, "layers: found 0.5, expected a whole number"),
        ({"batch_size": 0}, "batch_size 0: expected at least 1"),
        ({"batch_size": -1}, "batch_size -1: expected at least 1"),
        ({"targets": [""]}, "'' is no word: it is empty; name a word"),
        ({"targets": ["\t\t"]}, "is no word: it is only white space; name a word"),
        ({"positions": "text", "prompt": ""}, "the prompt has none of 'text'"),
        ({"n_draws": 0}, "n_draws = 0"),
        ({"controls": "most"}, "controls 'most' is unknown"),
        ({"targets": ["doge"]}, "'doge' is not one token"),
        ({"images_or_prompt": []}, "no image given"),
        ({"images_or_prompt": ["/nowhere.png"]}, "/nowhere.png: no such image file"),
    ],
)
def test_bad_input(tiny: Limber, images, settings, message):
    with pytest.raises(InputError, match=message):
        logit_lens(tiny, **{"images_or_prompt": images, "controls": "fast", **settings})


def test_a_folded_language_model_is_refused(world, images):
    model = load(world.config("clip"))
    model.lm.cfg.normalization_type = "LNPre"
    with pytest.raises(InputError, match="folded LayerNorm"):
        logit_lens(model, images[0])
