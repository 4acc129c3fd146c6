"""Nothing is lost: no command writes over what it reads, over another of its results, or over what is not its own.

Two paths are one file if they lead to the same place by links, by another spelling of upper and lower case, or as two
names of one inode. An existing file is replaced only where an earlier run wrote it: yesterday's figure makes room for
today's, a photo of the same name does not.
"""

import os
import re
import unicodedata
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import NamedTuple

from limber_interp.errors import InputError
from limber_interp.records import WRITER

HEAD = 65_536  # bytes, in which a file says who wrote it; a PDF says so at its end
# Figures of earlier versions carry what Matplotlib writes by itself
DRAWN_BY = (WRITER.encode(), b"Matplotlib")
RECORD = re.compile(rb'\s*\{\s*"command"\s*:\s*"(\w+)"')  # how the JSON of every command begins


class NamedPath(NamedTuple):
    """A path, and what it is: the option that names it, for a message."""

    said: str
    path: Path


def check_overwriting(inputs: Iterable[NamedPath], outputs: Iterable[NamedPath]) -> None:
    """Raise InputError where an output is an input or another output. They need not exist."""
    read = {identity: file for file in inputs for identity in _identities(file.path)}
    written: dict[Hashable, NamedPath] = {}
    for output in outputs:
        identities = _identities(output.path)
        for found in filter(None, map(read.get, identities)):
            also = "" if found.path == output.path else f" {found.path}"
            raise InputError(
                f"{output.said} {output.path}: is read by this command ({found.said}{also}); name another path to write"
            )
        # Disks differ in whether they tell `A` from `a`, or é in one character from é in two. Of what is there an inode
        # tells; of what is not there yet both are taken for the same everywhere
        spelt = unicodedata.normalize("NFC", str(identities[0])).casefold()
        for identity in (spelt, *identities[1:]):
            if (other := written.setdefault(identity, output)) is not output:
                raise InputError(f"{output.said} {output.path} and {other.said} {other.path} are one file; name two")


def check_replaceable(output: NamedPath) -> None:
    """Raise InputError if a file is there that is neither empty nor a result of this package."""
    if output.path.is_file() and not is_ours(output.path):
        raise InputError(
            f"{output.said} {output.path}: a file is there that limber_interp did not write; move it away, or name "
            "another"
        )


def is_ours(path: Path) -> bool:
    """Whether a file is empty, or says that this package wrote it: a figure, a page or a record as JSON.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            whole = head + file.read() if path.suffix.lower() == ".pdf" else head
    except OSError as error:
        raise InputError(f"{path}: is there and cannot be read: {error.strerror}; name another file") from error
    if record := RECORD.match(head):
        return (Path(__file__).parent / f"{record[1].decode()}.py").is_file()  # one of our commands
    return not head or any(mark in whole for mark in DRAWN_BY)


def _identities(path: Path) -> tuple[Hashable, ...]:
    """Where a path leads, and the inode if something is there: two that are one file have one of them in common."""
    try:
        where = os.path.realpath(path)
    except ValueError:  # no name of a file at all
        return (str(path),)
    try:
        stat = os.stat(where)
    except OSError:
        return (where,)
    return where, (stat.st_dev, stat.st_ino)
