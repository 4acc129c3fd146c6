import json
from itertools import repeat

import numpy as np
import pytest
import torch

from limber_interp.errors import InputError
from limber_interp.images import image_hash
from limber_interp.models.limber import Limber, load
from limber_interp.probes import nearest_tokens
from limber_interp.probes.lens import METRICS
from limber_interp.records import NearestTokens, Record
from tests.probes.test_lens import by_definition


@pytest.mark.parametrize("matrix", ["W_E", "W_U"])
@pytest.mark.parametrize("metric", METRICS)
def test_equals_brute_force_over_the_whole_chain(tiny: Limber, images, metric, matrix):
    record = nearest_tokens(tiny, images, k=4, metric=metric, matrix=matrix, controls="none", batch_size=2)
    rows = tiny.lm.W_E if matrix == "W_E" else tiny.lm.W_U.T
    assert len(rows) > tiny.vocabulary.n_used  # or the padding rows would not be tested
    for image, item in zip(images, record.images, strict=True):
        soft_prompt = tiny.soft_prompt(image)[0]
        expected = by_definition(soft_prompt.numpy(), rows[: tiny.vocabulary.n_used].numpy(), metric)
        order = np.argsort(-expected, axis=-1, kind="stable")[:, :4]
        np.testing.assert_array_equal(item.token_ids, order)
        np.testing.assert_allclose(item.scores, np.take_along_axis(expected, order, -1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(item.norms, soft_prompt.norm(dim=-1), rtol=1e-5)
        assert item.grid == tiny.encoder.grid == (2, 2)
        np.testing.assert_array_equal(item.seen, tiny.encoder.visible(tiny.preprocess(image)[0]))
    assert list(record.manifest.images.values()) == [image_hash(image) for image in images]


def test_ranks_hits_and_p_values_by_hand(tiny: Limber, images):
    vocabulary = tiny.vocabulary
    record = nearest_tokens(tiny, images, k=3, targets=("dog", " cat", "dog"), others=[], n_draws=2)
    texts = vocabulary.strings(range(vocabulary.n_used))
    words = [id for id, text in enumerate(texts) if len(text) > 2 and text[0] == " " and text[1:].isalpha()]
    assert len(words) >= 10
    cosines = torch.cosine_similarity(tiny.soft_prompt(images)[:, :, None], tiny.lm.W_E[: vocabulary.n_used], dim=-1)
    ranks = (-cosines).argsort(-1).argsort(-1).numpy() + 1
    best = ranks.min(axis=1)
    for i, item in enumerate(record.images):
        assert [target.word for target in item.targets] == ["dog", " cat"]
        for target in item.targets:
            assert target.token == f" {target.word.strip()}"
            np.testing.assert_array_equal(target.ranks, ranks[i, :, target.token_id])
            assert target.best_rank == best[i, target.token_id] == target.ranks[target.best_position]
            others = [word for word in words if word != target.token_id]
            at_least = sum(best[i, word] <= target.best_rank for word in others)
            assert (target.p_words, target.n_words) == ((1 + at_least) / (1 + len(others)), len(others))
            at_least = sum(best[j, target.token_id] <= target.best_rank for j in range(3) if j != i)
            assert (target.p_images, target.n_images) == ((1 + at_least) / 3, 2)
            hits = {control.name: control.hits[target.word] for control in item.controls}
            assert hits["other_images"] == np.mean([best[j, target.token_id] <= 3 for j in range(3) if j != i])
            mean = tiny.soft_prompt(images).mean(0)
            of_mean = torch.cosine_similarity(mean[:, None], tiny.lm.W_E[: vocabulary.n_used], dim=-1)
            best_of_mean = (of_mean > of_mean[:, [target.token_id]]).sum(-1).min() + 1
            assert hits["mean_prompt"] == (best_of_mean <= 3)
            assert all(share in (0, 0.5, 1) for share in hits.values())


def test_a_string_is_one_word(tiny: Limber, images):
    """`targets="dog"` followed d, o and g."""
    (target,) = nearest_tokens(tiny, images[0], targets="dog", controls="none").images[0].targets
    assert (target.word, target.token) == ("dog", " dog")


def test_other_images_are_the_other_results(tiny: Limber, images):
    """The same picture given twice is no other image."""
    record = nearest_tokens(tiny, [*images, images[0].copy()], others=[])
    nearest = [item.scores[:, 0] for item in record.images]
    for i, expected in enumerate([(1, 2), (0, 2, 3), (0, 1, 3), (1, 2)]):
        control = record.images[i].controls[-1]
        assert control.name == "other_images"
        np.testing.assert_array_equal(control.scores, [nearest[j] for j in expected])
        assert control.sources == tuple(record.images[j].image for j in expected)


def test_one_image_is_held_against_images_of_the_side(tiny: Limber, images):
    alone = nearest_tokens(tiny, images[0], others=images, targets=["dog"]).images
    together = nearest_tokens(tiny, images, others=[], targets=["dog"]).images
    assert len(alone) == 1
    np.testing.assert_array_equal(alone[0].controls[-1].scores, together[0].controls[-1].scores)
    assert alone[0].targets[0].p_images == together[0].targets[0].p_images
    with pytest.raises(InputError, match="no other image"):
        nearest_tokens(tiny, images[0], others=[])


def test_one_image_is_held_against_the_bundled_scenes(tiny: Limber, images):
    control = nearest_tokens(tiny, images[0]).images[0].controls[-1]
    assert control.n_draws == 19
    assert len(set(control.sources)) == 19
    assert all("scenes" in source for source in control.sources)
    of_the_suite = nearest_tokens(tiny, control.sources[0]).images[0].controls[-1]
    assert control.sources[0] not in of_the_suite.sources


def test_controls_depend_on_the_seed_and_not_on_the_batches(tiny: Limber, images):
    def scores(**settings) -> list[np.ndarray]:
        record = nearest_tokens(tiny, images, metric="dot", controls="fast", **settings)
        return [control.scores for item in record.images for control in item.controls]

    first, again, other = scores(batch_size=1), scores(batch_size=3), scores(seed=1)
    assert [len(control) for control in first] == [25] * 6  # 4 positions: 100 scores
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
        assert not np.allclose(a, c, rtol=1e-2)
    assert not np.allclose(first[0], first[2], rtol=1e-2)  # each image has its own draws


def test_more_draws_than_fit_at_once(tiny: Limber, images):
    control = nearest_tokens(tiny, images[0], controls="fast", n_draws=300).images[0].controls[0]
    assert control.scores.shape == (300, 4)
    assert control.n_draws == 300
    assert len(np.unique(control.scores)) == 1200


def test_streams_over_an_iterator(tiny: Limber, images):
    """5,000 images from a generator: not even their pixels are kept."""
    opened = 0

    def source():
        nonlocal opened
        for image in [*images, *repeat(images[0], 7)]:
            opened += 1
            yield image

    def watch(sources):
        for image in sources:
            assert opened <= 4 * (1 + (opened - 1) // 4)
            yield image

    record = nearest_tokens(tiny, source(), controls="none", batch_size=4, keep_seen=2, progress=watch)
    assert [item.seen is not None for item in record.images] == [True] * 2 + [False] * 8
    np.testing.assert_array_equal(record.images[0].token_ids, record.images[9].token_ids)


def test_pooled_encoder_has_no_grid(world, images):
    record = nearest_tokens(load(world.config("nfresnet")), images[0], controls="fast")
    assert record.images[0].grid is None
    assert record.images[0].token_ids.shape == (3, 5)


def test_json_and_disk(tiny: Limber, images, tmp_path):
    record = nearest_tokens(tiny, images[:2], k=2, targets=["dog"], others=images, n_draws=3)
    values = json.loads(record.to_json())
    assert list(values) == ["command", "metric", "matrix", "k", "token_norms", "images", "manifest"]
    assert (values["command"], values["metric"], values["k"]) == ("nearest_tokens", "cosine", 2)
    image = values["images"][0]
    assert image["grid"] == [2, 2]
    assert [len(row) for row in image["token_ids"]] == [2] * 4
    assert image["tokens"] == [[tiny.vocabulary.decode(id) for id in row] for row in image["token_ids"]]
    assert len(image["norms"]) == 4
    assert list(image["controls"]) == ["noise", "random_map", "random_encoder", "mean_prompt", "other_images"]
    for control in image["controls"].values():
        assert control["median"] <= control["q95"]
        assert 0 <= control["share_above_q95"] <= 1
        assert control["hit_at_k"].keys() == {"dog"}
    assert image["controls"]["noise"]["n_draws"] == 3
    assert image["targets"]["dog"]["rank"] == record.images[0].targets[0].ranks.tolist()
    assert values["token_norms"]["q05"] < values["token_norms"]["median"] < values["token_norms"]["q95"]

    record.save(tmp_path / "record.npz")
    again = Record.load(tmp_path / "record.npz")
    assert isinstance(again, NearestTokens)
    assert again.to_json() == record.to_json()
    np.testing.assert_array_equal(again.images[1].seen, record.images[1].seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k = 0: choose 1 to 320"),
        ({"k": 321}, "k = 321: choose 1 to 320"),
        ({"metric": "manhattan"}, "metric 'manhattan' is unknown; use one of cosine, dot"),
        ({"matrix": "W_Q"}, "matrix 'W_Q' is unknown; use W_E or W_U"),
        ({"controls": "most"}, "controls 'most' is unknown; use one of none, fast, full"),
        ({"n_draws": 0}, "n_draws = 0"),
        ({"targets": ["doge"]}, "'doge' is not one token"),
        ({"targets": ""}, "'' is no word: it is empty; name a word"),
        ({"batch_size": 0}, "batch_size 0: expected at least 1"),
        ({"images": []}, "no image given"),
        ({"images": ["/nowhere.png"]}, "/nowhere.png: no such image file"),
    ],
)
def test_bad_input(tiny: Limber, images, settings, message):
    with pytest.raises(InputError, match=message):
        nearest_tokens(tiny, **{"images": images, "controls": "fast", **settings})


def test_a_soft_prompt_that_is_not_finite_is_named(world, images):
    model = load(world.config("clip"))
    model.projection.linear.bias.data[3] = float("nan")
    with pytest.raises(InputError, match="its soft prompt is not finite"):
        nearest_tokens(model, images[0])


def test_a_folded_language_model_is_refused(world, images):
    model = load(world.config("clip"))
    model.lm.cfg.normalization_type = "LNPre"
    with pytest.raises(InputError, match="folded LayerNorm"):
        nearest_tokens(model, images[0])
