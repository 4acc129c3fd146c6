"""WebDataset shards, as img2dataset writes them: tar files in which the members of one name are one example."""

import contextlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limber_interp.datasets.base import Example, Rejected, told
from limber_interp.errors import InputError

IMAGES = frozenset({"jpg", "jpeg", "png", "webp"})
TEXTS = frozenset({"txt", "json"})


@dataclass
class Entry:
    """Where an example lies in its shard: ending -> (offset, size). `unusable` says why there is none."""

    shard: Path
    key: str
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    unusable: str | None = None

    @property
    def complete(self) -> bool:
        return bool(self.members.keys() & IMAGES) and bool(self.members.keys() & TEXTS)

    def read(self, ending: str) -> bytes:
        offset, size = self.members[ending]
        with self.shard.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class TarDataset:
    """Uncompressed `.tar` shards. The caption is in `<key>.txt` or, without one, in `<key>.json` as `caption` or
    `captions`.

    The headers are read once, the members then by their offsets, so that any example can be reached. A torn shard keeps
    what lies whole before the tear, and has one entry for the rest, which is rejected.

    Raises:
        InputError: a shard that is not there, or no example at all.
    """

    def __init__(self, shards: Sequence[str | Path], name: str) -> None:
        self.shards = [Path(shard) for shard in shards]
        self.name = name
        self.entries = [entry for shard in self.shards for entry in _index(shard)]
        if not self.entries:
            raise InputError(f"{name}: no .jpg, .png or .webp with a .txt or .json in its shards")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Example:
        entry = self.entries[index]
        if entry.unusable is not None:
            raise Rejected(entry.key, entry.unusable)
        images = sorted(entry.members.keys() & IMAGES)
        if len(images) != 1:
            raise Rejected(entry.key, f"several images: {', '.join(images)}" if images else "no image")
        return Example(entry.read(images[0]), told(entry.key, _captions(entry)), key=entry.key)

    def files(self) -> Iterator[Path]:
        yield from self.shards


def _index(shard: Path) -> list[Entry]:
    """The examples of a shard, in the order in which their first members lie in it."""
    entries: dict[str, Entry] = {}
    last, whole = None, False
    try:
        size = shard.stat().st_size
        # What tarfile cannot read on from, it takes for the end or raises: either way the end is not where it should be
        with contextlib.suppress(tarfile.ReadError), tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.offset_data + member.size > size:
                    break
                folder, slash, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")  # as webdataset splits it: at the first dot
                if not member.isreg() or (ending := ending.lower()) not in IMAGES | TEXTS:
                    continue
                key = f"{shard.name}/{folder}{slash}{stem}"
                last = entries.setdefault(key, Entry(shard, key))
                if ending in last.members:
                    last.unusable = f"several members {stem}.{ending}"
                last.members[ending] = (member.offset_data, member.size)
            whole = _ends(shard, tar.offset)
    except OSError as error:
        raise InputError(f"{shard}: cannot be read: {error.strerror}") from error
    if not whole:
        if last is not None and not last.complete:  # the tear took the rest of it
            del entries[last.key]
        reason = f"torn, or no tar file: {len(entries)} examples lie whole before the tear"
        entries[shard.name] = Entry(shard, shard.name, unusable=reason)
    return list(entries.values())


def _ends(shard: Path, offset: int) -> bool:
    """Whether the mark that ends an archive, a block of zeros, stands there."""
    with shard.open("rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _captions(entry: Entry) -> list[Any]:
    try:
        if "txt" in entry.members:
            return [entry.read("txt").decode("utf-8").strip()]
        if "json" not in entry.members:
            return []
        record = json.loads(entry.read("json"))
        return record["captions"] if isinstance(record.get("captions"), list) else [record.get("caption")]
    except (ValueError, AttributeError) as error:
        raise Rejected(entry.key, f"its caption cannot be read: {error}") from error
