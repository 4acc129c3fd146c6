"""Downloading a file whose git blob id is known: resumed after a cut, verified, and whole or not there at all."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TypeAlias
from urllib.error import HTTPError, URLError

from filelock import FileLock, Timeout

from limber_interp.errors import InputError
from limber_interp.published import git_blob_id
from limber_interp.records import check_writable, make_folder, move_into_place
from limber_interp.urls import open_url

logger = logging.getLogger(__name__)

ATTEMPTS = 5
BACKOFF = 1.0  # seconds before the second attempt, doubled before each further one
STALL = 30.0  # seconds without a byte
MAX_BYTES = 100 * 2**20  # GitHub takes no larger file
PASSING = (408, 425, 429, 500, 502, 503, 504)  # the server's answers that another attempt may not meet

# (chunks, bytes that were here before, bytes in all if the server says so) -> the chunks
Progress: TypeAlias = Callable[[Iterator[bytes], int, int | None], Iterator[bytes]]


class _Broken(Exception):
    """An attempt failed; `final`: another would too."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def download(url: str, path: str | Path, blob_id: str, progress: Progress = lambda chunks, done, total: chunks) -> bool:
    """Put the file with this git blob id at `path`, and nothing else.

    What a cut leaves stays beside it as `<name>.part`, from which this and the next call go on, if the server can.

    Returns:
        Whether it was downloaded; False: it was there.

    Raises:
        InputError: another file is at `path`, which is left alone; the folder takes no files; another process is at it;
            the server cannot be reached, breaks off each time, or has other bytes. The line says what to copy where.
    """
    path = Path(path).resolve()
    partial = path.with_name(path.name + ".part")
    if path.is_file():
        if (found := git_blob_id(path)) != blob_id:
            raise InputError(
                f"{path}: found git blob id {found}, expected {blob_id}: damaged, or another file; "
                "move it away, or name another folder with --out"
            )
        with contextlib.suppress(OSError):  # left by a cut, after which the file was copied by other means
            partial.unlink(missing_ok=True)
        return False
    try:
        make_folder(path.parent)
        check_writable(path)
    except InputError as error:
        raise InputError(f"{error}; name another folder with --out, and then the file with --projection") from error
    with _alone(path):
        _download(url, partial, path, blob_id, progress)
    return True


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = path.with_name(path.name + ".lock")
    try:
        with FileLock(lock, timeout=0):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise InputError(f"{path}: another process is fetching it; wait for that, or end it") from error


def _download(url: str, partial: Path, path: Path, blob_id: str, progress: Progress) -> None:
    partial.touch()
    failure: _Broken | None = None
    try:
        for attempt in range(ATTEMPTS):
            if attempt:
                pause = BACKOFF * 2 ** (attempt - 1)
                logger.info("%s: %s; trying again in %g s", url, failure, pause)
                time.sleep(pause)
            resumed = partial.stat().st_size > 0
            try:
                _receive(url, partial, progress)
                failure = None
            except URLError as error:  # no connection: where there is no network, waiting does not help
                failure = _Broken(f"cannot be reached: {error.reason}", final=attempt == 0)
            except _Broken as broken:
                failure = broken
            # The id alone says whether the file is whole: what servers say about lengths is not to be relied on
            if (found := git_blob_id(partial)) == blob_id:
                move_into_place(partial, path)
                return
            if failure is None:
                size = partial.stat().st_size
                partial.write_bytes(b"")
                failure = _Broken(
                    f"wrong bytes, which were removed: found git blob id {found} ({size} bytes), expected {blob_id}",
                    final=not resumed,  # otherwise what was here before may be what is wrong
                )
            if failure.final:
                break
    finally:
        kept = partial.stat().st_size if partial.exists() else 0
        if not kept:
            partial.unlink(missing_ok=True)
    again = f"run this again to go on after {kept} bytes, or " if kept else ""
    by_hand = f"copy that file to {path} by other means (git blob id {blob_id})"
    raise InputError(f"{url}: {failure}; {again}{by_hand}") from failure


def _receive(url: str, partial: Path, progress: Progress) -> None:
    """Append to `partial` what it lacks, or begin again if the server cannot send a part."""
    done = partial.stat().st_size
    try:
        response = open_url(url, STALL, {"Range": f"bytes={done}-"} if done else {})
    except HTTPError as error:
        error.close()
        if error.code == 416:  # nothing follows what is here
            return
        raise _Broken(f"the server answered {error.code} {error.reason}", error.code not in PASSING) from error
    except URLError:
        raise
    except ValueError as error:
        raise _Broken(f"cannot be fetched: {error}", final=True) from error
    except (OSError, HTTPException) as error:  # silence, resets; malformed answers
        raise _Broken(f"cannot be fetched: {error}") from error
    try:
        done, total = _append(response, partial, done, progress)
    except OSError as error:  # the server's troubles are _Broken already: these are the disk's
        raise _Broken(f"cannot be written: {error.strerror} ({partial.parent})", final=True) from error
    if total is not None and done < total:
        raise _Broken(f"broke off after {done} of {total} bytes")


def _append(response: HTTPResponse, partial: Path, done: int, progress: Progress) -> tuple[int, int | None]:
    """The bytes that are here afterwards, and those that there should be in all, if the server said so."""
    with response, partial.open("ab") as file:
        follows = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if not follows:
            done = 0
            file.truncate(0)
            if response.status == 206:
                raise _Broken("the server answered with another part than asked for")
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else None
        for chunk in progress(_chunks(response), done, total):
            done += len(chunk)
            if done > MAX_BYTES:
                file.truncate(0)
                raise _Broken(f"larger than {MAX_BYTES >> 20} MiB, which no published file is; removed", final=True)
            file.write(chunk)
    return done, total


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(2**16):
            yield chunk
    except (OSError, HTTPException, ValueError) as error:
        raise _Broken(f"broke off: {error}") from error
