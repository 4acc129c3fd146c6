"""What an animal named in error has in common with the true one: Animals with Attributes 2.

Xian et al. (arXiv 1707.00600): 50 animals, each with 85 attributes (black, stripes, big, paws, swims, …). An encoder
that carries properties but not categories errs towards animals that share them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from limber_interp.errors import InputError, reading
from limber_interp.evaluation.lexical import Counts
from limber_interp.evaluation.lexicon import Entry, Lexicon
from limber_interp.evaluation.taxonomy import Taxonomy

MISSING = -1.0  # in the continuous table


@dataclass(frozen=True)
class AnimalAttributes:
    """Which animal has which attribute.

    Attributes:
        animals, attributes: names, with spaces between words: `polar bear`.
        has: the class × attribute matrix.
    """

    animals: tuple[str, ...]
    attributes: tuple[str, ...]
    has: Bool[np.ndarray, "animal attribute"]

    @staticmethod
    def read(folder: str | Path) -> "AnimalAttributes":
        """The data set's own files: `classes.txt`, `predicates.txt` and `predicate-matrix-binary.txt`; where the last
        is not there, `predicate-matrix-continuous.txt`, an attribute being there above the mean of the whole table: so
        the data set's authors made the binary one.

        Raises:
            InputError: a file is missing, or they do not fit each other.
        """
        folder = Path(folder)
        animals, attributes = _names(folder / "classes.txt"), _names(folder / "predicates.txt")
        path = folder / "predicate-matrix-binary.txt"
        if path.exists():
            has = _table(path, (len(animals), len(attributes))) > 0
        else:
            values = _table(folder / "predicate-matrix-continuous.txt", (len(animals), len(attributes)))
            has = values > values[values != MISSING].mean()
        return AnimalAttributes(animals, attributes, has)

    @cached_property
    def overlaps(self) -> Float[np.ndarray, "animal animal"]:
        """Of each two animals, |both have| / |either has| over the attributes (Jaccard): 1 for an animal and itself.

        Attributes that both lack do not count: most animals lack most, and the share of equal values would be high for
        any two. Attributes are not independent (paws, claws, furry, …): see the chance level of `overlap_in_error`.
        """
        held = self.has.astype(float)
        both = held @ held.T
        either = held.sum(axis=1)[:, None] + held.sum(axis=1) - both
        return np.divide(both, either, out=np.ones_like(both), where=either > 0)

    def overlap(self, a: str, b: str) -> float:
        """The overlap of two animals by name.

        Raises:
            InputError: an animal is not in it.
        """
        return float(self.overlaps[self._index(a), self._index(b)])

    def chance(self, animal: str) -> float:
        """Mean overlap of an animal with all others: what a wrong animal drawn at random would have.

        Raises:
            InputError: it is not in it, or there is no other.
        """
        others = np.delete(self.overlaps[self._index(animal)], self._index(animal))
        if not others.size:
            raise InputError(f"animal attributes: {animal!r} is the only animal")
        return float(others.mean())

    def lexicon(self, also: Mapping[str, str] | None = None) -> Lexicon:
        """The animals as the nouns to be found in captions, singular or regular plural.

        Args:
            also: other words for them: {"panda": "giant panda"}.

        Raises:
            InputError: a word for no animal.
        """
        entries = {name: Entry("nouns", name, "animal") for name in self.animals}
        for word, name in (also or {}).items():
            entries[word] = Entry("nouns", self.animals[self._index(name)], "animal")
        return Lexicon(entries, Taxonomy.of_tree({"animal": list(entries)}).lemma)

    def _index(self, animal: str) -> int:
        if animal not in self.animals:
            raise InputError(f"animal attributes: {animal!r} is not among the {len(self.animals)} animals")
        return self.animals.index(animal)


def overlap_in_error(
    attributes: AnimalAttributes, nouns: Counts
) -> tuple[Float[np.ndarray, " image"], Float[np.ndarray, " image"]]:
    """Overlap of the animals named in error with the true ones, per image, and its chance level.

    Mean, over the animals that are told and not true, of the overlap with the true animal that is nearest in it; NaN
    for an image without such an error or without a true animal. The chance level is the same mean over *all* animals
    that are not true, for the same images: what errors without regard to the image would have. It does not know that
    captions name some animals more often than others; `nouns.shuffled` does.

    Args:
        nouns: as `count` gives them with `attributes.lexicon()`, or with any lexicon: words for no animal of the
            matrix are left out.

    Returns:
        The overlap and its chance level, each in [0, 1].
    """
    known = np.isin(nouns.words, attributes.animals)
    rows = [attributes.animals.index(word) for word in np.array(nouns.words, dtype=object)[known]]
    overlap, chance = np.full((2, len(nouns.true)), np.nan)
    for image, (true, told) in enumerate(zip(nouns.true[:, known], nouns.told[:, known], strict=True)):
        wrong = np.flatnonzero(told & ~true)
        if wrong.size and true.any():
            right = np.array(rows)[true]
            nearest = attributes.overlaps[:, right].max(axis=1)
            overlap[image] = nearest[np.array(rows)[wrong]].mean()
            chance[image] = np.delete(nearest, right).mean()
    return overlap, chance


def _names(path: Path) -> tuple[str, ...]:
    """Names of numbered lines, `  38\tpolar+bear`, in their order."""
    names = []
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if len(fields) != 2 or fields[0] != str(number):
            raise InputError(f"{path}, line {number}: expected `{number} name`, found {line!r}")
        names.append(fields[1].replace("+", " "))
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path}: no name in it, or one twice")
    return tuple(names)


def _table(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        values = np.array([[float(value) for value in line.split()] for line in _lines(path)])
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers: {' '.join(str(error).split())}") from error
    if values.shape != shape:
        raise InputError(f"{path}: {values.shape} numbers, expected {shape}: animals by attributes")
    return values


def _lines(path: Path) -> Sequence[str]:
    with reading(path, "cannot be read; give the folder of Animals with Attributes 2"):
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
