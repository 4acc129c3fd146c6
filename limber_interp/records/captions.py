"""What the language model says about images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from limber_interp.records.base import Manifest, Record


@dataclass(frozen=True)
class CaptionSample(Record):
    """One of several captions that were drawn for an image; numbers as of a `Caption`."""

    caption: str
    logprob: float
    logprob_no_image: float
    logprob_noise: float

    def as_dict(self) -> dict[str, Any]:
        return _scored(super().as_dict())


@dataclass(frozen=True)
class Caption(Record):
    """One image's caption, and how probable the same words are when the image is taken away.

    Attributes:
        image: path or URL as given.
        logprob: mean log-probability of the caption's tokens after the image, in nats per token; NaN if it has none.
        logprob_no_image: of the same tokens after the prompt alone.
        logprob_noise: of the same tokens after Gaussian vectors with the norms of the soft prompt's.
        seen: the image as the encoder sees it.
        samples: where several captions were asked for, all of them; the first is the one above.
    """

    image: str
    caption: str
    logprob: float
    logprob_no_image: float
    logprob_noise: float
    seen: UInt8[np.ndarray, "height width 3"]
    samples: tuple[CaptionSample, ...] = ()

    @property
    def drawn(self) -> tuple[CaptionSample, ...]:
        """The samples; where no several were asked for, the one caption."""
        return self.samples or (CaptionSample(self.caption, self.logprob, self.logprob_no_image, self.logprob_noise),)

    def as_dict(self) -> dict[str, Any]:
        values = {"image": self.image, **_scored(super().as_dict())}
        if self.samples:
            values["samples"] = [sample.as_dict() for sample in self.samples]
        return values


def _scored(values: dict[str, Any]) -> dict[str, Any]:
    return {
        "caption": values["caption"],
        "logprob": values["logprob"],
        "controls": {
            "no_image": {"logprob": values["logprob_no_image"]},
            "noise": {"logprob": values["logprob_noise"]},
        },
    }


@dataclass(frozen=True)
class Captions(Record):
    """Captions of images after one prompt.

    Attributes:
        caption_no_image: what follows the prompt where there is no image: what every caption is worth more than.
        samples_no_image: where several captions were asked for, as many without an image; the first is the one above.
        sampling: temperature, top-k and top-p; None where the captions are greedy.
    """

    prompt: str
    images: tuple[Caption, ...]
    caption_no_image: str
    manifest: Manifest
    samples_no_image: tuple[str, ...] = ()
    sampling: Mapping[str, float | int | None] | None = None

    def as_dict(self) -> dict[str, Any]:
        no_image: dict[str, Any] = {"caption": self.caption_no_image}
        if self.samples_no_image:
            no_image["samples"] = [{"caption": caption} for caption in self.samples_no_image]
        return {
            "command": "caption",
            "prompt": self.prompt,
            **({} if self.sampling is None else {"sampling": dict(self.sampling)}),
            "images": [image.as_dict() for image in self.images],
            "controls": {"no_image": no_image},
            "manifest": self.manifest.as_dict(),
        }
