"""What the language model says about images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from limber_interp.records.base import Manifest, Record


@dataclass(frozen=True)
class Caption(Record):
    """One image's caption, and how probable the same words are when the image is taken away.

    Attributes:
        image: path or URL as given.
        logprob: mean log-probability of the caption's tokens after the image, in nats per token; NaN if it has none.
        logprob_no_image: of the same tokens after the prompt alone.
        logprob_noise: of the same tokens after Gaussian vectors with the norms of the soft prompt's.
        seen: the image as the encoder sees it.
    """

    image: str
    caption: str
    logprob: float
    logprob_no_image: float
    logprob_noise: float
    seen: UInt8[np.ndarray, "height width 3"]

    def as_dict(self) -> dict[str, Any]:
        values = super().as_dict()
        return {
            "image": self.image,
            "caption": self.caption,
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
    """

    prompt: str
    images: tuple[Caption, ...]
    caption_no_image: str
    manifest: Manifest

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "caption",
            "prompt": self.prompt,
            "images": [image.as_dict() for image in self.images],
            "controls": {"no_image": {"caption": self.caption_no_image}},
            "manifest": self.manifest.as_dict(),
        }
