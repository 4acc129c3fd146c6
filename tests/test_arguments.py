from pathlib import Path

import numpy as np
import pytest
import torch

from limber_interp.arguments import integers, several
from limber_interp.errors import InputError


def test_a_string_is_one_thing():
    assert several("dog") == ("dog",)
    assert several(["dog", "cat"]) == several(iter(["dog", "cat"])) == ("dog", "cat")
    assert several("") == ("",)
    assert several(()) == ()
    assert several(Path("a.png"), (str, Path)) == (Path("a.png"),)
    assert several([Path("a.png"), "b.png"], (str, Path)) == (Path("a.png"), "b.png")


@pytest.mark.parametrize(
    "given",
    [[3, -1], (3, -1), np.array([3, -1]), torch.tensor([3, -1]), [np.int64(3), torch.tensor(-1)], iter([3, -1])],
    ids=str,
)
def test_whole_numbers_in_whatever_they_come(given):
    found = integers(given, "layers")
    assert found == (3, -1)
    assert all(type(number) is int for number in found)


def test_one_whole_number():
    assert integers(3, "layers") == integers(np.int32(3), "layers") == integers(torch.tensor(3), "layers") == (3,)
    assert integers(np.array([], dtype=int), "layers") == integers([], "layers") == ()


@pytest.mark.parametrize(
    "given", ["12", 1.0, [1.5], True, np.array([True, False]), [[1, 2]], None, np.zeros(2)], ids=str
)
def test_what_is_no_whole_number(given):
    """A mask was read as places 1 and 0."""
    with pytest.raises(InputError, match=r"layers: found .*, expected a whole number"):
        integers(given, "layers")
