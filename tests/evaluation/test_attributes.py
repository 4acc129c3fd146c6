"""Attributes that animals share, by hand, on files in the data set's own format."""

from pathlib import Path

import numpy as np
import pytest

from limber_interp.errors import InputError
from limber_interp.evaluation.attributes import AnimalAttributes, overlap_in_error
from limber_interp.evaluation.lexical import count

ANIMALS = ["antelope", "polar+bear", "seal", "giant+panda"]
ATTRIBUTES = ["white", "black", "swims", "hooves", "paws"]
#          white black swims hooves paws
BINARY = """0 0 0 1 0
1 0 1 0 1
1 0 1 0 0
1 1 0 0 1
"""
# Mean of all but the missing -1: (8 · 10 + 11 · 0) / 19, so that the tens are above it
CONTINUOUS = BINARY.replace("1", "10.00").replace("0 0", "0 -1", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in (("classes.txt", ANIMALS), ("predicates.txt", ATTRIBUTES)):
        (tmp_path / name).write_text("".join(f"{i:>10}\t{row}\n" for i, row in enumerate(rows, start=1)))
    (tmp_path / "predicate-matrix-binary.txt").write_text(BINARY)
    return tmp_path


def test_overlap_by_hand(folder: Path) -> None:
    animals = AnimalAttributes.read(folder)
    assert animals.animals == ("antelope", "polar bear", "seal", "giant panda")
    assert animals.has.sum() == 9
    assert animals.overlap("polar bear", "seal") == 2 / 3  # white, swims; and paws
    assert animals.overlap("polar bear", "giant panda") == 2 / 4  # white, paws; and black, swims
    assert animals.overlap("seal", "giant panda") == 1 / 4  # white; and swims, black, paws
    assert animals.overlap("antelope", "seal") == 0
    assert animals.chance("seal") == pytest.approx((0 + 2 / 3 + 1 / 4) / 3)
    for a in animals.animals:
        assert animals.overlap(a, a) == 1
        for b in animals.animals:
            assert animals.overlap(a, b) == animals.overlap(b, a)


def test_the_continuous_table_gives_the_binary_one(folder: Path) -> None:
    binary = AnimalAttributes.read(folder)
    (folder / "predicate-matrix-binary.txt").unlink()
    (folder / "predicate-matrix-continuous.txt").write_text(CONTINUOUS)
    np.testing.assert_array_equal(AnimalAttributes.read(folder).has, binary.has)


def test_overlap_in_error_by_hand(folder: Path) -> None:
    animals = AnimalAttributes.read(folder)
    told = ["Two seals.", "A polar bear and a panda", "a seal", "an antelope and a seal", "a seal", "a dog"]
    references = [["a polar bear"], ["A polar bear."], ["a seal"], ["a panda", "a polar bear"], ["a dog"], ["a seal"]]
    nouns = count(animals.lexicon({"panda": "giant panda"}), told, references)["nouns"]
    overlap, chance = overlap_in_error(animals, nouns)
    # In error: seal for polar bear; panda; none; antelope and seal (nearest: the polar bear); no true animal; no animal
    np.testing.assert_allclose(overlap, [2 / 3, 1 / 2, np.nan, (0 + 2 / 3) / 2, np.nan, np.nan])
    # Any wrong animal for the polar bear: antelope 0, seal 2/3, panda 1/2; for it and the panda: antelope 0, seal 2/3
    np.testing.assert_allclose(chance, [7 / 18, 7 / 18, np.nan, 1 / 3, np.nan, np.nan])


def test_names_that_it_does_not_know(folder: Path) -> None:
    animals = AnimalAttributes.read(folder)
    with pytest.raises(InputError, match="'dog' is not among the 4 animals"):
        animals.overlap("seal", "dog")
    with pytest.raises(InputError, match="'lion' is not among the 4 animals"):
        animals.lexicon({"cub": "lion"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", "1 seal\n3 dog\n", "line 2: expected `2 name`, found '3 dog'"),
        ("classes.txt", "1 seal\n2 seal\n", "no name in it, or one twice"),
        ("predicates.txt", "", "no name in it, or one twice"),
        ("predicate-matrix-binary.txt", "1 0\n0 1\n", r"\(2, 2\) numbers, expected \(4, 5\)"),
        ("predicate-matrix-binary.txt", "1 0\n0\n", "not a table of numbers"),
        ("predicate-matrix-binary.txt", "yes no\n", "not a table of numbers"),
    ],
)
def test_files_that_do_not_fit(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"{folder / name}.*{message}"):
        AnimalAttributes.read(folder)


def test_a_folder_without_the_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}/classes.txt: cannot be read; give the folder of Animals with"):
        AnimalAttributes.read(tmp_path)
