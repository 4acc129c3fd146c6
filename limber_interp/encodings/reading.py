"""Reading encodings from the shards that `encode` wrote: by index, memory-mapped."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float16, Int
from safetensors import SafetensorError, safe_open

from limber_interp.datasets import Rejected, Rejections
from limber_interp.datasets.base import flaw, one_line, parsed, shown
from limber_interp.errors import InputError
from limber_interp.models.encoders import Encoder
from limber_interp.weights import read_json

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
MEND = "remove the two files of this number, and run limber_interp.encode again"


class Line(NamedTuple):
    """What a shard says of an example.

    Attributes:
        captions: none where it is rejected.
        encoded: whether it has a row of encodings, which one may have that is rejected by now.
    """

    key: str
    captions: tuple[str, ...]
    rejected: Rejected | None
    encoded: bool


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
        try:
            source = self.manifest["source"]
            self.name: str = source["name"]
            self.n_positions, self.d_encoder = self.manifest["shape"]
            self._shard_size: int = self.manifest["shard_size"]
            count: int = source["count"]
            encoder = self.manifest["encoder"]
            texts = self.name, encoder["name"], encoder["sha256"]
            numbers = count, self._shard_size, self.n_positions, self.d_encoder
            if not all(isinstance(text, str) for text in texts) or not isinstance(encoder["preprocessing"], dict):
                raise ValueError("a name is no text, or the preprocessing no object")
            if not all(isinstance(number, int) and number > 0 for number in numbers):
                raise ValueError("a number is none, or below 1")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.folder / MANIFEST}: not of encodings: {error!r}") from error
        if "kept" not in self.manifest:
            raise InputError(f"{folder}: unfinished encodings; run limber_interp.encode again, and it goes on")
        self.rejected: dict[int, Rejected] = {}
        self.keys: list[str] = []
        self._captions: list[tuple[str, ...]] = []
        self._row: list[int] = []  # of each index in its shard
        starts = range(0, count, self._shard_size)
        self._shards = [self._open(i, min(self._shard_size, count - start)) for i, start in enumerate(starts)]
        self.kept = np.array([bool(captions) for captions in self._captions])

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
        try:
            rows = read_lines(lines)
            n_kept = 0
            for index, line in enumerate(rows, shard * self._shard_size):
                self._row.append(n_kept)
                self.keys.append(line.key)
                self._captions.append(line.captions)
                if line.rejected is not None:
                    self.rejected[index] = line.rejected
                n_kept += line.encoded
            encodings = safe_open(weights, framework="numpy").get_slice("encodings")
        except (OSError, ValueError, SafetensorError) as error:
            raise InputError(f"{weights}: cannot be read: {error}; {MEND}") from error
        expected = [n_kept, self.n_positions, self.d_encoder]
        if len(rows) != count or encodings.get_shape() != expected:
            found = f"{len(rows)} lines and encodings {encodings.get_shape()}"
            raise InputError(f"{weights}: found {found}, expected {count} and {expected}; {MEND}")
        return encodings


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
    return (Path(folder) / MANIFEST).is_file()


def read_lines(path: Path) -> list[Line]:
    """What a shard's lines say of its examples.

    Captions are read by the rules of the data sets, whatever they were when they were stored: those that cannot be used
    reject their example, which keeps its row of encodings.

    Raises:
        OSError, ValueError: the file cannot be read, or a line in it is none that `encode` writes.
    """
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match parsed(text):
            case {"key": str() as key, "rejected": str() as reason}:
                found.append(Line(key, (), Rejected(key, reason), encoded=False))
            case {"key": str() as key, "captions": [_, *_] as told} if all(isinstance(said, str) for said in told):
                flaws = [f"a caption {why}: {shown(said)}" for said in told if (why := flaw(said))]
                captions = () if flaws else tuple(map(one_line, told))
                found.append(Line(key, captions, Rejected(key, flaws[0]) if flaws else None, encoded=True))
            case other:
                raise ValueError(f"line {number} of {path.name} is none of an example: {shown(other)}")
    return found


def shard_paths(folder: Path, shard: int) -> tuple[Path, Path]:
    """Of a shard's encodings, and of the lines on its examples."""
    return folder / f"{shard:05d}.safetensors", folder / f"{shard:05d}.jsonl"
