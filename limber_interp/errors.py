"""The one exception that means: the arguments or the inputs are wrong, and here is what to do about it."""

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

LINE = 2000  # characters of a message
LONGEST = 400  # characters of what a library said


class InputError(Exception):
    """Arguments or inputs are wrong. `str(error)` is one line: what is wrong, where, and what to do.

    Commands print that line and exit with status 2; everything else that is raised is a failure of the work (status 1).
    """

    def __init__(self, message: str) -> None:
        # Messages quote what other libraries said, and some of those speak in several lines.
        line = " ".join(message.split())
        # … and some quote a whole broken file: what is wrong stands at the beginning, what to do at the end
        super().__init__(line if len(line) <= LINE else f"{line[: LINE * 3 // 4]} … {line[-LINE // 4 :]}")


@contextmanager
def reading(source: object, wrong: str, advice: str = "") -> Iterator[None]:
    """Turn whatever a library raises over a file into one InputError: `source: wrong: reason; advice`.

    A library that reads a broken file raises nearly anything (`IndexError`, `struct.error`, `zlib.error`, an assertion,
    a panic of compiled code), and another thing in its next version; a list of exceptions is never whole. So everything
    is taken for the file's fault. Put only the library's call and checks of what it gave inside, since a mistake in our
    own code would be taken for a broken file, too. InputErrors pass as they are, and so does what is no failure
    (`KeyboardInterrupt`, `SystemExit`).

    Args:
        source: the file, or what else was read.
        wrong: what is the matter, such as "not a record of limber_interp".
        advice: what to do about it.

    Raises:
        InputError: something was raised inside.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        # A panic is how compiled Rust fails; it is no Exception, and its class cannot be imported
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{source}: {wrong}: {reason(error)}{advice and f'; {advice}'}") from error


def reason(error: BaseException) -> str:
    """The first line of what an exception says, bounded; with its type where the text alone would be a riddle."""
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    said = str(error).strip().partition("\n")[0]
    if not said or isinstance(error, ArithmeticError | AssertionError | AttributeError | LookupError | TypeError):
        said = f"{type(error).__name__} {said}".strip()
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"


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
