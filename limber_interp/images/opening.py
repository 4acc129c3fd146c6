"""Opening images wherever they are: a path, a URL, bytes, an open file, PIL, an array."""

import hashlib
import io
import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.images.arrays import image_of
from limber_interp.images.decoding import decode, open_bytes
from limber_interp.images.fetching import fetch
from limber_interp.images.sources import BinaryFile, ImageSource, describe

MAX_BYTES = 2**30  # of a file; 89 million pixels, which is Pillow's limit, take a third of it


def load_image(source: ImageSource) -> Image.Image:
    """Open an image as RGB, as a person would see it.

    EXIF orientation is applied, where it can be read; transparent pixels are laid on white; 16-bit values are scaled to
    8 bits, floats are taken to lie in [0, 1]; of an animation the first frame is taken, which is logged. An image that
    comes out of here comes out the same when it is given again.

    Args:
        source: a path; a `file:`, `http:` or `https:` URL; the bytes of an image file; a binary file that is open, read
            from its start; an open PIL image; or a numpy array (height, width), (height, width, 3) or
            (height, width, 4), of uint8, or of floats in [0, 1].

    Raises:
        InputError: nothing there, not an image, truncated, too large to be decoded safely, a strip of which encoders
            would see next to nothing, or a URL that fails. One line that begins with the image's name.
    """
    name = describe(source)
    match source:
        case Image.Image():
            return decode(source, name)
        case np.ndarray():
            return decode(image_of(source, name), name)
        case bytes():
            return open_bytes(source, name)
        case BinaryFile():
            return open_bytes(_content(source, name), name)
        case str() | os.PathLike():
            return _load_named(str(source), name)
    raise InputError(
        f"{name}: not an image; expected a path, a URL, bytes, an open file, a PIL image or a numpy array (height, "
        "width, 3)" + ("; encode and soft_prompt take a tensor of pixels" if type(source).__name__ == "Tensor" else "")
    )


def image_hash(image: ImageSource) -> str:
    """sha256 of the size and the RGB pixels: the same for the same picture, in whatever file it came.

    Raises:
        InputError: as `load_image`.
    """
    rgb = load_image(image)
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def _load_named(source: str, name: str) -> Image.Image:
    path = Path(source)
    # A file of that name comes first: a colon is allowed in file names. Asked of os.path, since pathlib raises on a URL
    # that is too long for a file name
    if not os.path.exists(path) and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", source)):
        match scheme[1].lower():
            case "http" | "https":
                # pathlib makes one slash of two, and in a prompt an image is a Path
                return open_bytes(fetch(re.sub(r"^(\w+):/(?=[^/])", r"\1://", source)), name)
            case "file":
                path = _local_path(source)
            case other:
                raise InputError(f"{name}: scheme {other!r} is not supported; use a path, file:, http: or https:")
    if not os.path.isfile(path):  # nor is a pipe or a device one: reading it may never end
        raise InputError(f"{name}: {'not a file' if os.path.exists(path) else 'no such image file'}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error}") from error
    with file:
        return open_bytes(_content(file, name), name)


def _content(file: BinaryFile, name: str) -> bytes:
    """All that is in a file, from its start: an image is opened more than once, to see whether it can be, and when its
    turn comes."""
    if isinstance(file, io.TextIOBase):
        raise InputError(f"{name}: opened as text; open it with mode 'rb'")
    content = io.BytesIO()
    try:
        file.seek(0)
        while piece := file.read(2**20):  # asked for much at once, a file takes the memory for it, however short it is
            content.write(piece)
            if content.tell() > MAX_BYTES:
                raise InputError(f"{name}: larger than {MAX_BYTES >> 20} MiB; save the one picture that is meant")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: cannot be read from its start ({error}); give its bytes: file.read()") from error
    return content.getvalue()


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise InputError(f"{url}: a file: URL names a file on this machine; found host {parts.netloc!r}")
    return Path(url2pathname(parts.path))
