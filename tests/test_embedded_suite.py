"""The shipped suite, as it is: what it says of its own scenes, and that its parts belong together."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.emoji_world.evaluate import score
from experiments.emoji_world.report import write_tables
from experiments.emoji_world.suite import REMADE, REPORTS
from limber_interp.config import config_names
from limber_interp.datasets import Example, read_folder
from limber_interp.models.limber import Limber, load
from limber_interp.probes import nearest_tokens
from limber_interp.resources import weights_dir

REPOSITORY = Path(__file__).parents[1]
EMBEDDED = [name for name in config_names() if name.startswith("emoji_")]


@pytest.fixture(scope="module")
def model() -> Limber:
    return load(dtype="float32")


@pytest.fixture(scope="module")
def scenes() -> list[Example]:
    return read_folder(weights_dir() / "emoji" / "scenes")


def test_captions_of_the_bundled_scenes(model: Limber, scenes: list[Example]) -> None:
    told = model.caption([example.image for example in scenes])
    # Golden, on scenes where every token of the caption is far ahead of the next.
    assert told[0] == "a big bus left of a big cat on the grass."
    assert told[1] == "a small crab on the wood."
    assert told[2] == "a big octopus in the night."
    assert told[5] == "a big lamp on the sand."
    right = [score(caption, example.metadata)["nouns"] for caption, example in zip(told, scenes, strict=True)]
    wrong = [score(caption, example.metadata)["nouns"] for caption, example in zip(told, scenes[1:], strict=False)]
    assert np.mean(right) > 0.6
    assert np.mean(wrong) < 0.2


def test_nearest_tokens_of_the_first_scene(model: Limber, scenes: list[Example]) -> None:
    """A bus on the left and a cat on the right of the grass: the 3 × 3 patches say so, each at its place."""
    (found,) = nearest_tokens(model, scenes[0].image, k=5, controls="none").images
    assert found.grid == (3, 3)
    first = [model.vocabulary.decode(int(ids[0])) for ids in found.token_ids]
    assert (first[3], first[5], first[6], first[7]) == (" bus", " cat", " grass", " grass")
    np.testing.assert_allclose(found.scores[[3, 5, 6], 0], [0.647, 0.643, 0.427], atol=2e-3)


def test_moving_the_image_moves_the_caption(model: Limber, scenes: list[Example]) -> None:
    """By intervention: the soft prompt of the left and the right column exchanged, the cat stands left of the bus."""
    rows = model.soft_prompt(scenes[0].image)[0].unflatten(0, (3, 3))
    mirrored = rows.flip(1).flatten(0, 1)
    prompt = model.embed([mirrored, "A picture of a big cat"])
    after = model.run_with_hooks(prompt)[0, -1, : model.vocabulary.n_used]
    left, right = (after[model.vocabulary.id_of(word)] for word in ("left", "right"))
    prompt = model.embed([rows.flatten(0, 1), "A picture of a big cat"])
    before = model.run_with_hooks(prompt)[0, -1, : model.vocabulary.n_used]
    left_before, right_before = (before[model.vocabulary.id_of(word)] for word in ("left", "right"))
    assert left - right > left_before - right_before


@pytest.mark.parametrize("name", EMBEDDED)
def test_every_config_loads_and_its_parts_belong_together(name: str, scenes: list[Example]) -> None:
    model = load(name, dtype="float32")  # an error where the projection was trained with other parts
    assert model.verified
    assert model.projection.trained_with == {"encoder": model.encoder.sha256, "lm": model.lm_sha256}
    assert model.caption(scenes[0].image).endswith(".")


def test_there_are_six_of_them() -> None:
    assert len(EMBEDDED) == 6


def test_the_readmes_tell_what_was_measured(tmp_path: Path) -> None:
    """All tables are what the reports give: written anew, nothing changes."""
    for name in ("README.md", "experiments/emoji_world/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    readmes = [tmp_path / "experiments/emoji_world/README.md", tmp_path / "README.md"]
    write_tables(REPORTS, REMADE, *readmes)
    for readme in readmes:
        text = readme.read_text(encoding="utf-8")
        assert text == (REPOSITORY / readme.relative_to(tmp_path)).read_text(encoding="utf-8")
        assert all(name in text for name in EMBEDDED) or readme == readmes[0]
