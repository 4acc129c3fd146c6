"""The one exception that means: the arguments or the inputs are wrong, and here is what to do about it."""

import operator
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(Exception):
    """Arguments or inputs are wrong. `str(error)` is one line: what is wrong, where, and what to do.

    Commands print that line and exit with status 2; everything else that is raised is a failure of the work (status 1).
    """

    def __init__(self, message: str) -> None:
        # Messages quote what other libraries said, and some of those speak in several lines.
        super().__init__(" ".join(message.split()))


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """The known names most like `name`, for the end of an error message; the whole list where nothing is alike."""
    known = sorted(known)
    return ", ".join(get_close_matches(name, known, n=n, cutoff=0.5) or known)


def check_at_least_one(**counts: Any) -> None:
    """Refuse a number of things that is no whole number from 1 on; None, which is nobody's choice, passes.

    Raises:
        InputError: it names the argument.
    """
    for name, count in counts.items():
        if count is None:
            continue
        try:
            whole = operator.index(count)  # numpy's whole numbers too
        except TypeError:
            raise InputError(f"{name} {count!r}: expected a whole number, at least 1") from None
        if whole < 1:
            raise InputError(f"{name} {count}: expected at least 1")
