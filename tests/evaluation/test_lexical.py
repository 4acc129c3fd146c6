"""Recall, precision and similarity of told words, by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from limber_interp.errors import InputError
from limber_interp.evaluation.lexical import Counts, by_category, count, per_image, similarity
from limber_interp.evaluation.lexicon import Lexicon
from limber_interp.evaluation.taxonomy import Taxonomy

NAN = np.nan
REFERENCES = [
    ["A big dog left of a small cat on the grass.", "A small cat right of a big dog on the grass."],
    ["A picture of a small owl in the snow."],
    ["A picture of a big car on the sand."],
    ["Nothing of all this."],
]  # fmt: skip
TOLD = [
    "A picture of a big dog above a big owl on the grass.",  # dog right, cat not told, owl wrong
    "A picture of a small dog in the night.",  # dog wrong
    "no word at all",
    "A picture of a big car.",
]


@pytest.fixture(scope="module")
def counts() -> dict[str, Counts]:
    return count(Lexicon.read(), TOLD, REFERENCES)


def shown(counts: Counts, of: str) -> list[set[str]]:
    return [{word for word, marked in zip(counts.words, row, strict=True) if marked} for row in getattr(counts, of)]


def test_what_is_true_and_what_is_told(counts: dict[str, Counts]) -> None:
    assert shown(counts["nouns"], "true") == [{"dog", "cat"}, {"owl"}, {"car"}, set()]
    assert shown(counts["nouns"], "told") == [{"dog", "owl"}, {"dog"}, set(), {"car"}]
    assert shown(counts["modifiers"], "true") == [{"big", "small", "grass"}, {"small", "snow"}, {"big", "sand"}, set()]
    assert shown(counts["modifiers"], "told") == [{"big", "grass"}, {"small", "night"}, set(), {"big"}]
    assert shown(counts["relations"], "true") == [{"left of", "right of"}, set(), set(), set()]
    assert shown(counts["relations"], "told") == [{"above"}, set(), set(), set()]


def test_recall_and_precision_by_hand(counts: dict[str, Counts]) -> None:
    nouns, modifiers = counts["nouns"], counts["modifiers"]
    np.testing.assert_array_equal(nouns.recall, [1 / 2, 0, 0, NAN])
    np.testing.assert_array_equal(nouns.precision, [1 / 2, 0, NAN, 0])
    np.testing.assert_array_equal(modifiers.recall, [2 / 3, 1 / 2, 0, NAN])
    np.testing.assert_array_equal(modifiers.precision, [1, 1 / 2, NAN, 0])
    assert nouns.micro_recall == 1 / 4  # of dog, cat, owl, car
    assert nouns.micro_precision == 1 / 4  # of dog, owl, dog, car
    assert modifiers.micro_recall == 3 / 7
    assert modifiers.micro_precision == 3 / 5


def test_by_word_and_by_category(counts: dict[str, Counts]) -> None:
    animals = counts["nouns"].by_category()["animal"]
    np.testing.assert_array_equal(animals.recall, [1 / 2, NAN, NAN, NAN])
    np.testing.assert_array_equal(animals.precision, [1, 0, NAN, NAN])
    assert len(counts["nouns"].by_category()) == 10
    dog = counts["nouns"].by_word()["dog"]
    assert (dog.micro_recall, dog.micro_precision) == (1, 1 / 2)
    assert np.isnan(counts["nouns"].by_word()["whale"].micro_recall)


def test_categories_in_the_place_of_words() -> None:
    coarse = count(Lexicon.read().coarse(), TOLD, REFERENCES)
    np.testing.assert_array_equal(coarse["nouns"].recall, [1, 0, 0, NAN])  # an animal; the owl's bird is none
    np.testing.assert_array_equal(coarse["nouns"].precision, [1 / 2, 0, NAN, 0])
    np.testing.assert_array_equal(coarse["relations"].recall, [0, NAN, NAN, NAN])
    beside = count(Lexicon.read().coarse(), ["a dog left of a cat"] * 4, REFERENCES)
    assert beside["relations"].recall[0] == 1  # where word by word it is 1/2: both directions are in the references


def test_the_most_frequent_words_of_the_references() -> None:
    references = [["dog"], ["dog and cat"], ["cat and owl"], ["fox"]]
    nouns = count(Lexicon.read(), ["owl, dog"] * 4, references)["nouns"]
    assert nouns.most_frequent(1).words == ("cat",)  # as often as dog, and before it
    kept = nouns.most_frequent(2)
    assert kept.words == ("cat", "dog")
    np.testing.assert_array_equal(kept.recall, [1, 1 / 2, 0, NAN])
    np.testing.assert_array_equal(kept.precision, [1, 1, 0, 0])  # "owl" is out: told in error, and not counted
    assert nouns.most_frequent(1000).words == nouns.words


def test_similarity_by_hand(counts: dict[str, Counts]) -> None:
    nouns, taxonomy = counts["nouns"], Taxonomy.read()
    # 0.75 within a category (dog, cat), 0.5 among living things (dog, owl), 0.25 otherwise
    true = similarity(nouns, taxonomy, "true")
    np.testing.assert_array_equal(per_image(true), [(1 + 0.75) / 2, 0.5, 0, NAN])  # dog, cat → dog; owl → dog; nothing
    told = similarity(nouns, taxonomy, "told")
    np.testing.assert_array_equal(per_image(told), [(1 + 0.5) / 2, 0.5, NAN, NAN])  # dog, owl → dog or cat; dog → owl
    wrong = similarity(nouns, taxonomy, "wrong")
    np.testing.assert_array_equal(per_image(wrong), [0.5, 0.5, NAN, NAN])
    np.testing.assert_array_equal(by_category(true, nouns)["animal"], [(1 + 0.75) / 2, NAN, NAN, NAN])
    np.testing.assert_array_equal(by_category(told, nouns)["bird"], [0.5, NAN, NAN, NAN])
    np.testing.assert_array_equal(by_category(true, nouns)["toy"], [NAN] * 4)


def test_similarity_of_a_noun_that_the_taxonomy_lacks(counts: dict[str, Counts]) -> None:
    with pytest.raises(InputError, match="taxonomy: 'cat' is not in it; it has 1 nouns"):
        similarity(counts["nouns"], Taxonomy.of_tree({"animal": ["fox"]}))


def test_another_images_references_are_the_control(counts: dict[str, Counts]) -> None:
    nouns = counts["nouns"]
    shuffled = nouns.shuffled(seed=3)
    np.testing.assert_array_equal(shuffled.told, nouns.told)
    assert sorted(map(sorted, shown(shuffled, "true"))) == sorted(map(sorted, shown(nouns, "true")))
    assert all(ours != theirs for ours, theirs in zip(shown(nouns, "true"), shown(shuffled, "true"), strict=True))
    np.testing.assert_array_equal(shuffled.true, nouns.shuffled(seed=3).true)
    assert len({nouns.shuffled(seed).true.tobytes() for seed in range(20)}) > 1
    with pytest.raises(InputError, match="there is no other image"):
        count(Lexicon.read(), ["dog"], [["dog"]])["nouns"].shuffled(0)


def test_captions_and_references_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="1 captions, but references for 2 images"):
        count(Lexicon.read(), ["dog"], [["dog"], ["cat"]])
    with pytest.raises(InputError, match="image 1: no reference"):
        count(Lexicon.read(), ["dog", "cat"], [["dog"], []])


NOUNS = ("apple", "car", "cat", "dog", "owl")
marks = arrays.arrays(bool, st.tuples(st.integers(2, 6), st.just(len(NOUNS))))


@settings(deadline=None)
@given(st.data())
def test_what_holds_for_all_counts(data: st.DataObject) -> None:
    true = data.draw(marks)
    told = data.draw(arrays.arrays(bool, true.shape))
    taxonomy = Taxonomy.read()
    nouns = Counts(NOUNS, tuple(map(taxonomy.category, NOUNS)), true, told)
    mirrored = Counts(nouns.words, nouns.categories, told, true)
    np.testing.assert_array_equal(nouns.recall, mirrored.precision)
    values = {of: similarity(nouns, taxonomy, of) for of in ("true", "told", "wrong")}
    for of in values.values():
        assert ((of[~np.isnan(of)] >= 0) & (of[~np.isnan(of)] <= 1)).all()
    # Similarity counts a right noun as recall and precision do, and a wrong one for at least as much
    graded = per_image(values["true"])
    there = ~np.isnan(nouns.recall)
    assert (np.isnan(graded) == ~there).all()
    assert (graded[there] >= nouns.recall[there] - 1e-12).all()
    right = true & told
    assert (values["true"][right] == 1).all()
    assert (values["told"][right] == 1).all()
    assert np.isnan(values["wrong"][right]).all()
    # All categories' words together are all words
    parts = nouns.by_category().values()
    assert sum(part.true.sum() for part in parts) == true.sum()
