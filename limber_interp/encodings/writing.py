"""Encodings of a data set: the frozen encoder's outputs, computed once, written as shards, read memory-mapped.

A folder of encodings holds, for the indices of the data set in blocks of `shard_size`,

    00000.jsonl         a line for each index: {"key", "captions"}, or {"key", "rejected": the reason}
    00000.safetensors   `encodings` (line with captions, image_pos, d_encoder) in float16; written last
    manifest.json       encoder, its hash and preprocessing, source and its fingerprint; in the end the counts
    rejected.jsonl      what was left out, over all shards
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from limber_interp.datasets import Dataset, Example, Rejected, Rejections, fingerprint
from limber_interp.encodings.lines import Line, read_lines
from limber_interp.encodings.reading import MANIFEST, MEND, REJECTED, Encodings, open_encodings, shard_paths
from limber_interp.errors import InputError, check_at_least_one, reading
from limber_interp.images import describe, load_image
from limber_interp.models.encoders import Encoder
from limber_interp.records import installed_versions, make_folder, write_atomically
from limber_interp.weights import read_json

logger = logging.getLogger(__name__)

Row = tuple[Example, Float[Tensor, "3 height width"]] | Rejected


def encode(
    encoder: Encoder,
    dataset: Dataset,
    out: str | Path,
    shard_size: int = 512,
    batch_size: int = 64,
    max_rejected: float = 0.01,
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda items, _: items,
) -> Encodings:
    """Write the encoder's outputs for a data set into the folder `out`, and open them.

    Each shard appears whole or not at all. Run again, it goes on after the last whole shard; where all are there it
    computes nothing. An image that cannot be opened is left out, as are those that the data set rejects.

    Args:
        shard_size: indices of the data set in a shard.
        max_rejected: the share of the data set above which the work stops.

    Raises:
        InputError: `shard_size` or `batch_size` is below 1, `out` holds other encodings, there is no room for these,
            too many examples are rejected, or an encoding has a number beyond float16 (its image is named).
    """
    check_at_least_one(shard_size=shard_size, batch_size=batch_size)
    out = make_folder(out)
    manifest = {
        "encoder": {"name": encoder.name, "sha256": encoder.sha256, "preprocessing": encoder.preprocessing},
        "source": {"name": dataset.name, "sha256": fingerprint(dataset), "count": len(dataset)},
        "shape": [encoder.n_positions, encoder.d_encoder],
        "shard_size": shard_size,
    }
    _check_same(out, manifest)
    rejections = Rejections(dataset.name, len(dataset), out / REJECTED, max_rejected)
    n_shards = math.ceil(len(dataset) / shard_size)
    missing = [shard for shard in range(n_shards) if not shard_paths(out, shard)[0].exists()]
    if missing:
        _check_room(out, encoder, min(len(missing) * shard_size, len(dataset)))
        _write_json(out / MANIFEST, {**manifest, "versions": installed_versions()})

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside of Python's lock
        for shard in progress(range(n_shards), "Encoding"):
            start = shard * shard_size
            weights, lines = shard_paths(out, shard)
            if not weights.exists():
                indices = range(start, min(start + shard_size, len(dataset)))
                _encode_shard(encoder, dataset, indices, weights, lines, batch_size, pool)
            for index, line in enumerate(_known(lines), start):
                if line.rejected is not None:
                    rejections.add(index, line.rejected)
            rejections.check()
    rejections.write()
    # Also where the shards are whole, but too much of them was rejected then
    if "kept" not in read_json(out / MANIFEST):
        counts = {"kept": len(dataset) - len(rejections), "rejected": len(rejections)}
        _write_json(out / MANIFEST, {**manifest, **counts, "versions": installed_versions()})
    return open_encodings(out, encoder)


def encode_once(
    encoder: Encoder,
    dataset: Dataset,
    folder: str | Path,
    max_rejected: float = 0.01,
    progress: Callable[[Iterable[int], str], Iterable[int]] = lambda items, _: items,
) -> Encodings:
    """`encode` into a folder within `folder`, named by encoder, preprocessing and data: the next time it is there.

    Raises:
        InputError: as `encode`.
    """
    described = f"{encoder.sha256} {json.dumps(encoder.preprocessing, sort_keys=True)} {fingerprint(dataset)}"
    name = f"{encoder.name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    return encode(encoder, dataset, make_folder(folder) / name, max_rejected=max_rejected, progress=progress)


def open_row(encoder: Encoder, dataset: Dataset, index: int) -> Row:
    """The example at an index, with what the encoder is given of its image; or why there is none."""
    try:
        example = dataset[index]
        return example, encoder.preprocess(load_image(example.image))
    except Rejected as rejected:
        return rejected
    except InputError as error:
        return Rejected(example.key, str(error).removeprefix(f"{describe(example.image)}: "))


@torch.no_grad()
def encode_rows(encoder: Encoder, rows: list[tuple[Example, Tensor]]) -> Float[Tensor, "batch image_pos d_encoder"]:
    """Encodings of opened examples, in float16.

    Raises:
        InputError: one has a number beyond float16; its example is named.
    """
    device = next(encoder.parameters()).device
    encoded = encoder(torch.stack([pixels for _, pixels in rows]).to(device)).half()
    if not (finite := encoded.isfinite().flatten(1).all(dim=1)).all():
        raise InputError(
            f"{rows[int(finite.int().argmin())][0].key}: its encoding is not finite in float16 (above 65,504, or NaN); "
            "check the encoder's weights"
        )
    return encoded


def _encode_shard(
    encoder: Encoder,
    dataset: Dataset,
    indices: range,
    weights: Path,
    lines: Path,
    batch_size: int,
    pool: ThreadPoolExecutor,
) -> None:
    rows: list[dict[str, Any]] = []
    encoded = [torch.empty(0, encoder.n_positions, encoder.d_encoder, dtype=torch.float16)]
    for start in range(0, len(indices), batch_size):
        batch = list(pool.map(lambda index: open_row(encoder, dataset, index), indices[start : start + batch_size]))
        good = [row for row in batch if not isinstance(row, Rejected)]
        if good:
            encoded.append(encode_rows(encoder, good).cpu())
        for row in batch:
            if isinstance(row, Rejected):
                rows.append({"key": row.key, "rejected": row.reason})
            else:
                rows.append({"key": row[0].key, "captions": row[0].captions})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(lines, lambda path: path.write_text(text, encoding="utf-8"))
    metadata = {"encoder": f"{encoder.name} {encoder.sha256}"}  # of several keys the order would be another every time
    write_atomically(weights, lambda path: save_file({"encodings": torch.cat(encoded)}, path, metadata))


def _known(lines: Path) -> list[Line]:
    with reading(lines, "cannot be read", MEND):
        return read_lines(lines)


def _check_same(out: Path, manifest: dict[str, Any]) -> None:
    if not (out / MANIFEST).exists():
        return
    found = read_json(out / MANIFEST)
    for key, value in manifest.items():
        if found.get(key) != value:
            raise InputError(
                f"{out}: holds encodings of another {key}: found {json.dumps(found.get(key))}, expected "
                f"{json.dumps(value)}; name another folder"
            )


def _check_room(out: Path, encoder: Encoder, count: int) -> None:
    """Say what will be written before it is, and refuse what does not fit."""
    needed, free = 2 * count * encoder.n_positions * encoder.d_encoder, shutil.disk_usage(out).free
    size = f"{needed / 2**30:.3f} GiB"
    logger.info(
        "%s: %d images x %d positions x %d x 2 bytes = %s; free: %.1f GiB",
        out, count, encoder.n_positions, encoder.d_encoder, size, free / 2**30,
    )  # fmt: skip
    if needed > free:
        raise InputError(f"{out}: encodings take {size}, {free / 2**30:.3f} GiB are free; name another disk's folder")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(value, indent=1), encoding="utf-8"))
