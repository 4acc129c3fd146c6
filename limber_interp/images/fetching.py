"""The bytes of an image at an http(s) URL, within a time and a size."""

import time
from http.client import HTTPException
from urllib.error import HTTPError

from limber_interp.errors import InputError
from limber_interp.urls import open_url

URL_TIMEOUT = 20.0  # seconds, for the whole download
URL_MAX_BYTES = 64 * 2**20


def fetch(url: str) -> bytes:
    """Download an image.

    Raises:
        InputError: no answer, an error, an answer that is too slow, too large or that breaks off.
    """
    deadline = time.monotonic() + URL_TIMEOUT
    chunks, size = [], 0
    try:
        with open_url(url, URL_TIMEOUT) as response:
            expected = response.headers.get("Content-Length")
            while chunk := response.read1(2**16):
                chunks.append(chunk)
                size += len(chunk)
                if size > URL_MAX_BYTES:
                    raise InputError(f"{url}: larger than {URL_MAX_BYTES >> 20} MiB; download and scale it yourself")
                if time.monotonic() > deadline:  # the socket's time-out starts anew with each byte
                    raise InputError(f"{url}: not complete after {URL_TIMEOUT:g} s; download it yourself")
    except HTTPError as error:
        error.close()
        raise InputError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:  # URLError, time-outs, resets; malformed answers and URLs
        raise InputError(f"{url}: cannot be fetched: {error}") from error
    if expected is not None and expected.isdigit() and size < int(expected):
        raise InputError(f"{url}: the download broke off after {size} of {expected} bytes")
    return b"".join(chunks)
