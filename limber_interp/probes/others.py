"""The other images that an image is held against: the others that are given, and what is taken from elsewhere.

Where they come from decides what they say. Photographs held against emoji scenes differ from them in everything, and
then a small p-value is no finding about the target.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from limber_interp.errors import InputError
from limber_interp.folders import in_folders
from limber_interp.images import ImageSource, describe, distinct, each, image_hash, load_image
from limber_interp.probes.controls import DESCRIPTIONS, generator
from limber_interp.records import Manifest
from limber_interp.resources import weights_dir

logger = logging.getLogger(__name__)

N_OTHERS = 19  # with 19 others a p-value can reach 0.05
GIVEN, NAMED, BUNDLED = "given", "others", "bundled_scenes"
TOLD = {GIVEN: "{} given", NAMED: "{} named as others", BUNDLED: "{} bundled emoji scenes"}
ONE = {BUNDLED: "{} bundled emoji scene"}


@dataclass(frozen=True)
class Spare:
    """Images beside the given ones whose prompts serve as control.

    Attributes:
        kind: where they come from, `NAMED` or `BUNDLED`.
    """

    sources: tuple[ImageSource, ...]
    kind: str

    @classmethod
    def beside(cls, given: Sequence[str], others: Mapping[str, ImageSource] | None) -> "Spare":
        """The images that are named as others; or else, beside fewer than 20 images, the bundled scenes. In either case
        without those that are given as well: counted twice, a picture would make p-values smaller than they may be.

        Args:
            given: hashes of the images that are given.
            others: what `named_others` found.
        """
        kind = BUNDLED if others is None else NAMED
        if others is None:
            others = by_hash(bundled_scenes()) if len(given) <= N_OTHERS else {}
        return cls(tuple(source for picture, source in others.items() if picture not in given), kind)

    def counted(self, n_given: int) -> dict[str, int]:
        """How many images of all come from where."""
        return _positive({GIVEN: n_given, self.kind: len(self.sources)})

    def counted_among(self, others: Int[np.ndarray, " others"], n_given: int) -> dict[str, int]:
        """How many of the others of one image come from where: places among the given ones, then these."""
        n = int((others < n_given).sum())
        return _positive({GIVEN: n, self.kind: len(others) - n})

    def noted_in(self, manifest: Manifest, given: Sequence[str], hashes: Sequence[str]) -> Manifest:
        """The manifest with these images and their hashes; and where images of another kind than the given ones may
        serve as control, a note that says so, which is logged as a warning too."""
        names = distinct([describe(source) for source in self.sources])
        manifest = replace(manifest, others=dict(zip(names, hashes, strict=True)))
        if (warning := self.stranger_to(given)) is None:
            return manifest
        logger.warning(warning)
        return manifest.noting([warning])

    def stranger_to(self, hashes: Sequence[str]) -> str | None:
        """What to say where images that are none of the bundled scenes are held against these.

        Args:
            hashes: of the images that are given.
        """
        if self.kind != BUNDLED or not self.sources:
            return None
        scenes = {image_hash(load_image(path)) for path in _scenes()}
        if not (strangers := sum(picture not in scenes for picture in hashes)):
            return None
        return (
            f"controls 'mean_prompt' and 'other_images' take {len(self.sources)} bundled emoji scenes, which "
            f"{strangers} of the {len(hashes)} images given {'are' if strangers > 1 else 'is'} not among: if "
            f"{'they are' if strangers > 1 else 'it is'} another kind of picture, all differ for that reason alone; "
            "name images like yours (--others, others=)"
        )


def told(control: str, pool: Mapping[str, int]) -> str:
    """A control's description, with where its images come from."""
    parts = [(ONE.get(kind, TOLD[kind]) if n == 1 else TOLD[kind]).format(n) for kind, n in pool.items()]
    return f"{DESCRIPTIONS[control]}: {' and '.join(parts)}"


def others_of(
    pictures: Sequence[str], index: int, seed: int
) -> tuple[Int[np.ndarray, " others"], Int[np.ndarray, " drawn"]]:
    """Places of all pictures that are not the one at `index`, by their hashes, and up to 19 of them drawn at random.

    Raises:
        InputError: there is none.
    """
    others = np.flatnonzero(np.array(pictures) != pictures[index])  # the same picture may be given twice
    if not len(others):
        raise InputError("control 'other_images': there is no other image; give some, or choose controls 'fast'")
    order = torch.randperm(len(others), generator=generator(seed, "other_images", index), device="cpu")[:N_OTHERS]
    return others, others[np.sort(order.numpy())]


def named_others(
    others: ImageSource | Sequence[ImageSource] | None, level: str | bool, whole_prompts: bool = False
) -> dict[str, ImageSource] | None:
    """The images that are named as others by their hashes, in the place of a folder those in it. Each is opened, before
    any work.

    Raises:
        InputError: an image that cannot be opened, a folder without images, or no control that takes other images.
    """
    if others is None:
        return None
    if whole_prompts:
        raise InputError("others: whole prompts have no other control than noise; leave the others out")
    if level not in ("full", True):
        raise InputError(f"others: controls {level!r} take no other images; choose controls 'full', or leave them out")
    return by_hash(in_folders(each(others)))


def by_hash(sources: Iterable[ImageSource]) -> dict[str, ImageSource]:
    """Images by the hash of their picture; of one that is there several times the first."""
    found: dict[str, ImageSource] = {}
    for source in sources:
        found.setdefault(image_hash(load_image(source)), source)
    return found


def bundled_scenes() -> list[ImageSource]:
    """As many bundled scenes as a control needs, and one more, because the image looked at may be one of them."""
    return list(_scenes()[: N_OTHERS + 1])


def _positive(counts: dict[str, int]) -> dict[str, int]:
    return {kind: count for kind, count in counts.items() if count}


def _scenes() -> list[Path]:
    folder = weights_dir() / "emoji" / "scenes" / "images"
    return sorted(path for path in folder.glob("*") if path.is_file() and path.name[0] != ".")
