"""What the experiment counts, by hand."""

import numpy as np
import pytest

from experiments.logit_lens_emoji.measured import best_tokens, object_positions, prompts
from experiments.logit_lens_emoji.run import interval
from experiments.logit_lens_emoji.shown import table
from limber_interp.datasets import Example
from limber_interp.models.limber import Limber, load
from limber_interp.probes import logit_lens, nearest_tokens


def test_the_patches_of_an_object(tiny: Limber, world):
    assert tiny.encoder.grid == (2, 2)
    assert object_positions(tiny, [0, 0, 48, 48], 96) == [0]
    assert object_positions(tiny, [30, 0, 90, 48], 96) == [1], "of the first patch it covers 18 of 48 columns"
    assert object_positions(tiny, [0, 20, 96, 70], 96) == [0, 1], "the upper two by more than half, the lower by less"
    assert object_positions(tiny, [40, 40, 60, 58], 96) == [3], "no patch by half: the one that it covers most"
    assert object_positions(load(world.config("nfresnet")), [0, 0, 9, 9], 96) == [0, 1, 2], "positions without places"


@pytest.fixture
def examples(images, tmp_path) -> list[Example]:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return [Example(image=path, captions=("A",), metadata={}) for path in paths]


def test_what_is_read_is_what_the_probes_read(tiny: Limber, examples):
    found = prompts(tiny, examples, seed=0)
    sources = [example.image for example in examples]
    np.testing.assert_allclose(found["image"], tiny.soft_prompt(sources), atol=1e-5)
    for name, rows in found.items():
        assert rows.shape == found["image"].shape, name
        if name != "image":
            assert not np.allclose(rows, found["image"], atol=0.01), name
    partners = [[np.allclose(a, b, atol=1e-5) for b in found["image"]].index(True) for a in found["other_images"]]
    assert sorted(partners) == [0, 1, 2]
    assert all(partner != i for i, partner in enumerate(partners))

    ids = best_tokens(tiny, found["image"])
    lens = logit_lens(tiny, sources, k=5, controls="none")
    near = nearest_tokens(tiny, sources, k=5, controls="none")
    for i in range(3):
        np.testing.assert_array_equal(ids[0, i], near.images[i].token_ids)
        np.testing.assert_array_equal(ids[1:, i], lens.images[i].reading.token_ids)


def test_intervals():
    values = np.random.default_rng(0).random((400, 2)) < (0.3, 0.9)
    mean, low, high = interval(values.astype(float), seed=0)
    np.testing.assert_allclose(mean, values.mean(axis=0))
    width = 1.96 * np.sqrt(mean * (1 - mean) / 400)  # of a share, by the normal approximation
    np.testing.assert_allclose([mean - low, high - mean], [width, width], rtol=0.2)


def test_the_table_has_a_line_for_every_prompt():
    values = [[0.5, 0.25], [0.4, 0.2], [0.6, 0.3]]
    shown = table({"configs": {"emoji_clip_linear": {"image": values, "noise": values}}})
    assert shown.splitlines()[2:] == [
        "| `emoji_clip_linear` | image | 0.50 (0.40–0.60) | 0.25 (0.20–0.30) |",
        "|  | noise | 0.50 | 0.25 |",
    ]
