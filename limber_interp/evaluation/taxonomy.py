"""Which noun is near which: how much of their way down from the root of a taxonomy two words share."""

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from limber_interp.errors import InputError, reading
from limber_interp.evaluation.spelling import spelt, without_accents
from limber_interp.extras import not_installed
from limber_interp.resources import resolve

EMBEDDED = "limber_weights/emoji/taxonomy.json"  # of the embedded suite: see `Taxonomy.read`, `Lexicon.read`
T = TypeVar("T")
Tree = Mapping[str, Any]  # names of groups, nested, and at the end of each way a list of nouns


class Taxonomy(ABC):
    """Nouns in a hierarchy: the embedded suite's (`read`), any tree (`of_tree`), or WordNet's (`wordnet`)."""

    @abstractmethod
    def __contains__(self, noun: object) -> bool:
        """Whether the noun, in its base form, is in it."""

    @abstractmethod
    def lemma(self, word: str) -> str:
        """The base form of a word if it is a known noun, otherwise the word itself."""

    @abstractmethod
    def category(self, noun: str) -> str:
        """The category of a noun.

        Raises:
            InputError: the noun is not in it.
        """

    @abstractmethod
    def wu_palmer(self, a: str, b: str) -> float:
        """Wu-Palmer similarity of two nouns, in (0, 1]; 1 for a noun and itself; symmetric.

        2 · depth(c) / (depth(a) + depth(b)), where c is the deepest node above both and the root's depth is 1
        (Wu & Palmer 1994, section 4). It misleads where branches differ in how finely they were divided: two birds are
        nearer than two tools just because more levels were put above birds; compare with other images' captions.

        Raises:
            InputError: a noun is not in it.
        """

    @staticmethod
    def of_tree(tree: Tree) -> "Taxonomy":
        """The taxonomy of nested groups, `{"living": {"animal": ["dog", …]}}`: a noun's category is the last group.

        Raises:
            InputError: a noun is in two groups, or these are no groups of nouns.
        """
        return _Tree(tree)

    @staticmethod
    def read(path: str | Path = EMBEDDED) -> "Taxonomy":
        """The tree under the key `nouns` of a JSON file, that of the embedded suite if none is named.

        Raises:
            InputError: no such file, or no such tree in it.
        """
        return Taxonomy.of_tree(read_groups(path, "nouns"))

    @staticmethod
    def wordnet(path: str | Path | None = None) -> "Taxonomy":
        """WordNet's nouns, read by nltk; nothing is downloaded.

        A noun has many senses, and what a caption means by it is not known; and a sense can have several ways up to the
        root. `wu_palmer` is the highest over all pairs of senses and over all ways up: for every node c above both
        senses (a sense counts as above itself), the longest way from the root gives depth(c), and the shortest ways
        down from c give the depths of the two. In a tree this is the definition; it is the same in both directions,
        and 1 for two words of one sense. nltk's own `wup_similarity` is neither: it chooses c by another depth than it
        counts with, so that girl and woman have 0.67 or 0.95 by which is asked first (here 0.95), and dog and domestic
        dog, one sense, 0.93.
        Rare senses make words near, and the chance level is high: in WordNet 3.0 dog and car have 0.67, as a dog is an
        andiron too, dog and cat 0.86, and any two of the embedded suite's hundred nouns 0.53 on average (in its own
        tree 0.36).
        The category is the lexicographer's file of the first, most frequent sense (`animal`, `food`, `artifact`, …);
        the base form is `morphy`'s, but `men` is `man`: WordNet has men, a work force, as a word of its own. It has no
        accents: `cafés` are `cafe`.

        Args:
            path: a folder that holds `corpora/wordnet` or `corpora/wordnet.zip`, as nltk's data folders do, looked into
                before these; None: these alone.

        Raises:
            InputError: nltk or its data is not there.
        """
        return _WordNet(from_nltk(_wordnet_reader, "WordNet", "corpora/wordnet", path))


class _Tree(Taxonomy):
    def __init__(self, tree: Tree) -> None:
        check_groups(tree, "taxonomy: it")
        self._ways: dict[str, tuple[str, ...]] = {}
        for way in ways(tree):
            other = self._ways.setdefault(way[-1], way)
            if other != way:
                raise InputError(f"taxonomy: {way[-1]!r} is in two groups, {'/'.join(other)} and {'/'.join(way)}")

    def __contains__(self, noun: object) -> bool:
        return noun in self._ways

    def lemma(self, word: str) -> str:
        """The word or, by English's regular plurals, the first known singular of it."""
        return next((form for form in regular_forms(word) if form in self._ways), word)

    def category(self, noun: str) -> str:
        return self._way(noun)[-2]

    def wu_palmer(self, a: str, b: str) -> float:
        ways = self._way(a), self._way(b)
        common = 0
        while common < min(map(len, ways)) and ways[0][common] == ways[1][common]:
            common += 1
        return 2 * (common + 1) / (len(ways[0]) + len(ways[1]) + 2)  # + 1 each for the root

    def _way(self, noun: str) -> tuple[str, ...]:
        if noun not in self._ways:
            raise InputError(f"taxonomy: {noun!r} is not in it; it has {len(self._ways)} nouns")
        return self._ways[noun]


class _WordNet(Taxonomy):
    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._known: dict[tuple[str, ...], float] = {}  # a comparison takes milliseconds, and they recur
        self._above: dict[Any, dict[Any, int]] = {}

    def __contains__(self, noun: object) -> bool:
        return isinstance(noun, str) and bool(self._synsets(noun))

    def lemma(self, word: str) -> str:
        if word.endswith("men") and word[:-3] + "man" in self:
            return word[:-3] + "man"
        for spelling in (word, without_accents(word)):  # WordNet writes `cafe` and `pinata`
            if base := self._reader.morphy(spelling.replace(" ", "_"), "n"):
                return base.replace("_", " ")
        return word

    def category(self, noun: str) -> str:
        return self._senses(noun)[0].lexname().removeprefix("noun.")

    def wu_palmer(self, a: str, b: str) -> float:
        pair = tuple(sorted((a, b)))
        if pair not in self._known:
            senses = self._senses(pair[0]), self._senses(pair[1])
            self._known[pair] = max(self._similarity(one, other) for one in senses[0] for other in senses[1])
        return self._known[pair]

    def _similarity(self, one: Any, other: Any) -> float:
        steps = self._steps_up(one), self._steps_up(other)
        found = [
            2 * depth / (2 * depth + steps[0][node] + steps[1][node])
            for node in steps[0].keys() & steps[1].keys()
            for depth in (node.max_depth() + 1,)  # nltk counts the root as 0
        ]
        return max(found, default=0.0)  # nothing is above both in WordNet 1.6, which has no single root

    def _steps_up(self, sense: Any) -> dict[Any, int]:
        """The nodes above a sense, itself among them, and the fewest steps up to each."""
        if sense not in self._above:
            ascending = sorted(sense.hypernym_distances(), key=lambda found: -found[1])
            self._above[sense] = dict(ascending)  # of a node that is reached in several ways the nearest is the last
        return self._above[sense]

    def _synsets(self, noun: str) -> list[Any]:
        return self._reader.synsets(noun.replace(" ", "_"), "n")

    def _senses(self, noun: str) -> list[Any]:
        senses = self._synsets(noun)
        if not senses:
            raise InputError(f"WordNet: it has no noun {noun!r}")
        return senses


def regular_forms(word: str) -> Iterator[str]:
    """The word itself and what it could be the plural of, by English's regular endings."""
    yield word
    for plural, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f")):
        if word.endswith(plural):
            yield word.removesuffix(plural) + singular


def read_groups(path: str | Path, key: str) -> dict[str, Any]:
    """The nested groups of words under a key of a JSON file; words in lower case, whatever the file has.

    Raises:
        InputError: no such file, or other things than groups of words under the key.
    """
    found = resolve(path)
    with reading(found, f"no groups of words under {key!r}"):
        groups = json.loads(found.read_text(encoding="utf-8"))[key]
        check_groups(groups, f"{found}: {key!r}")
    return _spelt(groups)


def _spelt(groups: Any) -> Any:
    """The same groups, their words spelt as they are looked for: in lower case, accents in one piece."""
    if isinstance(groups, Mapping):
        return {name: _spelt(below) for name, below in groups.items()}
    return [spelt(word.lower()) for word in groups]


def check_groups(groups: object, what: str) -> None:
    """Check that these are groups of words.

    Raises:
        InputError: they are not.
    """

    def fit(group: object) -> bool:
        if isinstance(group, Mapping):
            return bool(group) and all(isinstance(name, str) and fit(below) for name, below in group.items())
        return isinstance(group, list | tuple) and all(isinstance(word, str) and word for word in group)

    if not isinstance(groups, Mapping) or not fit(groups):
        raise InputError(f"{what} must be names of groups with lists of words or with groups")


def ways(tree: Tree) -> Iterator[tuple[str, ...]]:
    """The way to each word of nested groups, `("living", "animal", "dog")`, in their order."""
    for name, below in tree.items():
        for way in ways(below) if isinstance(below, Mapping) else ((noun,) for noun in below):
            yield (name, *way)


def from_nltk(load: Callable[[], T], what: str, resource: str, path: str | Path | None) -> T:
    """Something of nltk's with its data, looked for in nltk's own folders, or in the one named before these.

    Raises:
        InputError: nltk is not installed, or the data is not there or broken: in one line, which and where to put it.
    """
    try:
        import nltk.data
    except ImportError as error:
        raise not_installed("nltk", "compare", what) from error
    name = resource.rpartition("/")[2]
    if path is not None:
        folder = resolve(path)
        if not any((folder / f"{resource}{ending}").exists() for ending in ("", ".zip")):
            raise InputError(
                f"{what}: {folder / resource} is not there; put nltk's `{name}` into it, or name no folder"
            )
        if str(folder) not in nltk.data.path:  # and it stays there: files are opened when they are asked for
            nltk.data.path.insert(0, str(folder))
    try:
        return load()
    except (LookupError, OSError) as error:
        raise InputError(f"{what}: nltk's `{name}` is not there; run `python -m nltk.downloader {name}`") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{what}: nltk's `{name}` is broken; run `python -m nltk.downloader -f {name}`: {error}"
        ) from error


def _wordnet_reader() -> Any:
    from nltk.corpus import LazyCorpusLoader
    from nltk.corpus.reader import CorpusReader, WordNetCorpusReader

    # Other languages' words, which nltk wants to have named and of which none is asked for
    others = LazyCorpusLoader("omw-1.4", CorpusReader, r".*/wn-data-.*\.tab")
    reader = LazyCorpusLoader("wordnet", WordNetCorpusReader, others)
    reader.ensure_loaded()
    reader.synsets(
        "entity", "n"
    )  # the root: opens the data, whose files are otherwise missed in the middle of the work
    return reader
