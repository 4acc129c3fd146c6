"""Words that a probe follows: their ranks, and how these compare to the ranks of words that nobody asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Num
from torch import Tensor

from limber_interp.arguments import several
from limber_interp.models.vocabulary import Vocabulary
from limber_interp.records import Target

A_WORD = re.compile(r" [^\W\d_]{2,}")  # a leading space and letters alone: a word on its own, as inside a sentence
N_WORDS = 999  # p-values against words go down to 0.001


def matched_words(strings: Sequence[str], target: int, n: int = N_WORDS) -> list[int]:
    """Token ids of the words to hold a target against.

    These are single tokens of a leading space and two or more letters, without the target itself; of them the n whose
    ids are nearest to its own.

    Byte-pair encoding numbers its tokens in the order of their merges, roughly by falling frequency: these are words
    about as frequent as the target, in a small vocabulary simply all of them. They are of all parts of speech, and a
    word for something else in the image counts against the target.

    Args:
        strings: the text of every token by its id, "" of those that stand for none.
    """
    words = [id for id, text in enumerate(strings) if id != target and A_WORD.fullmatch(text)]
    return sorted(sorted(words, key=lambda id: abs(id - target))[:n])


def permutation_p(observed: float, others: Num[np.ndarray, " n"]) -> float | None:
    """(1 + how many of the others are at least as small) / (1 + how many there are).

    The probability of so small a value if it were exchangeable with the others; never 0 (Phipson & Smyth 2010, doi
    10.2202/1544-6115.1585). None without others.
    """
    return (1 + int((others <= observed).sum())) / (1 + len(others)) if len(others) else None


@dataclass(frozen=True)
class Watch:
    """Tokens whose ranks are followed: the targets first, then the words that they are held against.

    Attributes:
        words: the targets as given, each once.
        populations: per target, the places in `ids` of its matched words.
    """

    words: tuple[str, ...]
    ids: Int[Tensor, " watched"]
    populations: tuple[Int[np.ndarray, " words"], ...]
    tokens: tuple[str, ...]

    @classmethod
    def of(cls, vocabulary: Vocabulary, targets: str | Sequence[str], first_token: bool = False) -> "Watch":
        """Look the targets up.

        Args:
            targets: words; a string is one.
            first_token: take the first token of a target that has several.

        Raises:
            InputError: a target is not a single token, and `first_token` is not set; or it is empty.
        """
        words = tuple(dict.fromkeys(several(targets)))
        wanted = [vocabulary.id_of(word, first_token) for word in words]
        strings = vocabulary.texts if words else []
        matched = [matched_words(strings, id) for id in wanted]
        union = sorted(set().union(*matched))
        populations = tuple(np.searchsorted(union, np.array(ids, dtype=np.int64)) + len(words) for ids in matched)
        ids = torch.tensor(wanted + union, dtype=torch.int64, device="cpu")
        return cls(words, ids, populations, tuple(strings[id] for id in wanted))

    @property
    def target_ids(self) -> Int[Tensor, " targets"]:
        return self.ids[: len(self.words)]

    def read(self, ranks: Int[np.ndarray, "pos watched"]) -> tuple[Target, ...]:
        """The targets at one image, before they are compared to other images."""
        best = ranks.min(axis=0)
        return tuple(
            Target(
                word=word,
                token=self.tokens[i],
                token_id=int(self.ids[i]),
                ranks=ranks[:, i].astype(np.int32),
                p_words=permutation_p(float(best[i]), best[population]),
                n_words=len(population),
                p_images=None,
                n_images=0,
            )
            for i, (word, population) in enumerate(zip(self.words, self.populations, strict=True))
        )
