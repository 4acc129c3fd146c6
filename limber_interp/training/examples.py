"""What a run is given: captions and encodings at a data set's indices, read from shards or computed as needed."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from limber_interp.datasets import Dataset, Rejected, open_dataset
from limber_interp.encodings import Encodings, is_encodings, open_encodings
from limber_interp.encodings.writing import Row, encode_rows, open_row
from limber_interp.errors import InputError, check_at_least_one
from limber_interp.models.encoders import Encoder

logger = logging.getLogger(__name__)

T, R = TypeVar("T"), TypeVar("R")
AHEAD = 2  # batches that are read while one is computed on


@dataclass(frozen=True)
class Read:
    """What there is at some indices.

    Attributes:
        places: which of the indices asked for have an example, as places among them.
        captions, keys: of these.
        rejected: index -> why there is none, for the others.
        content: their encodings, or what they are computed from.
    """

    places: Int[np.ndarray, " kept"]
    captions: list[tuple[str, ...]]
    keys: list[str]
    rejected: dict[int, Rejected]
    content: Any


@runtime_checkable
class Examples(Protocol):
    """A data set's examples by its own indices, which rejected ones keep: nothing takes their places."""

    name: str
    n_positions: int
    d_encoder: int

    def __len__(self) -> int: ...

    def told(self, index: int) -> tuple[str, tuple[str, ...]] | None:
        """Key and captions of the example at an index, its image not opened; None if it is rejected before that."""

    def read(self, rows: Int[np.ndarray, " rows"]) -> Read:
        """What lies at the indices; runs in a thread of its own, and touches no model."""

    def encoding(self, read: Read) -> Float16[Tensor, "kept image_pos d_encoder"]:
        """Encodings of what was read, on whatever device they come from."""


class Stored:
    """Encodings that were written before."""

    def __init__(self, encodings: Encodings) -> None:
        self.encodings = encodings
        self.name = encodings.name
        self.n_positions: int = encodings.n_positions
        self.d_encoder: int = encodings.d_encoder

    def __len__(self) -> int:
        return len(self.encodings)

    def told(self, index: int) -> tuple[str, tuple[str, ...]] | None:
        captions = self.encodings.captions(index)
        return (self.encodings.keys[index], captions) if captions else None

    def read(self, rows: Int[np.ndarray, " rows"]) -> Read:
        places = np.flatnonzero(self.encodings.kept[rows])
        kept = rows[places]
        return Read(
            places,
            [self.encodings.captions(index) for index in kept],
            [self.encodings.keys[index] for index in kept],
            {int(i): self.encodings.rejected[int(i)] for i in rows if int(i) in self.encodings.rejected},
            torch.from_numpy(self.encodings.encoding(kept)),
        )

    def encoding(self, read: Read) -> Float16[Tensor, "kept image_pos d_encoder"]:
        return read.content


class Live:
    """Images that are opened and encoded whenever their turn comes: for data whose encodings would fill the disk.

    The numbers are those of `Stored`: an image's encoding in float16.
    """

    def __init__(self, encoder: Encoder, dataset: Dataset) -> None:
        self.encoder = encoder
        self.dataset = dataset
        self.name = dataset.name
        self.n_positions: int = encoder.n_positions
        self.d_encoder: int = encoder.d_encoder
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # Pillow decodes outside of Python's lock

    def __len__(self) -> int:
        return len(self.dataset)

    def told(self, index: int) -> tuple[str, tuple[str, ...]] | None:
        try:
            example = self.dataset[index]
        except Rejected:
            return None
        return example.key, example.captions

    def read(self, rows: Int[np.ndarray, " rows"]) -> Read:
        opened: list[Row] = list(self._pool.map(lambda i: open_row(self.encoder, self.dataset, i), rows.tolist()))
        good = [row for row in opened if not isinstance(row, Rejected)]
        return Read(
            np.array([place for place, row in enumerate(opened) if not isinstance(row, Rejected)], dtype=np.int64),
            [example.captions for example, _ in good],
            [example.key for example, _ in good],
            {int(i): row for i, row in zip(rows, opened, strict=True) if isinstance(row, Rejected)},
            good,
        )

    def encoding(self, read: Read) -> Float16[Tensor, "kept image_pos d_encoder"]:
        if not read.content:
            return torch.empty(0, self.n_positions, self.d_encoder, dtype=torch.float16)
        return encode_rows(self.encoder, read.content)


class Told(NamedTuple):
    """A few examples in memory."""

    encoding: Float16[Tensor, "batch image_pos d_encoder"]
    captions: list[tuple[str, ...]]


def open_data(path: str | Path, images: str | Path | None = None) -> Dataset | Encodings:
    """Captioned images in any format of `open_dataset`, or encodings of them.

    Raises:
        InputError: as the two say, or a folder of images for encodings, which need none.
    """
    if not is_encodings(path):
        return open_dataset(path, images)
    if images is not None:
        raise InputError(f"--images {images}: {path} holds encodings, whose images are not opened; leave it out")
    return open_encodings(path)


def in_batches(examples: Examples, first: int | None = None, batch_size: int = 64) -> Iterator[Told]:
    """The examples in the order of their indices, or so many of the first indices; batches of equal size, about.

    Those that cannot be used are left out, which is logged in one line at the end.

    Raises:
        InputError: a batch size below 1.
    """
    check_at_least_one(batch_size=batch_size)
    rows = np.arange(len(examples))[:first]
    rejected: list[Rejected] = []
    read: Read
    for read in ahead(examples.read, np.array_split(rows, -(-len(rows) // batch_size))):
        rejected += read.rejected.values()
        if read.captions:
            yield Told(examples.encoding(read).cpu(), read.captions)
    if rejected:
        counts = len(rejected), len(rows)
        logger.warning("%s: %d of %d examples cannot be used; the first: %s", examples.name, *counts, rejected[0])


def sample(examples: Examples, seed: int, count: int) -> Float[Tensor, "vectors d_encoder"]:
    """About `count` vectors, in float32: all positions of examples that are drawn by the seed."""
    drawn = np.random.default_rng(seed).permutation(len(examples))[: max(1, count // examples.n_positions)]
    reads = ahead(examples.read, np.array_split(np.sort(drawn), -(-len(drawn) // 64)))
    return torch.cat([examples.encoding(read).cpu().float().flatten(0, 1) for read in reads])


def ahead(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map`, in a thread that is `AHEAD` items in front."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for item in items:
                waiting.append(reader.submit(read, item))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # of a reader that stopped early
                future.cancel()


def keys_shown(keys: Sequence[str], most: int = 8) -> str:
    """Names of examples for a message."""
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
