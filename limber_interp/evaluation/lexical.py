"""Which nouns, modifiers and relations captions tell, and which of them are true: categories against properties.

As Merullo et al. (arXiv 2209.15162, section 5) compare what encoders transfer: over the most frequent words of the
references, and by how near the told nouns are to the true ones. All is kept per image, so that intervals can be drawn
over images, and `Counts.shuffled` is the control of everything: captions held against other images' references.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float

from limber_interp.errors import InputError
from limber_interp.evaluation.lexicon import KINDS, Entry, Lexicon
from limber_interp.evaluation.taxonomy import Taxonomy
from limber_interp.probes.controls import derangement

Side = Literal["true", "told", "wrong"]


@dataclass(frozen=True)
class Counts:
    """Which words of one kind are true of each image, and which are told of it.

    Attributes:
        words: sorted; and the category of each.
        true: in at least one of the image's references.
        told: in its caption; how often does not matter.
    """

    words: tuple[str, ...]
    categories: tuple[str, ...]
    true: Bool[np.ndarray, "image word"]
    told: Bool[np.ndarray, "image word"]

    @property
    def recall(self) -> Float[np.ndarray, " image"]:
        """Share of the true words that are told, per image; NaN where there are none.

        Where references differ, no single caption can hold all that they do, and 1 is out of reach.
        """
        return _share(self.true & self.told, self.true)

    @property
    def precision(self) -> Float[np.ndarray, " image"]:
        """Share of the told words that are true, per image; NaN where none is told."""
        return _share(self.true & self.told, self.told)

    @property
    def micro_recall(self) -> float:
        """Of all true words of all images, the share that is told; NaN if there are none."""
        return float(_share((self.true & self.told).reshape(1, -1), self.true.reshape(1, -1))[0])

    @property
    def micro_precision(self) -> float:
        """Of all told words of all images, the share that is true; NaN if there are none."""
        return float(_share((self.true & self.told).reshape(1, -1), self.told.reshape(1, -1))[0])

    @cached_property
    def groups(self) -> dict[str, Bool[np.ndarray, " word"]]:
        """Category → which of the words are in it; in the order of the words."""
        return {name: np.array(self.categories) == name for name in dict.fromkeys(self.categories)}

    def select(self, which: Bool[np.ndarray, " word"]) -> "Counts":
        """The same images, with some of the words only."""
        words, categories = (tuple(np.array(names, dtype=object)[which]) for names in (self.words, self.categories))
        return Counts(words, categories, self.true[:, which], self.told[:, which])

    def most_frequent(self, n: int) -> "Counts":
        """The n words that are true of the most images (of equals the first by name); the paper takes 50 of each kind.

        What is told and is not among them is not counted as an error.
        """
        order = np.argsort(-self.true.sum(axis=0), kind="stable")[:n]
        return self.select(np.isin(np.arange(len(self.words)), order))

    def by_category(self) -> dict[str, "Counts"]:
        return {name: self.select(which) for name, which in self.groups.items()}

    def by_word(self) -> dict[str, "Counts"]:
        return {word: self.select(np.arange(len(self.words)) == i) for i, word in enumerate(self.words)}

    def shuffled(self, seed: int) -> "Counts":
        """The control: each image's caption held against the references of another image, drawn with the seed.

        Raises:
            InputError: fewer than two images.
        """
        if len(self.true) < 2:
            raise InputError("control 'other image': there is no other image; give at least two")
        partners = derangement(len(self.true), torch.Generator().manual_seed(seed))
        return Counts(self.words, self.categories, self.true[partners], self.told)


def count(lexicon: Lexicon, told: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Counts]:
    """What captions tell and what is true, for each of `KINDS`.

    Words say what is there, not how it hangs together: a caption that swaps two nouns or their sizes scores as well.
    Where references tell a scene from either side, left of and right of are both true: of such a relation only the axis
    is measured, and its recall stays below 1 but for `Lexicon.coarse`, which counts axes.

    Args:
        told: a caption per image.
        references: the true captions per image.

    Raises:
        InputError: not as many captions as images with references, or an image without any.
    """
    if len(told) != len(references):
        raise InputError(f"{len(told)} captions, but references for {len(references)} images")
    for index, captions in enumerate(references):
        if isinstance(captions, str):
            raise InputError(f"image {index}: found one text {captions!r}, expected a list of references")
        if not captions:
            raise InputError(f"image {index}: no reference; leave out images without captions")
    said = [set(lexicon.find(caption)) for caption in told]
    true = [{entry for caption in captions for entry in lexicon.find(caption)} for captions in references]
    counted = {}
    for kind in KINDS:
        entries = sorted({entry for entry in lexicon.entries.values() if entry.kind == kind})
        words, categories = tuple(entry.word for entry in entries), tuple(entry.category for entry in entries)
        counted[kind] = Counts(words, categories, _marked(true, entries), _marked(said, entries))
    return counted


def similarity(counts: Counts, taxonomy: Taxonomy, of: Side = "true") -> Float[np.ndarray, "image word"]:
    """Wu-Palmer similarity of each noun to the nearest noun on the other side, NaN where the noun is not in question.

    - `true`: of each true noun to the nearest told one: 1 where it is told, 0 where no noun is told at all;
    - `told`: of each told noun to the nearest true one: 1 where it is true, NaN where the references have no noun;
    - `wrong`: `told`, of the nouns told in error alone.

    `per_image` averages over an image's nouns, `by_category` by the category of the noun whose similarity it is. `true`
    and `told` are recall and precision that count a dog for a fox by how near it is, so that they rise with the share
    of right nouns as well. `wrong` does not; but an encoder is then judged by its errors alone, a good one by few, and
    two encoders by different images.

    Raises:
        InputError: a noun is not in the taxonomy.
    """
    asked, theirs = {
        "true": (counts.true, counts.told),
        "told": (counts.told, counts.true),
        "wrong": (counts.told & ~counts.true, counts.true),
    }[of]
    found = np.full(asked.shape, np.nan)
    for image, word in np.argwhere(asked):
        others = np.flatnonzero(theirs[image])
        if others.size:
            found[image, word] = max(taxonomy.wu_palmer(counts.words[word], counts.words[other]) for other in others)
        elif of == "true":
            found[image, word] = 0.0
    return found


def per_image(values: Float[np.ndarray, "image word"]) -> Float[np.ndarray, " image"]:
    """Mean over the words of an image that have a value; NaN for an image without any."""
    there = ~np.isnan(values)
    n = there.sum(axis=1)
    return np.divide(np.where(there, values, 0).sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)


def by_category(values: Float[np.ndarray, "image word"], counts: Counts) -> dict[str, Float[np.ndarray, " image"]]:
    """`per_image` for each category of the words."""
    return {name: per_image(values[:, which]) for name, which in counts.groups.items()}


def _marked(found: list[set[Entry]], entries: list[Entry]) -> np.ndarray:
    rows = [[entry in held for entry in entries] for held in found]
    return np.array(rows, dtype=bool).reshape(len(found), len(entries))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    some, all_ = part.sum(axis=1), whole.sum(axis=1)
    return np.divide(some, all_, out=np.full(len(all_), np.nan), where=all_ > 0)
