"""What a training run of a projection left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limber_interp.records.base import Manifest, Record


@dataclass(frozen=True)
class TrainingRun(Record):
    """A trained projection, and its losses in nats per caption token.

    Attributes:
        projection, log: files that it wrote: `.safetensors` with the manifest, and a JSON line per step.
        loss: mean of the last hundred steps, dropout on.
        held_out: loss on unseen images with the `right` image, with a `wrong` one, and with `none`: the difference is
            what the projection carries. Empty where no unseen images were given.
    """

    projection: str
    log: str
    examples: int
    steps: int
    loss: float
    held_out: Mapping[str, float]
    minutes: float
    manifest: Manifest

    def as_dict(self) -> dict[str, Any]:
        return {"command": "train", **super().as_dict()}
