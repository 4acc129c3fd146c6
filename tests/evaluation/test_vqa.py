"""VQA's accuracy against its definition, and its rules of comparing one by one."""

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.errors import InputError
from limber_interp.evaluation.vqa import CONTRACTIONS, normalise_answer, vqa_accuracy


@pytest.mark.parametrize(
    ("n_agree", "expected"),
    [
        (0, 0.0),
        (1, 0.3),  # left out once: 0; nine times 1/3 → 9 × 1/3 / 10
        (2, 0.6),  # 2 × 1/3 + 8 × 2/3 = 6 → / 10
        (3, 0.9),  # 3 × 2/3 + 7 × 1 = 9 → / 10
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_accuracy_by_hand(n_agree: int, expected: float) -> None:
    answers = ["red"] * n_agree + [f"blue {i}" for i in range(10 - n_agree)]
    assert vqa_accuracy("Red.", answers) == pytest.approx(expected)


@given(st.lists(st.sampled_from(["red", "blue", "green"]), min_size=4, max_size=12), st.sampled_from(["red", "blue"]))
def test_accuracy_is_the_mean_over_all_but_one_of_the_people(answers: list[str], answer: str) -> None:
    """The definition, written out: every subset of all people but one, and how many of it agree."""
    subsets = list(combinations(answers, len(answers) - 1))
    by_definition = sum(min(Fraction(subset.count(answer), 3), Fraction(1)) for subset in subsets) / len(subsets)
    assert vqa_accuracy(answer, answers) == pytest.approx(float(by_definition))


@given(st.permutations(["red", "red", "dark red", "brown", "red", "maroon", "2", "two", "yes", "no"]))
def test_nobodys_place_matters(answers: list[str]) -> None:
    assert vqa_accuracy("red", answers) == pytest.approx(0.9)
    assert vqa_accuracy("two", answers) == pytest.approx(0.6)


def test_few_answers_are_alternatives() -> None:
    assert vqa_accuracy("The dog", ["a dog"]) == 1
    assert vqa_accuracy("a dog", ["a hound", "a dog"]) == 1
    assert vqa_accuracy("a big dog", ["a dog"]) == 0
    assert vqa_accuracy("", ["a dog"]) == 0


@pytest.mark.parametrize("answer", ["", "the", "a", "?", " An... "])
@pytest.mark.parametrize("people", [["a"] * 10, ["?"] * 4 + ["the"] * 6, ["the"], ["", "?"]])
def test_nothing_said_is_never_right(answer: str, people: list[str]) -> None:
    """Nothing is left of `a` and `?`, and an empty answer was then right beside them. In the code published with VQA
    it is 0 too: there `a` stays `a` among what people said, and no answer is ever `a` once it is normalised."""
    assert vqa_accuracy(answer, people) == 0


def test_both_sides_are_normalised() -> None:
    """In the code published with VQA these are 0: what people said keeps its numbers and articles."""
    assert vqa_accuracy("2", ["two"] * 10) == vqa_accuracy("two", ["two"] * 10) == 1
    assert vqa_accuracy("a dog", ["a dog"] * 10) == 1
    assert vqa_accuracy("two", ["2"] * 10) == 1  # there as well: the answer is always normalised


def test_nothing_to_compare_with() -> None:
    with pytest.raises(InputError, match="no answers to compare with"):
        vqa_accuracy("red", [])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A Dog", "dog"),
        ("the  red\nbus", "red bus"),
        ("two", "2"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldn'tve", "couldn't've"),
        ("hell", "hell"),
        ("yes.", "yes"),
        ("3.5", "3.5"),
        ("St. Paul", "st paul"),
        ("red,blue", "red blue"),  # between letters a mark is a space
        ("red, blue", "red blue"),  # beside a space it is nothing
        ("red/blue, black", "red blue black"),  # each mark by itself
        ("t-shirt", "t shirt"),
        ("t-shirt -", "tshirt"),  # beside a space somewhere: nothing everywhere
        ("1,000", "1000"),
        ("1,000/day", "1000day"),  # a number with commas: nothing, whatever the mark
        ('"stop!"', "stop"),
        ("?", ""),
        ("pin\u0303ata", "piñata"),  # a letter and a tilde to be set over it
        ("Don’t", "don't"),
        ("black‑white", "black white"),
    ],
)
def test_how_answers_are_compared(answer: str, expected: str) -> None:
    assert normalise_answer(answer) == expected


@given(st.text(alphabet="ab 1,.-/'TheAN", max_size=20))
def test_case_and_space_do_not_matter(answer: str) -> None:
    assert normalise_answer(answer) == normalise_answer(f" {answer.upper()}\n")


def test_contractions_lack_one_apostrophe() -> None:
    assert CONTRACTIONS["arent"] == "aren't"
    assert {key for key, word in CONTRACTIONS.items() if word == "y'all'd've"} == {
        "yall'd've",
        "y'alld've",
        "y'all'dve",
    }
    assert not {"hell", "shell", "its", "well", "ill", "were", "wed", "shed"} & CONTRACTIONS.keys()
