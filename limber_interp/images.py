"""Opening images from a path, a `file:` or http(s) URL, bytes or PIL: always as upright RGB, or refused in one line."""

import hashlib
import io
import logging
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image, ImageOps

from limber_interp.errors import InputError
from limber_interp.urls import open_url

logger = logging.getLogger(__name__)

URL_TIMEOUT = 20.0  # seconds, for the whole download
URL_MAX_BYTES = 64 * 2**20


def load_image(source: str | Path | bytes | Image.Image) -> Image.Image:
    """Open an image as RGB, as a person would see it.

    EXIF orientation is applied; transparent pixels are laid on white; 16-bit values are scaled to 8 bits, floats are
    taken to lie in [0, 1]; of an animation the first frame is taken, which is logged.

    Args:
        source: a path, a `file:`, `http:` or `https:` URL, the bytes of an image file, or an open PIL image.

    Raises:
        InputError: nothing there, not an image, truncated, too large to be decoded safely, or a URL that fails.
    """
    name = describe(source)
    if isinstance(source, Image.Image):
        return _decode(source, name)
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), name)
    path = Path(source)
    # A file of that name comes first: a colon is allowed in file names. Asked of os.path, since pathlib raises on a URL
    # that is too long for a file name
    if not os.path.exists(path) and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", str(source))):
        match scheme[1].lower():
            case "http" | "https":
                return _open(io.BytesIO(_download(str(source))), name)
            case "file":
                path = _local_path(str(source))
            case other:
                raise InputError(f"{name}: scheme {other!r} is not supported; use a path, file:, http: or https:")
    if not os.path.isfile(path):
        raise InputError(f"{name}: {'not a file' if os.path.exists(path) else 'no such image file'}")
    return _open(path, name)


def image_hash(image: Image.Image) -> str:
    """sha256 of the size and the RGB pixels: the same for the same picture, in whatever file it came."""
    rgb = image.convert("RGB")
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def describe(source: str | Path | bytes | Image.Image) -> str:
    """How an image is named in results and messages: as given, or by what it is where it has no name."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if isinstance(source, Image.Image):
        return f"<{source.mode} image, {source.width} x {source.height}>"
    return str(source)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with their index where one stands for several images: `<RGB image, 64 x 64> [2]`."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} [{i}]" for i, name in enumerate(names)]


def _open(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit of pixels; a picture that large is a mistake or an attack here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return _decode(image, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name}: refused as a decompression bomb; scale it down first: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image that Pillow can open") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error}") from error


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        if getattr(image, "is_animated", False):  # only formats with frames have it
            logger.info("%s: first of several frames", name)
        image = ImageOps.exif_transpose(image)
        image = _eight_bits(image, name)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except (Image.DecompressionBombError, InputError):
        raise
    except Exception as error:  # Pillow's readers raise nearly anything (struct.error, SyntaxError, …) on broken files
        raise InputError(f"{name}: broken or truncated image: {error}") from error


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale the one-channel modes that `convert` would clip at 255: I;16 and I (16 bits), F (floats)."""
    if not image.mode.startswith(("I", "F")):
        return image
    limit = 1.0 if image.mode == "F" else 65535.0
    pixels = np.asarray(image, dtype=np.float64)
    if not (pixels.min() >= 0 and pixels.max() <= limit):  # so that NaN is refused too
        raise InputError(
            f"{name}: {image.mode} image with values from {pixels.min():g} to {pixels.max():g}: "
            f"scale them to [0, {limit:g}]"
        )
    return Image.fromarray(np.rint(pixels * (255 / limit)).astype(np.uint8))


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{url}: a file: URL names a file on this machine; found host {parts.netloc!r}")
    return Path(url2pathname(parts.path))


def _download(url: str) -> bytes:
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
