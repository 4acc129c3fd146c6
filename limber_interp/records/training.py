"""What a training run of a projection left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from limber_interp.records.base import Manifest, Record


@dataclass(frozen=True, eq=False)
class TrainingRun(Record):
    """A trained projection, and its losses in nats per caption token.

    Attributes:
        projection, log: files that it wrote: `.safetensors` with the manifest, and a JSON line per step.
        examples, rejected: of the data, those that could be used and those that could not.
        loss: mean of the last hundred steps, dropout on; of a closed form, on the first examples.
        losses: of each step.
        evaluations: `step` (how many were done), and the loss on unseen images then, as in `held_out`.
        held_out: loss on unseen images with the `right` image, with a `wrong` one, and with `none`: the difference is
            what the projection carries. Empty where no unseen images were given.
        pace: medians over the steps of this process: `seconds`, `data_seconds` (of these, waiting for data),
            `images_per_s`, `tokens_per_s` (with a label). Empty of a closed form.
    """

    projection: str
    log: str
    examples: int
    rejected: int
    steps: int
    loss: float
    losses: Float32[np.ndarray, " step"]
    evaluations: tuple[Mapping[str, int | float], ...]
    held_out: Mapping[str, float]
    pace: Mapping[str, float]
    minutes: float
    manifest: Manifest

    def as_dict(self) -> dict[str, Any]:
        fields = super().as_dict()
        del fields["losses"]  # the log has them
        return {"command": "train", **fields}


@dataclass(frozen=True)
class TrainingPlan(Record):
    """What a training run would take, extrapolated from a few steps.

    Attributes:
        trainable, frozen: parameters.
        images_per_step, tokens_per_step: over all processes and accumulated batches; tokens are those with a label.
        prompt_pos: positions of an image in the prompt.
        epochs: how often the run sees each example.
        step_seconds: of a whole step; `data_seconds` of it waiting for data.
        encoding_seconds, encodings_bytes: of encoding all images once, beforehand; 0 where it is done or not asked for.
        activation_bytes: what the language model would keep of a batch in one process; with `checkpointing` it is
            computed again instead.
        peak_bytes: most memory of this process in the measured steps: the GPU's, or on a CPU the process's own.
    """

    trainable: int
    frozen: int
    examples: int
    processes: int
    images_per_step: int
    prompt_pos: int
    tokens_per_step: float
    epochs: float
    steps: int
    step_seconds: float
    data_seconds: float
    encoding_seconds: float
    total_seconds: float
    encodings_bytes: int
    activation_bytes: int
    checkpointing: bool | None
    peak_bytes: int
    device: str
    manifest: Manifest

    def as_dict(self) -> dict[str, Any]:
        return {"command": "train", "dry_run": True, **super().as_dict()}
