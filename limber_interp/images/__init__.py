"""Opening images: always as upright RGB, or refused in one line that names the image and says what to do."""

from limber_interp.images.opening import image_hash, load_image
from limber_interp.images.sources import BinaryFile, ImageSource, describe, distinct, each, is_one_image

__all__ = [
    "BinaryFile",
    "ImageSource",
    "describe",
    "distinct",
    "each",
    "image_hash",
    "is_one_image",
    "load_image",
]
