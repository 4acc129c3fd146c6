import contextlib
import io
from collections import Counter
from math import e, exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from limber_interp.errors import InputError
from limber_interp.evaluation.metrics.text import caption_metrics
from limber_interp.evaluation.metrics.tokenizing import java_runs

needs_java = pytest.mark.skipif(not java_runs(), reason="Java is not installed")

TOLD = [
    "A man's dog isn't on the grass.",
    "Two black-and-white cats, sitting on a bed",
    "a red bus (number 10) on the street",
    "a red bus on the street",
    "The clock says 10:30 p.m.",
    "",
]
REFERENCES = [
    ["The man's dog is on the grass.", "A brown dog -- not a cat -- lies on green grass!", "dog on grass"],
    ["Two black-and-white cats are on the bed.", "Two cats sit on a bed, looking at the camera."],
    ["A red double-decker bus on a street in the U.S.", "The red bus (number 10) drives down the street."],
    ["A train at a station", "A red train is leaving the station on time.", "The train's doors are open"],
    ["A clock on a wall", "An old-fashioned clock, which says 10:30 p.m.", "It's half past ten."],
    ["A bowl of fruit: apples, pears & grapes."],
]
# By pycocoevalcap 1.2: its `PTBTokenizer` (Java), then its `Cider`
CIDER_D = [2.4027002447762182, 2.7431795316693863, 3.566472255119935, 0.16094261095652973, 1.4094851720915789, 0.0]


@pytest.mark.parametrize("tokenizer", ["python", pytest.param("ptb", marks=needs_java)])
def test_cider_d_is_the_reference_implementations(tokenizer):
    found = caption_metrics(TOLD, REFERENCES, tokenizer)
    np.testing.assert_allclose(found.values["cider_d"], CIDER_D, atol=1e-6)
    assert found.tokenizer == tokenizer


@needs_java
def test_the_reference_implementation_still_gives_these_numbers():
    tokenizer = PTBTokenizer()
    references = {i: [{"caption": text} for text in texts] for i, texts in enumerate(REFERENCES)}
    told = {i: [{"caption": text}] for i, text in enumerate(TOLD)}
    _, expected = Cider().compute_score(tokenizer.tokenize(references), tokenizer.tokenize(told))
    np.testing.assert_allclose(expected, CIDER_D, atol=1e-12)


def test_cider_d_by_hand():
    """Two images, so that an n-gram of one of them weighs ln 2 and one of both (`a`) nothing; ln 2 cancels out."""
    found = caption_metrics(["a red red red", "a blue cat"], [["a red dog"], ["a blue cat"]], "python")
    # 1-grams: red 3 times, clipped to 1, against red and dog.  2-grams: `a red` of {a red, 2 x red red} against
    # {a red, red dog}.  3-grams: none in common.  4-grams: the reference has none. One word longer: exp(-1² / 2·6²)
    one, two, three, four = 1 * 1 / (3 * sqrt(2)), 1 * 1 / (sqrt(1 + 2**2) * sqrt(2)), 0, 0
    first = 10 * (one + two + three + four) / 4 * exp(-1 / 72)
    # The same words: 1 for n = 1, 2, 3; without 4-grams 0, so that three words can reach 7.5 at most
    second = 10 * (1 + 1 + 1 + 0) / 4
    np.testing.assert_allclose(found.values["cider_d"], [first, second], atol=1e-12)


def test_the_length_penalty_of_cider_d():
    """The reference's n-grams and three words more: cosine by norms, times exp(-3² / 2·6²)."""
    found = caption_metrics(["dog x y z", "cat"], [["dog"], ["cat"]], "python")
    assert found.values["cider_d"][0] == pytest.approx(10 / 4 * (1 / sqrt(4)) * exp(-9 / 72), abs=1e-12)


def test_cider_d_depends_on_the_other_images():
    told, references = ["a red dog", "a blue cat"], [["a red dog on sand"], ["a blue cat on grass"]]
    two = caption_metrics(told, references, "python").values["cider_d"]
    three = caption_metrics([*told, "a red bus"], [*references, ["a red bus"]], "python").values["cider_d"]
    assert abs(three[0] - two[0]) > 0.1, "red is less rare"


def test_bleu_4_by_hand():
    told = ["the cat sat on the mat", "the cat sat on"]
    found = caption_metrics(told, [["the cat sat on a mat"], ["the cat sat on a mat"]], "python")
    # `the` counts once of two. The second has all n-grams right, and 4 words against 6
    single = [(5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4), exp(1 - 6 / 4)]
    np.testing.assert_allclose(found.values["bleu_4"], single, rtol=1e-6)
    corpus = (9 / 10 * 6 / 8 * 4 / 6 * 2 / 4) ** (1 / 4) * exp(1 - 12 / 10)
    assert found.corpus_bleu_4 == pytest.approx(corpus, rel=1e-6)
    assert abs(corpus - np.mean(single)) > 1e-3, "the corpus' is not the mean"


def test_rouge_l_by_hand():
    """Common subsequences: `a dog` of 2 words told and 4 of the reference; of the second image `the dog`, 2 of 3."""
    found = caption_metrics(["a dog", "the dog sat"], [["a big brown dog", "it"], ["the big dog"]], "python")
    f = (1 + 1.2**2) * 1 * 0.5 / (0.5 + 1.2**2 * 1)
    np.testing.assert_allclose(found.values["rouge_l"], [f, 2 / 3], rtol=1e-12)


def test_an_empty_caption_is_worth_nothing():
    """It had a ROUGE-L of 1 beside a reference without a word."""
    references = [["a dog", "..."], ["a cat", ""]]
    found = caption_metrics(["", "!"], references, "python")
    for name, values in found.values.items():
        assert values == pytest.approx([0, 0], abs=1e-6), name
    with_words = caption_metrics(["a dog", "a cat"], references, "python")
    without = caption_metrics(["a dog", "a cat"], [["a dog"], ["a cat"]], "python")
    for name, values in with_words.values.items():
        np.testing.assert_array_equal(values, without.values[name])


CAPTION = st.lists(st.sampled_from(["a", "red", "dog", "cat", "on", "the", "grass"]), max_size=6).map(" ".join)


@given(st.lists(st.tuples(CAPTION, st.lists(CAPTION.filter(bool), min_size=1, max_size=3)), min_size=2, max_size=5))
def test_cider_d_is_the_formula(pairs):
    """Written a second time, as the paper has it: vectors over all n-grams."""
    told, references = zip(*pairs, strict=True)
    found = caption_metrics(told, references, "python").values["cider_d"]
    np.testing.assert_allclose(found, [_cider_d(t, r, references) for t, r in pairs], atol=1e-9)
    assert found.dtype == np.float64
    assert (found >= 0).all()
    assert (found <= 10 + 1e-9).all()


def _cider_d(told: str, references: list[str], all_references: tuple[list[str], ...]) -> float:
    def counts(text: str, n: int) -> Counter:
        words = text.split()
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    total = 0.0
    for n in (1, 2, 3, 4):
        for reference in references:
            found, true = counts(told, n), counts(reference, n)
            images_with = {
                ngram: sum(any(counts(text, n)[ngram] for text in texts) for texts in all_references)
                for ngram in found | true
            }
            rarity = {ngram: log(len(all_references) / max(1, count)) for ngram, count in images_with.items()}
            norm = sqrt(sum((found[k] * rarity[k]) ** 2 for k in found) * sum((true[k] * rarity[k]) ** 2 for k in true))
            if norm:
                dot = sum(min(found[k], true[k]) * true[k] * rarity[k] ** 2 for k in found)
                # Lengths in 2-grams: an empty text is as long as one of one word
                difference = sum(counts(told, 2).values()) - sum(counts(reference, 2).values())
                total += dot / norm * e ** (-(difference**2) / (2 * 6**2))
    return 10 * total / 4 / len(references)


def test_nothing_is_printed():
    """The library prints its counts, and standard output carries a command's JSON alone."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        caption_metrics(["a dog", "a cat"], [["a dog"], ["a cat"]], "python")
    assert printed.getvalue() == ""


@pytest.mark.parametrize(
    ("told", "references", "message"),
    [
        ([], [], "caption metrics of 0 images: give two or more"),
        (["a dog"], [["a dog"]], "of 1 images: give two or more, as CIDEr-D"),
        (["a dog", "a cat"], [["a dog"]], "2 captions and references of 1 images"),
        (["a dog", "a cat"], [["a dog"], []], "image 1: no references; give one or more"),
        (["a dog", "a cat"], [["a dog"], ["...", ""]], r"image 1: no word in its references \['...', ''\]"),
        (["a dog", "a cat"], ["a dog", "a cat"], "image 0: found one text 'a dog', expected a list"),
    ],
)
def test_bad_input(told, references, message):
    with pytest.raises(InputError, match=message):
        caption_metrics(told, references, "python")
