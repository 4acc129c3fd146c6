"""The recipe of the embedded suite: facts, pictures and texts that agree with each other."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.emoji_world import scenes, world
from experiments.emoji_world.corpus import captions, documents, notes, sentences, word_map
from experiments.emoji_world.evaluate import score
from experiments.emoji_world.report import minutes, table
from experiments.emoji_world.suite import stages
from limber_interp.config import config_names
from limber_interp.datasets import read_folder


def has_font() -> bool:
    try:
        scenes.font_path()
    except scenes.FontMissing:
        return False
    return True


needs_font = pytest.mark.skipif(not has_font(), reason="Noto Color Emoji is not installed (fonts-noto-color-emoji)")


def test_the_world_is_as_large_as_it_says() -> None:
    assert len(world.NOUNS) == len(set(world.NOUNS)) == 100
    assert len(world.CATEGORIES) == 10
    assert len(world.HELD_OUT_PAIRS) == 100 * 99 // 2 // 20
    assert {noun for pair in world.HELD_OUT_PAIRS for noun in pair} <= set(world.NOUNS)


def test_held_out_pairs_are_never_drawn_for_training() -> None:
    rng = np.random.default_rng(0)
    assert not any(world.sample_scene(rng).held_out for _ in range(2000))
    assert all(world.sample_scene(rng, held_out=True).held_out for _ in range(100))
    assert any(world.sample_scene(rng, held_out=None).held_out for _ in range(2000))


def test_a_scene_told_from_its_other_side_is_the_same_scene() -> None:
    scene = world.Scene(("dog", "car"), ("big", "small"), "left", "snow")
    assert captions(scene) == [
        "A picture of a big dog left of a small car in the snow.",
        "A picture of a small car right of a big dog in the snow.",
    ]
    assert scene.turned().turned() == scene
    assert scene.categories == ("animal", "vehicle")


@pytest.mark.parametrize(("form", "least"), [(notes, 1.0), (sentences, 1.0), (word_map, 0.93)])
def test_the_forms_name_the_scenes_nouns(form, least: float) -> None:
    """In a word map of few cells one object may cover the other's, and a stray word either: a reader's life is such."""
    rng = np.random.default_rng(3)
    scenes_ = [world.sample_scene(rng, held_out=None) for _ in range(500)]
    named = [set(scene.nouns) <= set(form(scene, rng).replace(".", "").split()) for scene in scenes_]
    assert np.mean(named) >= least


def test_the_corpus_is_seeded_and_the_ablation_has_no_word_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(islice(documents(5), 50)) == list(islice(documents(5), 50)) != list(islice(documents(6), 50))
    from experiments.emoji_world import corpus

    def refused(*_: object) -> str:
        raise AssertionError("a word map was asked for")

    monkeypatch.setattr(corpus, "word_map", refused)
    assert len(list(islice(documents(5, word_maps=False), 500))) == 500


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a big dog left of a small car in the snow.", (1, 1, 1, 1, 1)),
        ("a small car right of a big dog in the snow.", (1, 1, 1, 1, 1)),
        ("a small car left of a big dog in the snow.", (1, 1, 1, 0, 1)),
        ("a big cat left of a big bus on the sand.", (0, 1, 0, 0, 0)),
        ("a big dog on the sand.", (0.5, 0.5, 0, 0, 0)),
        ("snow snow", (0, 0, 0, 0, 0)),
    ],
)
def test_score_by_hand(caption: str, expected: tuple[float, ...]) -> None:
    facts = {"nouns": ["dog", "car"], "categories": ["animal", "vehicle"], "sizes": ["big", "small"],
             "relation": "left", "background": "snow"}  # fmt: skip
    assert (
        tuple(score(caption, facts)[k] for k in ("nouns", "categories", "sizes", "relation", "background")) == expected
    )


@needs_font
def test_the_same_seed_draws_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert scenes.main(["--seed", "4", "--count", "6", "--out", str(tmp_path / name)]) == 0
    assert scenes.main(["--seed", "5", "--count", "6", "--out", str(tmp_path / "c")]) == 0
    files = [
        {file.relative_to(root): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}
        for root in (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    ]
    assert len(files[0]) == 12
    assert files[0] == files[1] != files[2]


@needs_font
def test_scenes_are_in_limbers_folder_format_and_hold_what_they_say(tmp_path: Path) -> None:
    assert scenes.main(["--seed", "4", "--count", "30", "--out", str(tmp_path / "s"), "--pairs", "held-out"]) == 0
    examples = read_folder(tmp_path / "s")
    assert len(examples) == 30
    for example in examples:
        facts = example.metadata
        told = {"nouns", "categories", "sizes", "relation", "background", "boxes", "held_out", "questions"}
        assert facts.keys() == told
        assert facts["held_out"]
        assert len(facts["nouns"]) == len(facts["boxes"]) == 2
        (l0, t0, r0, b0), (l1, t1, r1, b1) = facts["boxes"]
        apart = {"left": r0 <= l1, "right": r1 <= l0, "above": b0 <= t1, "below": b1 <= t0}
        assert apart[facts["relation"]], facts
        assert min(l0, t0, l1, t1) >= 0
        assert max(r0, b0, r1, b1) <= scenes.IMAGE_SIZE
        with Image.open(example.image) as picture:
            assert picture.size == (96, 96)


@needs_font
def test_every_noun_has_its_own_glyph() -> None:
    glyphs = {scenes.sprite(noun).tobytes() for noun in world.NOUNS}
    assert len(glyphs) == 100


def test_a_missing_font_is_one_line(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(scenes, "FONT_PATHS", (tmp_path / "none.ttf",))
    assert scenes.main(["--seed", "1", "--count", "1", "--out", str(tmp_path / "out")]) == 2
    assert "fonts-noto-color-emoji" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert scenes.main(["--seed", "1", "--count", "1", "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_the_suite_trains_and_measures_every_embedded_config() -> None:
    embedded = {name for name in config_names() if name.startswith("emoji_")}
    assert len(embedded) == 6
    assert {f"{stage}_{name}" for stage in ("train", "eval") for name in embedded} <= stages().keys()


def test_table_by_hand() -> None:
    assert table(["", "x"], [["a", 0.5], ["b", None]]) == "|  | x |\n| --- | ---: |\n| a | 0.500 |\n| b | – |"


def test_minutes_are_added_and_sorted() -> None:
    lines = minutes({"lm": {"stage_minutes": 2.0}, "clip": {"stage_minutes": 3.0}}).splitlines()
    assert lines[2:] == ["| **all** | 5.0 |", "| `clip` | 3.0 |", "| `lm` | 2.0 |"]
