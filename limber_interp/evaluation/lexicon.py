"""Which words and phrases of captions stand for nouns, modifiers and relations."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from limber_interp.arguments import several
from limber_interp.errors import InputError
from limber_interp.evaluation.spelling import spelt
from limber_interp.evaluation.taxonomy import EMBEDDED, Taxonomy, from_nltk, read_groups, ways

KINDS = ("nouns", "modifiers", "relations")
# Relations of several words, which no tagger finds; of several that fit, the longest counts
PHRASES = (
    "across from", "at the top of", "attached to", "away from", "close to", "in back of", "in between", "in front of",
    "in the middle of", "inside of", "left of", "next to", "on the side of", "on top of", "out of", "outside of",
    "right of", "to the left of", "to the right of", "up against",
)  # fmt: skip
NO_RELATIONS = {
    "as",
    "because",
    "for",
    "if",
    "of",
    "so",
    "than",
    "that",
    "whether",
    "while",
}  # prepositions by tag only
Tagger = Callable[[list[str]], list[tuple[str, str]]]


class Entry(NamedTuple):
    """What a word or phrase stands for: `left of` for the relation `left of`, of the category `horizontal`."""

    kind: str
    word: str
    category: str


class Lexicon:
    """Words and phrases to be found in captions; each is of one kind.

    Args:
        entries: by the word or phrase as it is written; case and the way in which accents are typed do not matter.
        lemma: gives a word's base form, tried where the word as written is no entry. A taxonomy's, usually.
    """

    def __init__(self, entries: Mapping[str, Entry], lemma: Callable[[str], str]) -> None:
        self.entries = {" ".join(tokens(phrase)): entry for phrase, entry in entries.items()}
        self.lemma = lemma
        self.longest = max((len(phrase.split()) for phrase in self.entries), default=0)

    @staticmethod
    def read(path: str | Path = EMBEDDED) -> "Lexicon":
        """The words of a closed world: nouns, modifiers and relations under these keys of a JSON file, in groups which
        are their categories; that of the embedded suite if none is named.

        Raises:
            InputError: no such file, or no such words in it; a word is in two groups.
        """
        entries: dict[str, Entry] = {}
        for kind in KINDS:
            for *_, category, word in ways(read_groups(path, kind)):
                if word in entries:
                    raise InputError(f"{path}: {word!r} is in two groups, {entries[word].category} and {category}")
                entries[word] = Entry(kind, word, category)
        return Lexicon(entries, Taxonomy.read(path).lemma)

    @staticmethod
    def of_captions(captions: str | Iterable[str], taxonomy: Taxonomy, tag: Tagger | None = None) -> "Lexicon":
        """The words of the captions that are to be compared, told ones and references, by part of speech.

        Nouns (NN, NNS) are those that the taxonomy has, in its base form and with its category; modifiers are
        adjectives (JJ); relations are prepositions (IN) and `PHRASES`. A word that is tagged in several ways counts as
        what it is most often, wherever it stands: the same in captions and references. Verbs (riding, holding) are left
        out, and nouns of several words (teddy bear) count word by word. Taggers were made for sentences, and err on
        captions.

        Args:
            tag: tokens → (token, Penn Treebank tag) each; None: `perceptron`.

        Raises:
            InputError: nltk or its data is not there.
        """
        tag = tag or perceptron()
        seen: dict[str, Counter[Entry]] = defaultdict(Counter)
        for caption in several(captions):
            for token, part in tag(tokens(caption)):
                lemma = taxonomy.lemma(token)
                if part in ("NN", "NNS") and lemma in taxonomy:
                    seen[lemma][Entry("nouns", lemma, taxonomy.category(lemma))] += 1
                elif part == "JJ":
                    seen[token][Entry("modifiers", token, "adjective")] += 1
                elif part == "IN" and token not in NO_RELATIONS:
                    seen[token][Entry("relations", token, "preposition")] += 1
        entries = {phrase: Entry("relations", phrase, "preposition") for phrase in PHRASES}
        return Lexicon(entries | {word: found.most_common(1)[0][0] for word, found in seen.items()}, taxonomy.lemma)

    def coarse(self) -> "Lexicon":
        """The same, but categories count as the words: an owl told in the place of an eagle is a bird all the same."""
        entries = {phrase: Entry(kind, category, category) for phrase, (kind, _, category) in self.entries.items()}
        return Lexicon(entries, self.lemma)

    def find(self, caption: str) -> Iterator[Entry]:
        """What a caption holds, from left to right; where phrases overlap, the longest from the left."""
        return (entry for _, entry in self.phrases(caption))

    def phrases(self, caption: str) -> Iterator[tuple[str, Entry]]:
        """The same, each beside the word or phrase as it is written, in lower case."""
        words = tokens(caption)
        start = 0
        while start < len(words):
            for length in range(min(self.longest, len(words) - start), 0, -1):
                phrase = " ".join(words[start : start + length])
                entry = self.entries.get(phrase) or self.entries.get(self.lemma(phrase))
                if entry:
                    yield phrase, entry
                    break
            start += length


def tokens(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; `t-shirt`, `dog's` and `piñata` are one each.

    A letter with its accents is one character wherever Unicode has it so: see `spelt`.
    """
    shown, in_word = [], False
    for char in spelt(text.lower()):
        # Letters and digits of any script, and the marks that belong to the letter before them
        in_word = char.isalnum() or (in_word and unicodedata.category(char).startswith("M"))
        shown.append(char if in_word or char in "'-" else " ")
    return re.findall(r"[^\s'-]+(?:['-][^\s'-]+)*", "".join(shown))


def perceptron() -> Tagger:
    """nltk's averaged perceptron, its data where nltk looks or in the folder that `Taxonomy.wordnet` was given.

    Raises:
        InputError: nltk or its data is not there.
    """
    return from_nltk(_perceptron, "tagging captions", "taggers/averaged_perceptron_tagger_eng", None)


def _perceptron() -> Tagger:
    from nltk.tag import PerceptronTagger

    return PerceptronTagger().tag
