"""Reading encodings from the shards that `encode` wrote: by index, memory-mapped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Int
from safetensors import safe_open

from limber_interp.datasets import Rejected, Rejections
from limber_interp.datasets.base import is_file
from limber_interp.encodings.lines import read_lines
from limber_interp.errors import InputError, reading
from limber_interp.models.encoders import Encoder
from limber_interp.weights import read_json

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
AGAIN = "encode the data again into another folder"
MEND = "remove the two files of this number, and run limber_interp.encode again"


class Encodings:
    """Captions and encodings of a data set by its own indices, which rejected examples keep.

    Attributes:
        manifest: what the shards were made with.
        kept: whether there is an example at each index.
        rejected: index -> why there is none.
        keys: name of the example at each index.
        n_positions, d_encoder: of an encoding.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder of shards.

        Raises:
            InputError: no such folder, an unfinished one, or a shard that cannot be read.
        """
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_json(self.folder / MANIFEST)
        if problem := _wrong(self.manifest):
            raise InputError(f"{self.folder / MANIFEST}: not of encodings: {problem}; {AGAIN}")
        if "kept" not in self.manifest:
            raise InputError(f"{folder}: unfinished encodings; run limber_interp.encode again, and it goes on")
        self.name: str = self.manifest["source"]["name"]
        self.n_positions, self.d_encoder = self.manifest["shape"]
        self._shard_size: int = self.manifest["shard_size"]
        count: int = self.manifest["source"]["count"]
        self.rejected: dict[int, Rejected] = {}
        self.keys: list[str] = []
        self._captions: list[tuple[str, ...]] = []
        self._row: list[int] = []  # of each index in its shard
        self._shards: list[Any] = []
        # One by one: a manifest that names a billion of them ends at the first that is not there
        for shard in range(-(-count // self._shard_size)):
            self._shards.append(self._open(shard, min(self._shard_size, count - shard * self._shard_size)))
        self.kept = np.array([bool(captions) for captions in self._captions], dtype=bool)
        encoded = sum(shard.get_shape()[0] for shard in self._shards)
        if self.manifest["kept"] != encoded:
            raise InputError(f"{folder}: {encoded} encodings, but the manifest says {self.manifest['kept']}; {AGAIN}")

    def __len__(self) -> int:
        return len(self._captions)

    def captions(self, index: int | np.integer) -> tuple[str, ...]:
        """Captions of the example at an index; none if it was rejected."""
        return self._captions[index]

    def encoding(self, rows: Int[np.ndarray, " rows"]) -> Float16[np.ndarray, "rows image_pos d_encoder"]:
        """Encodings at indices, in their order; each one is read from the disk on its own.

        Raises:
            InputError: an index whose example was rejected.
        """
        found = np.empty((len(rows), self.n_positions, self.d_encoder), dtype=np.float16)
        for place, index in enumerate(rows.tolist()):
            if index in self.rejected:
                raise InputError(f"{self.folder}: no encoding at index {index}: {self.rejected[index]}")
            row = self._row[index]
            found[place] = self._shards[index // self._shard_size][row : row + 1][0]
        return found

    def rejections(self, path: Path, max_rejected: float = 0.01) -> Rejections:
        """What was left out, to be listed at `path`."""
        rejections = Rejections(self.name, len(self), path, max_rejected)
        for index, rejected in self.rejected.items():
            rejections.add(index, rejected)
        return rejections

    @property
    def shape(self) -> tuple[int, int, int]:
        """(kept example, image_pos, d_encoder), of what slices give."""
        return int(self.kept.sum()), self.n_positions, self.d_encoder

    def __getitem__(self, block: slice) -> Float16[np.ndarray, "rows image_pos d_encoder"]:
        """Encodings of a block of the kept examples, in the order of their indices."""
        return self.encoding(np.flatnonzero(self.kept)[block])

    def _open(self, shard: int, count: int) -> Any:
        weights, lines = shard_paths(self.folder, shard)
        with reading(lines, "cannot be read", MEND):
            rows = read_lines(lines)
        n_kept = 0
        for index, line in enumerate(rows, shard * self._shard_size):
            self._row.append(n_kept)
            self.keys.append(line.key)
            self._captions.append(line.captions)
            if line.rejected is not None:
                self.rejected[index] = line.rejected
            n_kept += line.encoded
        with reading(weights, "cannot be read", MEND):
            encodings = safe_open(weights, framework="numpy").get_slice("encodings")
            shape, dtype = list(encodings.get_shape()), encodings.get_dtype()
        expected = [n_kept, self.n_positions, self.d_encoder]
        if len(rows) != count or shape != expected or dtype != "F16":
            found = f"{len(rows)} lines and encodings {shape} in {dtype}"
            raise InputError(f"{weights}: found {found}, expected {count} and {expected} in F16; {MEND}")
        return encodings


def _wrong(manifest: Mapping[str, Any]) -> str | None:
    """What of a manifest is not as `encode` writes it."""

    def count(value: object, least: int = 1) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**48

    encoder, source, shape = (manifest.get(key) for key in ("encoder", "source", "shape"))
    if not (isinstance(encoder, dict) and isinstance(encoder.get("preprocessing"), dict)):
        return "no encoder with its preprocessing"
    if not all(isinstance(encoder.get(key), str) for key in ("name", "sha256")):
        return "no name or sha256 of the encoder"
    if not (isinstance(source, dict) and isinstance(source.get("name"), str) and count(source.get("count"), 0)):
        return "no source with a name and a count"
    if not (isinstance(shape, list) and len(shape) == 2 and all(map(count, shape))):
        return f"shape {shape!r}"
    if not count(manifest.get("shard_size")):
        return f"shard_size {manifest.get('shard_size')!r}"
    return None if count(manifest.get("kept", 0), 0) else f"kept {manifest['kept']!r}"


def open_encodings(folder: str | Path, encoder: Encoder | None = None) -> Encodings:
    """Encodings from a folder that `encode` wrote.

    Args:
        encoder: the one that they have to be of.

    Raises:
        InputError: no such folder, an unfinished one, or encodings of another encoder or preprocessing.
    """
    encodings = Encodings(folder)
    if encoder is not None:
        found = encodings.manifest["encoder"]
        if found["sha256"] != encoder.sha256:
            raise InputError(
                f"{folder}: encodings of {found['name']} (sha256 {found['sha256'][:12]}), but the encoder is "
                f"{encoder.name} (sha256 {encoder.sha256[:12]}); encode the data with it into another folder"
            )
        if found["preprocessing"] != json.loads(json.dumps(encoder.preprocessing)):
            raise InputError(
                f"{folder}: images were preprocessed as {json.dumps(found['preprocessing'])}, but {encoder.name} "
                f"takes {json.dumps(encoder.preprocessing)}; encode the data again into another folder"
            )
    return encodings


def is_encodings(folder: str | Path) -> bool:
    """Whether a path is a folder of encodings."""
    return is_file(Path(folder) / MANIFEST)


def shard_paths(folder: Path, shard: int) -> tuple[Path, Path]:
    """Of a shard's encodings, and of the lines on its examples."""
    return folder / f"{shard:05d}.safetensors", folder / f"{shard:05d}.jsonl"
