"""Captioned images from disk, their encodings (computed once, kept in a file), and the order in which they are seen."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from limber_interp.errors import InputError
from limber_interp.images import load_image
from limber_interp.models.limber import Limber
from limber_interp.models.vocabulary import Vocabulary
from limber_interp.records import make_folder, write_atomically

IGNORED = -100  # a label that counts for no loss, as torch's cross entropy has it


@dataclass(frozen=True)
class Example:
    """A captioned image. `metadata` is the file's own, e.g. the facts of a drawn scene."""

    image: Path
    captions: tuple[str, ...]
    metadata: dict[str, Any]


def read_folder(folder: str | Path) -> list[Example]:
    """Read LIMBER's folder format: `image_data/<n>/<id>.json` with `captions`, and perhaps `image_path`, `metadata`.

    Where `image_path` (relative to the folder) is missing, the image is `images/<n>/<id>.jpg` or `images/<id>.jpg`.

    Raises:
        InputError: no such folder, a file that is not such a record, an image that is not there, or no caption.
    """
    folder = Path(folder)
    files = sorted((folder / "image_data").glob("*/*.json"))
    if not files:
        raise InputError(f"{folder}: no image_data/<n>/<id>.json in it; name a folder in LIMBER's format")
    return [_read_example(folder, file) for file in files]


def _read_example(folder: Path, file: Path) -> Example:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(record["captions"], list):  # a bare string would be read as one caption per letter
            raise TypeError("captions is no list")
        captions = tuple(str(caption) for caption in record["captions"])
        named = record.get("image_path")
        metadata = record.get("metadata") or {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f'{file}: not a record {{"image_path", "captions", "metadata"}}: {error!r}') from error
    if not captions or not all(caption.strip() for caption in captions):
        raise InputError(
            f"{file}: a caption is empty or there is none; give each image at least one, or remove the file"
        )
    candidates = [folder / named] if named else [
        folder / "images" / file.parent.name / f"{file.stem}.jpg", folder / "images" / f"{file.stem}.jpg"
    ]  # fmt: skip
    for image in candidates:
        if image.is_file():
            return Example(image, captions, metadata)
    raise InputError(f"{file}: its image {candidates[0]} is not there; put it there, or remove the file")


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
                    raise InputError(
                        f"{examples[start + int(finite.int().argmin())].image}: its encoding is not finite in float16 "
                        "(above 65,504, or NaN); check the encoder's weights"
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
