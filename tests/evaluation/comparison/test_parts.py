"""The parts of a comparison that need no model."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from limber_interp import resources
from limber_interp.config import load_config
from limber_interp.datasets import Example
from limber_interp.errors import InputError
from limber_interp.evaluation.comparison.captions import without_prompt
from limber_interp.evaluation.comparison.entries import contestants, load_configs
from limber_interp.evaluation.comparison.labels import labels_of
from limber_interp.evaluation.comparison.results import Results, Said
from limber_interp.evaluation.comparison.scoring import Measured, Sample, contrasts, scores
from limber_interp.evaluation.comparison.telling import blocks
from limber_interp.evaluation.comparison.words import measure_words, true_nouns
from limber_interp.evaluation.lexicon import Lexicon
from limber_interp.evaluation.taxonomy import Taxonomy
from limber_interp.ranks import Ranks
from limber_interp.records import Metric

METRIC = Metric("right", "right", "vqa", "share", 1, "how much is right")
NAN = float("nan")


def test_random_encoders_of_the_same_language_model_are_added() -> None:
    configs, notes = load_configs(["emoji_nfrn_random_linear", "emoji_clip_linear"])
    assert [config.name for config in configs] == [
        "emoji_nfrn_random_linear", "emoji_clip_linear", "emoji_beit_random_linear",
    ]  # fmt: skip
    assert notes == []
    shown = [(entry.name, entry.kind, entry.config.name) for entry in contestants(configs)]
    assert shown[1:] == [
        ("emoji_clip_linear", "trained", "emoji_clip_linear"),
        ("emoji_beit_random_linear", "random", "emoji_beit_random_linear"),
        ("blind", "control", "emoji_nfrn_random_linear"),
        ("mean image", "control", "emoji_nfrn_random_linear"),
    ]


def test_random_encoders_whose_files_are_not_there_are_named(world, tmp_path, monkeypatch) -> None:
    (tmp_path / "configs").symlink_to(resources.configs_dir())
    monkeypatch.setattr(resources, "root", lambda: tmp_path)  # where nobody has fetched anything
    configs, notes = load_configs(["clip_linear"], lm="/models/gpt-j-6b")
    assert [(config.name, config.lm_name) for config in configs] == [("clip_linear", "/models/gpt-j-6b")]
    assert notes == [
        "beit_random_linear (random encoder) is left out: its projection was never published, and none is named",
        "nfrn50_4096_random_linear (random encoder) is left out: "
        "limber_weights/nfrn50_4096_random_linear/proj.ckpt is not there",
    ]
    _, notes = load_configs([world.config()])
    assert notes == ["no random encoder is among the entries: none in configs/ goes with this language model"]


def test_two_language_models_have_controls_of_their_own() -> None:
    configs = [load_config("emoji_clip_linear"), load_config("clip_linear"), load_config("beit_linear")]
    names = [(entry.name, entry.config.name) for entry in contestants(configs)][3:]
    assert names == [
        ("blind, lm", "emoji_clip_linear"), ("mean image, lm", "emoji_clip_linear"),
        ("blind, gpt-j-6B", "clip_linear"), ("mean image, gpt-j-6B", "clip_linear"),
    ]  # fmt: skip


def test_names_that_cannot_be_told_apart() -> None:
    with pytest.raises(InputError, match="two configs are named emoji_clip_linear"):
        load_configs(["emoji_clip_linear", "emoji_clip_linear"])
    with pytest.raises(InputError, match="no config to compare"):
        load_configs([])


@given(st.integers(0, 40), st.integers(1, 7), st.integers(1, 4))
def test_processes_share_whole_batches(count: int, size: int, world_size: int) -> None:
    shares = [list(blocks(count, size, Ranks(rank, world_size))) for rank in range(world_size)]
    alone = list(blocks(count, size, Ranks()))
    assert sorted((block for share in shares for block in share), key=lambda block: block.start) == alone
    assert [index for block in alone for index in block] == list(range(count))


SETTINGS = {"caption": {"prompt": "A"}, "vqa": None, "entries": {"a": {"lm": "1"}, "b": {"lm": "1"}}}


def said(entry: str, index: int, text: str = "it") -> Said:
    return Said(entry, "caption", index, f"key {index}", text)


def test_results_are_gathered_in_one_order(tmp_path: Path) -> None:
    first, second = Results(tmp_path, SETTINGS, 0), Results(tmp_path, SETTINGS, 1)
    second.append([said("b", 0), said("a", 1)])
    first.append([said("b", 1)])
    first.append([said("a", 0, "é\n"), said("b", 1, "not again")])
    first.gather()
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert rows[0] == {"comparison": 1, **SETTINGS}
    assert [(row["entry"], row["index"]) for row in rows[1:]] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert first.texts("a", "caption", [1, 0]) == ["it", "é\n"]
    assert first.texts("b", "caption", [1]) == ["it"]
    assert not first.missing("a", "caption", [0, 1])
    assert first.missing("a", "caption", [0, 2])
    assert first.missing("a", "vqa_0", [0])
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize("torn_at", [1, 30, -1])
def test_torn_lines_are_dropped(tmp_path: Path, torn_at: int) -> None:
    Results(tmp_path, SETTINGS).append([said("a", 0), said("a", 1)])
    part = tmp_path / "results.part-0.jsonl"
    part.write_bytes(part.read_bytes()[:torn_at])
    again = Results(tmp_path, SETTINGS)
    assert again.missing("a", "caption", [1])
    assert again.missing("a", "caption", [0]) == (torn_at > 0)  # torn at its head, the file has nothing


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({**SETTINGS, "caption": {"prompt": "B"}}, 'caption.prompt was "A", now "B"'),
        ({**SETTINGS, "entries": {"a": {"lm": "1"}}}, 'entries.b.lm was "1", now null'),
        ({**SETTINGS, "entries": {**SETTINGS["entries"], "b": {"lm": "2"}}}, 'entries.b.lm was "1", now "2"'),
    ],
)
def test_another_runs_results_are_refused(tmp_path: Path, settings, line: str) -> None:
    Results(tmp_path, SETTINGS).append([said("a", 0)])
    with pytest.raises(InputError, match=f"results of another run: {line}; name another folder"):
        Results(tmp_path, settings)


def test_what_is_no_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("what is this?\n")
    with pytest.raises(InputError, match="not results of a comparison"):
        Results(tmp_path, SETTINGS)


def test_the_prompt_is_no_part_of_a_reference() -> None:
    references = [["A picture of a dog."], ["A picture of a cat.", " A picture of it."]]
    assert without_prompt(references, "A picture of") == [["a dog."], ["a cat.", "it."]]
    assert without_prompt([*references, ["A dog."]], "A picture of")[0] == ["A picture of a dog."]
    assert without_prompt(references, "") == [["A picture of a dog."], ["A picture of a cat.", "A picture of it."]]


def test_an_image_weighs_as_much_as_its_questions() -> None:
    """The first image has three questions, of which 2 are answered rightly by a, the second one, answered rightly, the
    third none: 3 / 4, where the mean over images would be 5 / 6. b answers all wrongly, and c has no answers."""
    values = np.array([[2 / 3, 1.0, NAN], [0.0, 0.0, NAN], [NAN, NAN, NAN]])
    measured = Measured(METRIC, Sample(values, np.array([3.0, 1.0, 0.0])), np.array([0.5, 0.25, NAN]))
    found = list(scores(measured, ["a", "b", "c"], seed=0))
    assert [(score.entry, score.estimate.value, score.chance) for score in found] == [("a", 0.75, 0.5), ("b", 0, 0.25)]
    (contrast,) = contrasts(measured, ["a", "b", "c"], seed=0)
    assert (contrast.first, contrast.second) == ("a", "b")
    assert contrast.difference.estimate.value == pytest.approx(0.75)
    assert contrast.difference.estimate.n == 2


def test_differences_are_corrected_for_the_number_of_pairs() -> None:
    """Ten images on which a is always better, and b and c differ on none: the smallest of three p is tripled."""
    values = np.concatenate([np.linspace(1, 2, 10)[None], np.zeros((2, 10))])
    found = list(contrasts(Measured(METRIC, Sample(values)), ["a", "b", "c"], seed=0))
    assert [(c.first, c.second) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[0].difference.p == pytest.approx(2 / 2**10)
    assert found[0].p_corrected == pytest.approx(3 * found[0].difference.p)
    assert found[2].p_corrected == 1


def test_labels_are_facts_of_one_thing(tmp_path: Path) -> None:
    Image.new("RGB", (100, 60)).save(tmp_path / "a.png")
    of = [
        {"categories": ["animal"], "sizes": ["big"], "boxes": [[0, 40, 30, 60]], "nouns": ["dog"], "held_out": False},
        {"categories": ["animal", "toy"], "sizes": ["big", "small"], "boxes": [[0, 0, 1, 1], [2, 2, 3, 3]], "depth": 3},
        {"categories": "toy", "boxes": [[60, 0, 90, 20]], "questions": []},
    ]
    assert labels_of([Example(tmp_path / "a.png", ("a",), metadata) for metadata in of]) == {
        "category": ["animal", None, "toy"],
        "size": ["big", None, None],
        "depth": [None, "3", None],
        "position": ["bottom left", None, "top right"],
    }


def test_words_for_true_nouns_are_as_they_are_written(words: Path) -> None:
    """Of two entries over two images: what is true of the one is not of the other."""
    told = [["two Dogs and a car", "a dog"], ["a small cat", "cars"]]
    references = [["a small dog on it", "one boat"], ["a car"]]
    found = list(true_nouns(told, references, Lexicon.read(words)))
    assert found == [("boat", "dog", "dogs"), ("car", "cars")]


def test_words_told_rightly(words: Path) -> None:
    """Of two entries over two images: the first names the dog and its size, and takes the car for a cat; the second
    tells nothing."""
    told = [["a small dog", "a cat"], ["", ""]]
    references = [["a small dog on it"], ["a car"]]
    found = {
        one.metric.name: one
        for one in measure_words(told, references, Lexicon.read(words), Taxonomy.read(words), ("categories",), seed=0)
    }
    assert list(found) == ["noun_recall", "noun_precision", "wu_palmer", "wu_palmer_wrong"]
    np.testing.assert_array_equal(found["noun_recall"].sample.values, [[1, 0], [0, 0]])
    np.testing.assert_array_equal(found["noun_precision"].sample.values, [[1, 0], [NAN, NAN]])
    # Against the other image's references the dog is no car, and the cat no dog
    np.testing.assert_array_equal(found["noun_recall"].chance, [0, 0])
    # A car and a cat share the root alone: 2 · 1 / (4 + 4), as root, group, category and noun are four levels
    np.testing.assert_allclose(found["wu_palmer"].sample.values, [[1, 1 / 4], [0, 0]])
    np.testing.assert_allclose(found["wu_palmer_wrong"].sample.values, [[NAN, 1 / 4], [NAN, NAN]])
    by_animal = found["noun_recall"].groups["category", "animal"]
    np.testing.assert_array_equal(by_animal.values, [[1, NAN], [0, NAN]])
