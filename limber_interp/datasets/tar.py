"""WebDataset shards, as img2dataset writes them: tar files in which the members of one name are one example."""

import contextlib
import logging
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from limber_interp.datasets.base import IMAGES, Example, Rejected, is_sidecar, parsed, told
from limber_interp.errors import InputError

logger = logging.getLogger(__name__)

TEXTS = frozenset({"txt", "json"})
# How compressed files begin: they cannot be read from the middle
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass
class Member:
    """A file in a shard: its place (offset, size), or why it has none."""

    name: str
    place: tuple[int, int] | None
    flaw: str = ""


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
        """The content of a member.

        Raises:
            Rejected: the shard is no longer there, or shorter than it was.
        """
        offset, size = self.members[ending]
        try:
            with self.shard.open("rb") as file:
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise Rejected(self.key, f"{self.shard} cannot be read: {error.strerror}") from error
        if len(content) != size:
            raise Rejected(self.key, f"{self.shard} has become shorter since it was opened")
        return content


class TarDataset:
    """Uncompressed `.tar` shards. The caption is in `<key>.txt` or, without one, in `<key>.json` as `caption` or
    `captions`.

    The key of a member ends at the first dot of its name, as webdataset has it, so that `0.seg.png` is another field of
    the example `0`. Where there is no image `0.jpg` (or the like) the dots belong to the name instead: `photo.v1.jpg`
    and `photo.v1.txt` are the example `photo.v1`. Links within a shard are followed; of archives that were written one
    behind the other all are read. Members with other endings are not used, which is logged with their number.

    The headers are read once, the members then by their offsets, so that any example can be reached. A torn shard keeps
    what lies whole before the tear, and has one entry for the rest, which is rejected.

    Raises:
        InputError: a shard that is not there, or no example at all.
    """

    def __init__(self, shards: Sequence[str | Path], name: str) -> None:
        self.shards = [Path(shard) for shard in shards]
        self.name = name
        self.entries: list[Entry] = []
        unused: Counter[str] = Counter()
        for shard in self.shards:
            self.entries += _index(shard, unused)
        others = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in unused.most_common(5))
        others += f" and {len(unused) - 5} other endings" if len(unused) > 5 else ""
        if not self.entries:
            found = f"; found {others}" if others else ""
            raise InputError(f"{name}: no .jpg, .png or .webp with a .txt or .json in its shards{found}")
        if others:
            logger.warning("%s: members that are not used: %s", name, others)

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


def _index(shard: Path, unused: Counter[str]) -> list[Entry]:
    """The examples of a shard, in the order in which their first members lie in it; other members are counted."""
    try:
        with shard.open("rb") as file:
            found, flaw = _members(file, shard.stat().st_size)
    except OSError as error:
        raise InputError(f"{shard}: cannot be read: {error.strerror}") from error
    entries: dict[str, Entry] = {}
    last = None
    with_image = {key for key, ending in (_split(member.name, False) for member in found) if ending in IMAGES}
    for member in found:
        key, ending = _split(member.name, False)
        if "." in ending and key not in with_image:
            key, ending = _split(member.name, True)
        if ending not in IMAGES | TEXTS:
            unused[f".{ending}" if ending else ""] += 1
            continue
        key = f"{shard.name}/{key}"
        last = entries.setdefault(key, Entry(shard, key))
        if ending in last.members:
            last.unusable = f"several members {posixpath.basename(key)}.{ending}"
        elif member.place is None:
            last.unusable = f"its .{ending} {member.flaw}"
        last.members[ending] = member.place or (0, 0)
    if flaw:
        if last is not None and not last.complete:  # the tear took the rest of it
            del entries[last.key]
        entries[shard.name] = Entry(shard, shard.name, unusable=flaw.format(len(entries)))
    return list(entries.values())


def _split(name: str, at_last: bool) -> tuple[str, str]:
    """Key and ending of a member, at the first dot of its base name or at the last."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.rpartition(".") if at_last else base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _members(file: BinaryIO, size: int) -> tuple[list[Member], str]:
    """The files in a shard, and what is wrong with it where it does not go on to its end."""
    found: list[Member] = []
    targets: dict[int, str] = {}  # of the links, by their places in `found`
    begin: int | None = 0
    while begin is not None:
        start, begin = begin, -1
        file.seek(start)
        # What tarfile cannot read on from, it takes for the end or raises, with whatever its parts raise: either way
        # the end is not where it should be
        with contextlib.suppress(Exception), tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                length = 0 if member.issparse() else member.size  # a sparse one's is its size when unpacked
                # A negative size would lead back to a header that has been read, again and again
                if tar.offset < member.offset_data or member.offset_data + length > size:
                    break
                if member.isdir() or is_sidecar(member.name):
                    continue
                if member.issym() or member.islnk():
                    within = posixpath.dirname(member.name) if member.issym() else ""
                    targets[len(found)] = posixpath.normpath(posixpath.join(within, member.linkname))
                found.append(_member(member))
            else:
                begin = _next(file, tar.offset)
        if begin is not None and begin <= start:
            _follow(found, targets)
            followed = "followed by what is no tar file" if start else "no tar file"
            return found, _compressed(file) or f"torn, or {followed}: {{}} examples lie whole before the tear"
    _follow(found, targets)
    return found, ""


def _member(member: tarfile.TarInfo) -> Member:
    if member.issym() or member.islnk():
        return Member(member.name, None, f"is a link to {member.linkname}, which is no file in the shard")
    if not member.isreg() or member.issparse():
        kind = "is a sparse file; pack it without --sparse" if member.isreg() else "is no regular file"
        return Member(member.name, None, kind)
    return Member(member.name, (member.offset_data, member.size))


def _follow(found: list[Member], targets: dict[int, str]) -> None:
    """Give links the places of what they lead to, over other links where need be."""
    if not targets:
        return
    by_name = {posixpath.normpath(member.name): index for index, member in enumerate(found)}
    for link in targets:
        index: int | None = link
        for _ in range(len(targets)):  # as many steps as there are links: what goes on then goes round
            index = by_name.get(targets[index]) if index in targets else index
        if index is not None and index != link:
            found[link].place = found[index].place


def _next(file: BinaryIO, offset: int) -> int | None:
    """Where another archive begins behind the end of one (`cat a.tar b.tar`): the first block that is not of zeros.
    None where there is none, -1 where the mark of the end, a block of zeros, does not stand at `offset`.
    """
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        return -1
    offset += tarfile.BLOCKSIZE
    while chunk := file.read(2**16):
        if left := chunk.lstrip(b"\0"):
            begin = offset + len(chunk) - len(left)
            return begin - begin % tarfile.BLOCKSIZE
        offset += len(chunk)
    return None


def _compressed(file: BinaryIO) -> str:
    file.seek(0)
    begin = file.read(8)
    kinds = [kind for mark, kind in COMPRESSED.items() if begin.startswith(mark)]
    return f"compressed ({kinds[0]}); decompress it, for examples are read by their offsets" if kinds else ""


def _captions(entry: Entry) -> list[Any]:
    try:
        if "txt" in entry.members:
            return [entry.read("txt").decode("utf-8-sig").strip()]
        if "json" not in entry.members:
            return []
        record = parsed(entry.read("json"))
        return record["captions"] if isinstance(record.get("captions"), list) else [record.get("caption")]
    except (ValueError, AttributeError) as error:
        raise Rejected(entry.key, f"its caption cannot be read: {error}") from error
