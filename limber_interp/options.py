"""What the options of commands are: marks beside their types, by which all of them are checked before any work.

k: Annotated[int, at_least(1)] = 5
data: Annotated[Path, READ]
html: Annotated[Path | None, WRITTEN] = None
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from limber_interp.errors import InputError

M = TypeVar("M")


class Use(Enum):
    """What a command does with the files or folders that an option names.

    A file that is READ is never written over. One that is WRITTEN is the command's result. A folder in which a command
    writes several files is a PLACE: the command's `outputs()` says which they are.
    """

    READ = auto()
    WRITTEN = auto()
    PLACE = auto()


READ, WRITTEN, PLACE = Use.READ, Use.WRITTEN, Use.PLACE


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be, from `least` to `most`; `said` is how a message names them."""

    least: float | int
    most: float | int
    said: str
    above: bool = False  # `least` itself is none of them

    def __contains__(self, value: float | int) -> bool:
        return (self.least < value if self.above else self.least <= value) and value <= self.most  # which NaN is not


def at_least(least: int, most: float | int = math.inf) -> Range:
    """Whole numbers from `least` on."""
    return Range(least, most, f"at least {least}" if most == math.inf else f"{least} to {most:g}")


TEMPERATURE = Range(0, sys.float_info.max, "0 (greedy) or a positive number")
SHARE = Range(0, 1, "more than 0, and 1 at most", above=True)


def marked(options: Any, kind: type[M]) -> Iterator[tuple[str, M, Any]]:
    """(option as it is typed, mark, value) of each option with a mark of that kind, in the order of the fields.

    What is typed without an option goes by the name of its field.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in fields(options):
        marks = getattr(hints[field.name], "__metadata__", ())
        typed = field.name if tyro.conf.Positional in marks else f"--{field.name.replace('_', '-')}"
        for mark in marks:
            if isinstance(mark, kind):
                yield typed, mark, getattr(options, field.name)


def check_numbers(options: Any) -> None:
    """Refuse numbers out of their range; None, which is nobody's choice, passes.

    Raises:
        InputError: it names the option, what was found, and what is expected.
    """
    for name, range, value in marked(options, Range):
        if value is not None and value not in range:
            raise InputError(f"{name} {value}: expected {range.said}")


def paths_of(options: Any, use: Use) -> Iterator[tuple[str, Path]]:
    """(option, path) of what is used so. URLs are left out; names that are no paths are not."""
    for name, mark, value in marked(options, Use):
        if mark is not use or value is None:
            continue
        for one in value if isinstance(value, tuple | list) else (value,):
            if "://" not in str(one):
                yield name, Path(one)
