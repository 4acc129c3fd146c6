import math

import numpy as np
import pytest
import torch

from limber_interp.errors import InputError
from limber_interp.evaluation.captions import captions, mean_logprob
from limber_interp.images import image_hash
from limber_interp.models.generation import generate
from limber_interp.models.limber import Limber
from limber_interp.probes import logit_lens, nearest_tokens
from limber_interp.probes.controls import noise
from limber_interp.records import Captions


def test_captions_are_the_models(tiny: Limber, images):
    record = captions(tiny, images, max_new_tokens=5, batch_size=2)
    assert [item.caption for item in record.images] == tiny.caption(images, max_new_tokens=5)
    assert [item.seen.shape for item in record.images] == [(64, 64, 3)] * 3
    assert list(record.manifest.images.values()) == [image_hash(image) for image in images]
    same_size = captions(tiny, [images[1], images[1].rotate(180)], max_new_tokens=1).manifest.images
    assert len(set(same_size.values())) == 2, "two images without a name have two hashes"


def test_mean_logprob_is_that_of_the_next_tokens(tiny: Limber, images):
    """By hand: the distribution after each prefix, one prefix at a time."""
    text = " dog on the grass"
    ids = tiny.vocabulary.encode(text)
    assert len(ids) > 1
    soft_prompt = tiny.soft_prompt(images[:1])[0]
    expected, prefix = [], torch.cat([soft_prompt, tiny.lm.W_E[tiny.vocabulary.encode("A picture of")]])
    for token in ids:
        logits = tiny.lm(prefix[None], start_at_layer=0)[0, -1, : tiny.vocabulary.n_used]
        expected.append(logits.log_softmax(dim=-1)[token].item())
        prefix = torch.cat([prefix, tiny.lm.W_E[[token]]])
    found = mean_logprob(tiny, [soft_prompt, "A picture of"], ids)
    assert found == pytest.approx(np.mean(expected), abs=1e-4)


def test_the_scores_belong_to_their_prompts(tiny: Limber, images):
    """A tiny random model writes bytes that are no text: a caption read back would be scored as other tokens."""
    (item,) = captions(tiny, images[:1], max_new_tokens=4).images
    soft_prompt = tiny.soft_prompt(images[:1])[0]
    prompt = tiny.embed([soft_prompt, "A picture of"])
    (ids,) = generate(
        tiny.lm, prompt.residual, prompt.attention_mask, tiny.vocabulary.n_used, tiny.vocabulary.eos, max_new_tokens=4
    )
    assert item.logprob == pytest.approx(mean_logprob(tiny, [soft_prompt, "A picture of"], ids), abs=1e-5)
    assert item.logprob_no_image == pytest.approx(mean_logprob(tiny, ["A picture of"], ids), abs=1e-5)
    assert len({item.logprob, item.logprob_no_image, item.logprob_noise}) == 3


def test_the_noise_has_the_norms_of_the_soft_prompt(tiny: Limber, images):
    soft_prompt = tiny.soft_prompt(images[:1])[0]
    drawn, other = (noise(soft_prompt, 1, torch.Generator().manual_seed(seed))[0] for seed in (0, 1))
    torch.testing.assert_close(drawn.norm(dim=-1), soft_prompt.norm(dim=-1))
    assert torch.nn.functional.cosine_similarity(drawn, soft_prompt).abs().max() < 0.9
    assert not torch.equal(drawn, other)


def test_greedy_captions_are_more_probable_than_chance(tiny: Limber, images):
    """Each token of a greedy caption is the most probable of all, so its mean is above that of a uniform guess."""
    record = captions(tiny, images, max_new_tokens=5)
    assert all(item.logprob > -math.log(tiny.vocabulary.n_used) for item in record.images)


def test_a_text_without_tokens_has_no_score(tiny: Limber):
    assert math.isnan(mean_logprob(tiny, ["A picture of"], []))


def test_the_seed_decides_samples_and_noise(tiny: Limber, images):
    def drawn(seed: int) -> Captions:
        return captions(tiny, images[:1], max_new_tokens=8, temperature=2.0, seed=seed)

    assert drawn(0).to_json() == drawn(0).to_json()
    assert drawn(0).images[0].caption != drawn(1).images[0].caption
    assert drawn(1).manifest.seed == 1


def test_json_and_disk(tiny: Limber, images, tmp_path):
    record = captions(tiny, images[:1], max_new_tokens=3)
    values = record.as_dict()
    assert list(values) == ["command", "prompt", "images", "controls", "manifest"]
    assert values["command"] == "caption"
    assert list(values["images"][0]) == ["image", "caption", "logprob", "controls"]
    record.save(tmp_path / "captions.npz")
    again = Captions.load(tmp_path / "captions.npz")
    assert again.to_json() == record.to_json()
    np.testing.assert_array_equal(again.images[0].seen, record.images[0].seen)


def test_a_bad_image_among_good_ones_stops_before_any_work(tiny: Limber, images):
    def never(batches):
        raise AssertionError("work began")

    with pytest.raises(InputError, match="no/such"):
        captions(tiny, [images[0], "no/such.png"], progress=never)


def test_several_samples_of_each_image(tiny: Limber, images, tmp_path):
    """The first is the caption that is drawn without `n_samples`, and every key of that stays."""
    sampling = {"temperature": 2.0, "top_p": 0.9, "max_new_tokens": 6, "seed": 1}
    one, record = captions(tiny, images, **sampling), captions(tiny, images, **sampling, n_samples=3, batch_size=2)
    drawn = [[sample.caption for sample in item.samples] for item in record.images]
    assert drawn == tiny.caption(images, **sampling, n_samples=3)
    assert len({caption for of_image in drawn for caption in of_image}) == 9
    for single, several in zip(one.as_dict()["images"], record.as_dict()["images"], strict=True):
        samples = several.pop("samples")
        assert list(several) == list(single)
        assert several["caption"] == single["caption"]
        assert several["logprob"] == pytest.approx(single["logprob"], abs=1e-4)
        assert samples[0] == {key: several[key] for key in ("caption", "logprob", "controls")}
        assert len(samples) == 3
    values = record.as_dict()
    assert values["sampling"] == {"temperature": 2.0, "top_k": None, "top_p": 0.9}
    assert values["controls"]["no_image"]["caption"] == one.caption_no_image == record.samples_no_image[0]
    assert [sample["caption"] for sample in values["controls"]["no_image"]["samples"]] == list(record.samples_no_image)
    assert len(set(record.samples_no_image)) == 3
    record.save(tmp_path / "several.npz")
    assert Captions.load(tmp_path / "several.npz").to_json() == record.to_json()


def test_a_record_of_images_equals_one_by_one(tiny: Limber, images):
    """What is drawn, noise too, depends on the picture, and not on its place."""
    together = captions(tiny, images, temperature=1.5, max_new_tokens=5).images
    for image, item in zip(images, together, strict=True):
        (alone,) = captions(tiny, [image], temperature=1.5, max_new_tokens=5).images
        assert alone.caption == item.caption
        scores = ("logprob", "logprob_no_image", "logprob_noise")
        assert [getattr(alone, s) for s in scores] == pytest.approx([getattr(item, s) for s in scores], abs=1e-4)


@pytest.mark.parametrize("batch_size", [-1, 0])
def test_a_batch_size_below_one(tiny: Limber, images, batch_size):
    """It ended with Python's own line on ranges or slices, or with no result."""
    line = f"batch_size {batch_size}: expected at least 1"
    works = [
        lambda: captions(tiny, images, batch_size=batch_size),
        lambda: logit_lens(tiny, images, controls="none", batch_size=batch_size),
        lambda: nearest_tokens(tiny, images, controls="none", batch_size=batch_size),
    ]
    for work in works:
        with pytest.raises(InputError, match=line):
            work()


@pytest.mark.parametrize("n_samples", [2, 0, -1])
def test_a_number_of_samples_that_makes_no_sense(tiny: Limber, images, n_samples):
    with pytest.raises(InputError, match=f"n_samples {n_samples}"):
        captions(tiny, images, n_samples=n_samples)
