"""Files to pixels: which formats are opened, and what is done to a picture on the way to upright 8-bit RGB.

Whatever Pillow raises on a file that is broken, or made to break it, becomes one `InputError` that names the image: its
readers raise nearly anything. Also a MemoryError, since the pixels are counted before: it is the file that asks for too
much. What stops a program (KeyboardInterrupt, SystemExit) is no `Exception` and passes.
"""

import importlib
import io
import logging

import numpy as np
from PIL import Image, ImageFile

from limber_interp.errors import InputError
from limber_interp.images.png import ColourKey, without_texts

logger = logging.getLogger(__name__)

# What people have. Others of Pillow's stay closed: EPS would run Ghostscript on the file, and WMF, FITS, GRIB, HDF5 and
# MPEG have no reader of pixels, or one for one kind of system alone. TGA knows a file by no mark, so it is asked last
FORMATS = (
    *("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JPEG2000", "PPM", "ICO", "ICNS", "PSD"),
    *("QOI", "DDS", "PCX", "SGI", "IM", "TGA"),
)
CLOSED = {b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF", b"\xd7\xcd\xc6\x9a": "WMF"}
# Encoders scale the short side to their own size and look at the middle: of a longer strip they would see less than a
# hundredth, and the strip is scaled up as a whole before (60,000 x 1 pixels: to 3.5 GB)
MAX_ASPECT = 100
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")

UPRIGHT = {  # EXIF's orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112


def open_bytes(content: bytes, name: str) -> Image.Image:
    """The picture in the bytes of a file.

    They are in memory already, so that a reader cannot be made to ask for more than there is: of a file, Pillow's
    JPEG 2000 reads as much as a header claims.

    Raises:
        InputError: not an image, broken, too large to be decoded safely, or a strip.
    """
    try:
        return _opened(content, name)
    except InputError as error:
        # Pillow refuses a PNG with more than a megabyte of texts, such as the workflow that drew it
        lean = without_texts(content)
        if lean is None:
            raise
        try:
            return _opened(lean, name)
        except InputError:
            raise error from None


def _opened(content: bytes, name: str) -> Image.Image:
    try:
        if content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
            _prepare_heif()
        with Image.open(io.BytesIO(content), formats=_formats()) as image:
            return decode(image, name)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name}: refused as a decompression bomb; scale it down first: {error}") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name}: {_what_instead(content[:512])}") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error}") from error
    except Exception as error:
        raise InputError(f"{name}: broken or truncated image: {_said(error)}") from error


def decode(image: Image.Image, name: str) -> Image.Image:
    """An image that Pillow opened, perhaps without reading its pixels yet, as upright RGB.

    Nothing that Pillow knows about the file comes along: its orientation would be applied a second time.

    Raises:
        InputError: broken or truncated, too many pixels, a strip, or values that cannot be scaled to 8 bits.
    """
    try:
        _check_size(image, name)
        if _animated(image):
            logger.info("%s: first of several frames", name)
        key = ColourKey.of(image)
        image.load()
        _check_size(image, name)  # an icon may hold another picture than its list says
        image = _upright(image, name)
        image = _eight_bits(image, key, name)
        if image.mode == "La":
            image = image.convert("LA")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        rgb = image.convert("RGB")
        rgb.info = {}
        return rgb
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name}: broken or truncated image: {_said(error)}") from error


def _formats() -> list[str]:
    Image.init()
    return [known for known in FORMATS if known in Image.OPEN]


def _check_size(image: Image.Image, name: str) -> None:
    """Pillow warns above its limit and raises above twice of it; and who makes an error of a warning does so for all
    threads, or for none."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if isinstance(image, ImageFile.ImageFile) and limit is not None and width * height > limit:
        raise InputError(
            f"{name}: refused as a decompression bomb; scale it down first: {width} x {height} pixels are more than "
            f"{limit}"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(
            f"{name}: of its {width} x {height} pixels one side is more than {MAX_ASPECT} times the other, and an "
            "encoder looks at the middle alone; cut out what it shall see"
        )


def _animated(image: Image.Image) -> bool:
    try:
        return getattr(image, "is_animated", False)  # only formats with frames have it
    except Exception:  # a later frame is broken, and the first one is wanted
        return True


def _upright(image: Image.Image, name: str) -> Image.Image:
    """Pillow's `exif_transpose` also writes the EXIF anew, which fails on what was written badly."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception as error:
        logger.info("%s: its EXIF cannot be read, so it is taken for upright: %s", name, _said(error))
        return image
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _eight_bits(image: Image.Image, key: ColourKey | None, name: str) -> Image.Image:
    """Scale the one-channel modes that `convert` would clip at 255: I;16 and I (16 bits), F (floats)."""
    if not image.mode.startswith(("I", "F")):
        return image if key is None else key.laid_into(image)
    limit = 1.0 if image.mode == "F" else 65535.0
    pixels = np.asarray(image, dtype=np.float64)
    if not (pixels.min() >= 0 and pixels.max() <= limit):  # so that NaN is refused too
        raise InputError(
            f"{name}: {image.mode} image with values from {pixels.min():g} to {pixels.max():g}: "
            f"scale them to [0, {limit:g}]"
        )
    gray = Image.fromarray(np.rint(pixels * (255 / limit)).astype(np.uint8))
    if key is not None:
        gray.putalpha(Image.fromarray(np.where(pixels == key.value, 0, 255).astype(np.uint8)))
    return gray


def _prepare_heif() -> None:
    """Teach Pillow the format of phones, where its package is installed: see docs/design.md."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        logger.debug("pillow_heif is not installed")


def _what_instead(head: bytes) -> str:
    """What a file that is no image seems to be, and what helps."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "not an image: it is empty"
    if text.startswith((b"<!doctype html", b"<html")):
        return "not an image, but a web page; name the address or the file of the image itself"
    if text.startswith((b"<svg", b"<?xml")):
        return "not an image of pixels, but perhaps SVG; export it as PNG first"
    if head[4:8] == b"ftyp":
        if head[8:12] in HEIF_BRANDS and "HEIF" in Image.OPEN:
            return "not an image that can be opened: HEIC, but a broken one"
        if head[8:12] in HEIF_BRANDS:
            return "not an image that can be opened yet: HEIC, a phone's; pip install pillow-heif, or save it as JPEG"
        if head[8:12] in (b"avif", b"avis"):
            return "not an image that this Pillow can open: AVIF; pip install -U pillow, or save it as PNG"
    for mark, kind in CLOSED.items():
        if head.startswith(mark):
            return f"not an image that is opened here: {kind}; save it as PNG"
    return "not an image that Pillow can open"


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
