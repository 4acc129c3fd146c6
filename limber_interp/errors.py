"""The one exception that means: the arguments or the inputs are wrong, and here is what to do about it."""

from collections.abc import Iterable
from difflib import get_close_matches


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
