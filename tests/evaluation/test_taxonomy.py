"""Wu-Palmer similarity by hand, in a tree and in a tiny WordNet that nltk reads as it reads the real one."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import nltk.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.emoji_world import taxonomy as recipe
from experiments.emoji_world.world import CATEGORY_OF, NOUNS
from limber_interp.errors import InputError
from limber_interp.evaluation.taxonomy import EMBEDDED, Taxonomy, ways
from limber_interp.resources import resolve

# "dog" is an animal and, as an andiron, a device; "men" are a word of their own, as in WordNet
SYNSETS = {
    "entity": (["entity"], None, "noun.Tops"),
    "animal": (["animal"], "entity", "noun.animal"),
    "device": (["device"], "entity", "noun.artifact"),
    "dog": (["dog"], "animal", "noun.animal"),
    "cat": (["cat"], "animal", "noun.animal"),
    "bear": (["polar_bear"], "animal", "noun.animal"),
    "man": (["man"], "animal", "noun.animal"),
    "andiron": (["andiron", "dog"], "device", "noun.artifact"),
    "car": (["car"], "device", "noun.artifact"),
    "force": (["men", "work_force"], "entity", "noun.Tops"),
}
LEXNAMES = ["noun.Tops", "noun.animal", "noun.artifact"]


def write_wordnet(folder: Path) -> None:
    """The format of WordNet's files, wndb(5WN): an offset is the place of a synset's line in bytes."""
    folder.mkdir(parents=True)
    for part, name in itertools.product(("index", "data"), ("noun", "verb", "adj", "adv")):
        (folder / f"{part}.{name}").touch()
    for name in ("noun.exc", "verb.exc", "adj.exc", "adv.exc", "index.sense", "cntlist.rev"):
        (folder / name).touch()
    (folder / "noun.exc").write_text("mice mouse\n")
    (folder / "lexnames").write_text("".join(f"{i:02d}\t{name}\t1\n" for i, name in enumerate(LEXNAMES)))

    def lines(offsets: dict[str, int]) -> list[str]:
        found = []
        for name, (words, above, lexname) in SYNSETS.items():
            held = " ".join(f"{word} 0" for word in words)
            pointers = "000" if above is None else f"001 @ {offsets[above]:08d} n 0000"
            number = LEXNAMES.index(lexname)
            found.append(f"{offsets[name]:08d} {number:02d} n {len(words):02x} {held} {pointers} | {name}\n")
        return found

    lengths = [len(line) for line in lines(dict.fromkeys(SYNSETS, 0))]
    offsets = dict(zip(SYNSETS, itertools.accumulate(lengths, initial=0), strict=False))
    (folder / "data.noun").write_text("".join(lines(offsets)))
    senses: dict[str, list[str]] = {}
    for name, (words, _, _) in SYNSETS.items():
        for word in words:
            senses.setdefault(word, []).append(f"{offsets[name]:08d}")
    (folder / "index.noun").write_text(
        "".join(f"{word} n {len(at)} 1 @ {len(at)} 0 {' '.join(at)}\n" for word, at in sorted(senses.items()))
    )


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taxonomy]:
    folder = tmp_path_factory.mktemp("nltk_data")
    write_wordnet(folder / "corpora" / "wordnet")
    before = list(nltk.data.path)
    yield Taxonomy.wordnet(folder)
    nltk.data.path[:] = before


def test_wu_palmer_of_a_tree_by_hand() -> None:
    tree = Taxonomy.of_tree({"living": {"animal": ["dog", "cat"], "bird": ["owl"]}, "made": ["car"]})
    # Depths: root 1, living and made 2, animal and bird 3, dog, cat and owl 4, car 3
    assert tree.wu_palmer("dog", "cat") == 2 * 3 / (4 + 4)
    assert tree.wu_palmer("dog", "owl") == 2 * 2 / (4 + 4)
    assert tree.wu_palmer("dog", "car") == 2 * 1 / (4 + 3)
    assert tree.category("dog") == "animal"
    assert tree.category("car") == "made"
    assert "dog" in tree
    assert "animal" not in tree


@pytest.mark.parametrize(
    ("word", "lemma"),
    [("dogs", "dog"), ("dog", "dog"), ("boxes", "box"), ("cherries", "cherry"), ("scarves", "scarf"), ("bus", "bus"),
     ("polar bears", "polar bear"), ("mice", "mice"), ("glasses", "glasses")],
)  # fmt: skip
def test_lemma_of_a_tree(word: str, lemma: str) -> None:
    tree = Taxonomy.of_tree({"all": ["dog", "box", "cherry", "scarf", "polar bear", "glasses", "glass"]})
    assert tree.lemma(word) == lemma


names = st.text("abcdef", min_size=1, max_size=3)
trees = st.dictionaries(
    names,
    st.recursive(st.integers(1, 3), lambda below: st.dictionaries(names, below, min_size=1, max_size=2), max_leaves=4),
    min_size=1,
    max_size=3,
)


def with_nouns(counts: dict, numbers: Iterator[int]) -> dict:
    """Lists of nouns, all of them different, in the place of the numbers of nouns."""
    return {
        name: with_nouns(below, numbers) if isinstance(below, dict) else [f"n{next(numbers)}" for _ in range(below)]
        for name, below in counts.items()
    }


@settings(deadline=None)
@given(trees)
def test_wu_palmer_is_a_similarity_in_every_tree(counts: dict) -> None:
    tree = with_nouns(counts, itertools.count())
    taxonomy = Taxonomy.of_tree(tree)
    depth_of = {way[-1]: len(way) for way in ways(tree)}
    for a, b in itertools.product(depth_of, repeat=2):
        similarity = taxonomy.wu_palmer(a, b)
        assert similarity == taxonomy.wu_palmer(b, a)
        assert 0 < similarity <= 1
        assert (similarity == 1) == (a == b)
        assert similarity <= 2 * min(depth_of[a], depth_of[b]) / (depth_of[a] + depth_of[b] + 2) or a == b


def test_a_noun_in_two_groups_is_refused() -> None:
    with pytest.raises(InputError, match="'orange' is in two groups, food/fruit/orange and colour/orange"):
        Taxonomy.of_tree({"food": {"fruit": ["orange"]}, "colour": ["orange"]})


@pytest.mark.parametrize("tree", [{}, {"animal": "dog"}, {"animal": [""]}, {"animal": {}}])
def test_a_tree_without_groups_of_nouns_is_refused(tree: dict) -> None:
    with pytest.raises(InputError, match="taxonomy: it must be names of groups with lists of words or with groups"):
        Taxonomy.of_tree(tree)


def test_an_unknown_noun_is_refused(wordnet: Taxonomy) -> None:
    with pytest.raises(InputError, match="taxonomy: 'unicorn' is not in it; it has 1 nouns"):
        Taxonomy.of_tree({"animal": ["dog"]}).wu_palmer("dog", "unicorn")
    with pytest.raises(InputError, match="WordNet: it has no noun 'unicorn'"):
        wordnet.wu_palmer("unicorn", "dog")
    assert "unicorn" not in wordnet


def test_the_embedded_taxonomy_is_the_emoji_worlds() -> None:
    assert json.loads(resolve(EMBEDDED).read_text()) == recipe.words()
    taxonomy = Taxonomy.read()
    assert {noun: taxonomy.category(noun) for noun in NOUNS} == CATEGORY_OF
    found = [taxonomy.wu_palmer(a, b) for a, b in itertools.combinations(NOUNS, 2)]
    # 10 categories of 10: 45 pairs in each; of 4, 2 and 4 categories in a group: 6 + 1 + 6 pairs of categories
    assert {value: found.count(value) for value in found} == {0.75: 10 * 45, 0.5: 13 * 100, 0.25: (45 - 13) * 100}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no groups of words under 'nouns': JSONDecodeError"),
        ("{}", "no groups of words under 'nouns': KeyError"),
        ('{"nouns": ["dog"]}', "'nouns' must be names of groups with lists of words or with groups"),
        ('{"nouns": {"animal": ["dog", 3]}}', "'nouns' must be names of groups"),
    ],
)
def test_a_file_that_is_no_taxonomy(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "taxonomy.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"{path}: {message}"):
        Taxonomy.read(path)


def test_wu_palmer_of_wordnet_by_hand(wordnet: Taxonomy) -> None:
    # Depths: entity 1, animal and device 2, the rest 3
    assert wordnet.wu_palmer("cat", "car") == pytest.approx(2 * 1 / (3 + 3))
    assert wordnet.wu_palmer("dog", "cat") == pytest.approx(2 * 2 / (3 + 3))
    assert wordnet.wu_palmer("dog", "car") == pytest.approx(2 * 2 / (3 + 3))  # as an andiron: the nearest senses count
    assert wordnet.wu_palmer("polar bear", "animal") == pytest.approx(2 * 2 / (3 + 2))
    nouns = [word.replace("_", " ") for words, _, _ in SYNSETS.values() for word in words]
    for a, b in itertools.product(nouns, repeat=2):
        assert wordnet.wu_palmer(a, b) == wordnet.wu_palmer(b, a)
        assert 0 < wordnet.wu_palmer(a, b) <= 1
        assert wordnet.wu_palmer(a, a) == 1


def test_lemmas_and_categories_of_wordnet(wordnet: Taxonomy) -> None:
    assert [wordnet.lemma(word) for word in ("dogs", "polar bears", "men", "cat", "unicorns")] == [
        "dog", "polar bear", "man", "cat", "unicorns"
    ]  # fmt: skip
    assert wordnet.category("dog") == "animal"  # of the first sense
    assert wordnet.category("car") == "artifact"


def test_wordnet_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"WordNet: {tmp_path}/corpora/wordnet is not there; put nltk's `wordnet`"):
        Taxonomy.wordnet(tmp_path)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(InputError, match="is not there; run `python -m nltk.downloader wordnet`"):
        Taxonomy.wordnet()


def test_wordnet_without_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.delitem(sys.modules, "nltk.data")
    with pytest.raises(InputError, match="WordNet needs nltk, which is not installed"):
        Taxonomy.wordnet()
