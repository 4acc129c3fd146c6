"""Captioned images from disk, their encodings (computed once, kept in a file), and the order in which they are seen."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from limber_interp.datasets import Example as Example
from limber_interp.datasets import read_folder as read_folder
from limber_interp.errors import InputError
from limber_interp.images import describe, load_image
from limber_interp.models.limber import Limber
from limber_interp.models.vocabulary import Vocabulary
from limber_interp.records import make_folder, write_atomically

IGNORED = -100  # a label that counts for no loss, as torch's cross entropy has it


def encodings(
    model: Limber,
    examples: Sequence[Example],
    folder: str | Path,
    batch_size: int = 64,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> np.ndarray:
    """The frozen encoder's output for every example, (example, image_pos, d_encoder) in float16, memory-mapped.

    Computed once per encoder, its preprocessing and set of image files, and kept in `folder` under a name made of all
    three; the file appears there whole or not at all.

    Raises:
        InputError: an image that cannot be opened (it is named; nothing is put in its place), a number beyond float16,
            or no room in `folder`.
    """
    described = f"{model.encoder.sha256} {json.dumps(model.encoder.preprocessing, sort_keys=True)}"
    key = hashlib.sha256(described.encode())
    for example in examples:
        assert isinstance(example.image, Path)
        stat = example.image.stat()
        key.update(f"{example.image.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    folder = make_folder(folder)
    path = folder / f"{model.encoder.name}-{key.hexdigest()[:16]}.npy"
    if not path.exists():
        shape = (len(examples), model.encoder.n_positions, model.encoder.d_encoder)
        needed, free = 2 * math.prod(shape), shutil.disk_usage(folder).free
        if needed > free:  # a memory map on a full disk kills the process
            raise InputError(f"{folder}: encodings take {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free")

        def write(temporary: Path) -> None:
            stored = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
            for start in progress(range(0, len(examples), batch_size)):
                images = [load_image(example.image) for example in examples[start : start + batch_size]]
                encoded = model.encode(images).half()
                if not (finite := encoded.isfinite().flatten(1).all(dim=1)).all():
                    image = describe(examples[start + int(finite.int().argmin())].image)
                    raise InputError(
                        f"{image}: its encoding is not finite in float16 (above 65,504, or NaN); "
                        "check the encoder's weights"
                    )
                stored[start : start + len(images)] = encoded.cpu().numpy()
            stored.flush()

        write_atomically(path, write)
    return np.load(path, mmap_mode="r")


def order(count: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of indices. Every epoch is a new permutation, drawn from the seed; none is seen twice before all
    have been seen once, and a batch may straddle two epochs."""
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def share(batch: Int[np.ndarray, " batch"], rank: int, world_size: int) -> Int[np.ndarray, " share"]:
    """A rank's part of a global batch: the ranks' parts are disjoint, cover it, and differ by at most one in size."""
    return batch[rank::world_size]


def caption_tokens(
    vocabulary: Vocabulary, captions: Sequence[str], limit: int
) -> tuple[Int[Tensor, "batch text_pos"], Int[Tensor, "batch text_pos"]]:
    """Token ids and labels of captions, padded on the right: each caption's tokens, then one end of text.

    Labels are the ids up to and with the end of text, `IGNORED` after it. A caption of more than `limit` positions is
    cut there, and then has no end of text to learn.
    """
    told = [[*vocabulary.encode(caption), vocabulary.eos][:limit] for caption in captions]
    width = max(map(len, told))
    ids = torch.full((len(told), width), vocabulary.eos)
    labels = torch.full((len(told), width), IGNORED)
    for row, tokens in enumerate(told):
        ids[row, : len(tokens)] = labels[row, : len(tokens)] = torch.tensor(tokens)
    return ids, labels
