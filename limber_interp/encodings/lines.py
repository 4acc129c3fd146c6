"""What a shard of encodings says of each example: the lines beside its numbers."""

from pathlib import Path
from typing import NamedTuple

from limber_interp.datasets import Rejected
from limber_interp.datasets.base import flaw, one_line, parsed, shown


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
