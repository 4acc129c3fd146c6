"""What a run is trained on, as its checkpoints keep it, so that it goes on with the same and with nothing else."""

import hashlib
import json
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Int

from limber_interp.models.limber import Limber
from limber_interp.training.examples import Examples

TOLD = 1000  # examples, evenly spread over the data, whose keys and captions are kept as hashes
SHOWN = 16  # of which also the encoding is kept, as `NUMBERS` numbers
NUMBERS = 8
TOLERANCE = 0.02  # of the largest number: another device's rounding is far less, another image far more


class Identity(TypedDict):
    """Plain values, which JSON keeps as they are.

    `told` has a hash of key and captions, or None where there was no example; `shown` a few numbers of the encoding.
    """

    encoder: str
    lm: str
    told: list[str | None]
    shown: list[list[float] | None]


def identity(model: Limber, examples: Examples) -> Identity:
    """What a run of this model on these examples is known by.

    It is of contents alone, not of paths and times, so that data may be moved or copied in the middle of a run. Of a
    large data set it is a sample, the same at every start: a change to a few of its examples may not be seen.
    """
    return Identity(
        encoder=model.encoder.sha256,
        lm=model.lm_sha256,
        told=[_told(examples, index) for index in _spread(len(examples), TOLD).tolist()],
        shown=_shown(examples, _spread(len(examples), SHOWN)),
    )


def difference(there: Identity, here: Identity, examples: Examples) -> str | None:
    """What of a checkpoint's identity is another one here, in words; None if nothing is. Both have as many examples."""
    for part, name in (("encoder", "encoder"), ("lm", "language model")):
        if there[part] != here[part]:  # type: ignore[literal-required]
            return f"the {name}'s weights are others"
    for index, old, new in zip(_spread(len(examples), TOLD).tolist(), there["told"], here["told"], strict=True):
        if old != new:
            return f"example {index}{_named(examples, index)} has another name or other captions"
    largest = max((abs(number) for numbers in there["shown"] for number in numbers or ()), default=0.0)
    for index, before, now in zip(_spread(len(examples), SHOWN).tolist(), there["shown"], here["shown"], strict=True):
        if before is None or now is None:
            same = before is now
        else:
            same = np.allclose(before, now, rtol=0.0, atol=TOLERANCE * largest)
        if not same:
            return f"example {index}{_named(examples, index)} has another image"
    return None


def _spread(count: int, most: int) -> Int[np.ndarray, " rows"]:
    """Indices from the first to the last: all, or so many at equal distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _told(examples: Examples, index: int) -> str | None:
    if (told := examples.told(index)) is None:
        return None
    key, captions = told
    return hashlib.sha256(json.dumps([key, *captions]).encode()).hexdigest()[:16]


def _named(examples: Examples, index: int) -> str:
    return "" if (told := examples.told(index)) is None else f" ({told[0]})"


def _shown(examples: Examples, rows: Int[np.ndarray, " rows"]) -> list[list[float] | None]:
    read = examples.read(rows)
    encoding = examples.encoding(read).cpu().float().mean(1)  # (kept, d_encoder)
    directions = torch.outer(torch.arange(encoding.shape[1]), torch.arange(1, NUMBERS + 1)).cos()
    shown: list[list[float] | None] = [None] * len(rows)
    for place, numbers in zip(read.places.tolist(), (encoding @ directions).tolist(), strict=True):
        shown[place] = numbers
    return shown
