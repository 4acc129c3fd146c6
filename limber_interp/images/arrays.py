"""Images as numpy arrays."""

import numpy as np
from PIL import Image

from limber_interp.errors import InputError

EXPECTED = "expected (height, width), (height, width, 3) or (height, width, 4) of uint8, or of floats in [0, 1]"


def image_of(array: np.ndarray, name: str) -> Image.Image:
    """An array as a PIL image: gray, RGB, or RGB with alpha.

    Raises:
        InputError: another shape or type, or floats outside of [0, 1].
    """
    if array.ndim == 4:
        raise InputError(f"{name}: a batch is a list of images; give list(array)")
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not (is_image and array.size and (array.dtype == np.uint8 or array.dtype.kind == "f")):
        turned = array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[2] not in (3, 4)
        raise InputError(f"{name}: {EXPECTED}{'; np.moveaxis(array, 0, -1) puts the channels last' if turned else ''}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # so that NaN is refused too
            raise InputError(f"{name}: found floats from {array.min():g} to {array.max():g}: scale them to [0, 1]")
        array = np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))
