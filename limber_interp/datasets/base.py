"""What every format gives: examples by index, or the reason why there is none at that index."""

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from limber_interp.errors import InputError
from limber_interp.records import write_atomically

# Hashed into every fingerprint. To be raised whenever the same files give other captions than before, such that
# encodings that were stored under earlier rules are not taken for those of the data as they are read now
RULES = 2

# Endings of whatever is meant to be an image, so that one which cannot be opened is listed and does not vanish
IMAGES = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "pgm"})
IMAGES |= {"avif", "heic", "heif", "jxl"}

FLAWS = re.compile(
    r"(?P<surrogate>[\ud800-\udfff])"
    r"|(?P<control>[\x00-\x08\x0e-\x1b\x7f])"  # the others of the first 32 are white space
    r"|(?P<mark><\|\w+\|>)"
)
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 100
_SHOWN.maxdict = _SHOWN.maxlist = 12


@dataclass(frozen=True)
class Example:
    """A captioned image.

    Attributes:
        image: a path, or the bytes of an image file; not opened yet.
        metadata: the source's own, e.g. the facts of a drawn scene.
        key: its name within the data set, for messages.
    """

    image: Path | bytes
    captions: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    key: str = ""


class Rejected(Exception):
    """An example that cannot be used, and why. Nothing is put in its place, and nothing moves up to it."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(one_line(f"{key}: {reason}"))
        self.key = key
        self.reason = one_line(reason)


@runtime_checkable
class Dataset(Protocol):
    """Captioned images by index. The same files give the same indices, whatever of them cannot be used."""

    @property
    def name(self) -> str:
        """Where it comes from, for messages and manifests."""

    def __len__(self) -> int:
        """Number of indices, those of examples that cannot be used included."""

    def __getitem__(self, index: int) -> Example:
        """The example at an index. Its image is not decoded, so that it may still turn out to be broken.

        Raises:
            Rejected: no image, no caption, or an empty one.
        """

    def files(self) -> Iterator[Path]:
        """The files that it reads, there or not."""


def one_line(text: str) -> str:
    """The text with each run of white space (blanks, tabs, line breaks) as one blank, and none at its ends.

    Every reader gives captions, questions and answers like this, so that a model learns words and not the layout of a
    file.
    """
    return " ".join(text.split())


def flaw(text: str) -> str | None:
    """Why a text cannot be used, or None where it can: what a tokenizer refuses, loses or takes for something else.

    That is half of a surrogate pair (tokenizers raise a TypeError), a control character other than white space (a
    sign of damage; terminals and figures act on it or drop it), and a token's name such as `<|endoftext|>` (it
    becomes that one token, which ends the caption).
    """
    match FLAWS.search(text):
        case None:
            return None
        case found if found.lastgroup == "mark":
            return f"has {found[0]}, which is a token's name and no text"
        case found:
            kind = "half of a surrogate pair" if found.lastgroup == "surrogate" else "the control character"
            return f"has {kind} (U+{ord(found[0]):04X}) at character {found.start()}"


def shown(value: Any) -> str:
    """A value for a message: its repr, cut where it is long."""
    return _SHOWN.repr(value)


def told(key: str, captions: Iterable[Any]) -> tuple[str, ...]:
    """The captions of an example, each in one line (see `one_line`). One that cannot be used rejects them all: which
    caption an example is told in training is drawn, and would be drawn from fewer without a word.

    Raises:
        Rejected: there is none, or one is no text, empty, or nothing that can be tokenized (see `flaw`).
    """
    captions = tuple(captions)
    if not captions:
        raise Rejected(key, "no caption")
    for caption in captions:
        if not isinstance(caption, str) or not caption.strip():
            raise Rejected(key, f"a caption is empty or no text: {shown(caption)}")
        if reason := flaw(caption):
            raise Rejected(key, f"a caption {reason}: {shown(caption)}")
    return tuple(map(one_line, captions))


def parsed(content: str | bytes) -> Any:
    """The value of a JSON text, in UTF-8 (with or without a byte order mark) where it is bytes.

    Raises:
        ValueError: it is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_file(path: str | Path) -> bool:
    """Whether a file is there. Unlike `Path.is_file`, False also for a name that none can have: too long, with NUL."""
    return os.path.isfile(path)


def is_sidecar(name: str | Path) -> bool:
    """Whether a file is one of those that macOS puts beside others (`._photo.jpg`, `__MACOSX/…`): never an example."""
    *folders, last = os.fspath(name).split("/")
    return last.startswith("._") or "__MACOSX" in folders


def fingerprint(dataset: Dataset) -> str:
    """sha256 of the paths, sizes and times of the files, and of the rules by which they are read: another one where
    something may have changed."""
    digest = hashlib.sha256(f"{len(dataset)} {RULES}\n".encode())
    for path in dataset.files():
        try:
            stat = path.stat()
            state = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except (OSError, ValueError):  # ValueError: a name with NUL, or one that the file system cannot encode
            state = "not there"
        digest.update(os.path.abspath(path).encode("utf-8", "surrogatepass") + f"\0{state}\n".encode())
    return digest.hexdigest()


class Rejections:
    """What of a data set was left out: counted, listed with its reasons, and refused where it is too much.

    Args:
        source: name of the data set.
        count: of all its indices.
        path: where `write` lists them, a JSON object per line: source, index, key, reason; sorted by index.
        max_rejected: the share of `count` above which `check` raises.
    """

    def __init__(self, source: str, count: int, path: Path, max_rejected: float = 0.01) -> None:
        self.source = source
        self.count = count
        self.path = path
        self.max_rejected = max_rejected
        self._found: dict[int, Rejected] = {}

    def __len__(self) -> int:
        return len(self._found)

    def add(self, index: int, rejected: Rejected) -> None:
        self._found[index] = rejected

    def rows(self) -> list[tuple[int, str, str]]:
        """(index, key, reason) of each, by index: plain values, to be sent or stored."""
        return [(index, rejected.key, rejected.reason) for index, rejected in sorted(self._found.items())]

    def extend(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Add what `rows` gave, of this run earlier or of another process."""
        for index, key, reason in rows:
            self.add(index, Rejected(key, reason))

    def write(self) -> None:
        """List them, the file whole or as it was before.

        Raises:
            InputError: the path cannot be written.
        """
        rows = [
            {"source": self.source, "index": index, "key": key, "reason": reason} for index, key, reason in self.rows()
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.path, lambda temporary: temporary.write_text(lines, encoding="utf-8"))

    def check(self) -> None:
        """Raise InputError, with the list written, if there are more than `max_rejected` of all."""
        if len(self) > self.max_rejected * self.count:
            self.write()
            raise InputError(
                f"{self.source}: {len(self)} of {self.count} examples cannot be used, more than --max-rejected "
                f"{100 * self.max_rejected:g}%; the first: {self._found[min(self._found)]}; all: {self.path}"
            )
