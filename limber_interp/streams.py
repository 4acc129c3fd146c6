"""Standard output and standard error of a command: what cannot be shown is escaped, and what is lost is said."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from limber_interp.errors import InputError


class Unwritten(Exception):
    """Results did not get out. `str(error)` is one line: where, and why."""


def say(line: str) -> None:
    """Write a line to standard error, if anyone listens there."""
    with contextlib.suppress(OSError, ValueError):  # a full disk, a reader that has gone, a stream that was closed
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Within it a character that a stream's encoding lacks is written as its escape, `\\u2423`, and is no error.

    Where standard error was closed (`2>&-`), nothing else gets its number: the next file to be opened would be taken
    for it by libraries that write to it.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (it stays open as long as the process)
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    _escaping(streams, ["backslashreplace"] * len(streams))
    try:
        yield
    finally:
        _escaping(streams, before)


def check_standard_output() -> None:
    """Raise InputError where there is none: what is opened next would get its number, and results would get lost."""
    if sys.stdout is None:
        raise InputError("standard output is closed, and results go there: open it, or send them to /dev/null")


@contextlib.contextmanager
def writing_results() -> Iterator[None]:
    """Within it is written to standard output, which is flushed at the end. A reader that has seen enough (`head`, a
    pager) is no error.

    Raises:
        Unwritten: the disk is full, or anything else that the system says.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go()
    except OSError as error:
        _let_go()
        raise Unwritten(f"results cannot be written to standard output: {error.strerror}") from error


@contextlib.contextmanager
def chatter_on_standard_error() -> Iterator[None]:
    """Within it whatever is printed goes to standard error: by Python, by libraries in C, by processes that they start.

    Only standard output as the process got it is turned aside by its number; one that was put in its place (by a
    notebook, by tests) is left alone.
    """
    turned = _number_one_on_two() if _are_the_process_own() else contextlib.nullcontext()
    with turned, contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _number_one_on_two() -> Iterator[None]:
    aside = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(aside, 1)
        os.close(aside)


def _are_the_process_own() -> bool:
    if not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout is not sys.__stdout__:
        return False
    try:
        return sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    except (OSError, ValueError):  # a stream without a number
        return False


def _escaping(streams: list[io.TextIOWrapper], errors: list[str | None]) -> None:
    for stream, handler in zip(streams, errors, strict=True):
        with contextlib.suppress(OSError, ValueError):  # it flushes, which can fail
            stream.reconfigure(errors=handler)


def _let_go() -> None:
    """Nothing may be left to flush at the exit, where it would fail again."""
    if sys.stdout is sys.__stdout__:  # and not one that a notebook or a test has put in its place
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
