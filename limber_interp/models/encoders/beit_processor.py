"""BEiT's preprocessor_config.json: what transformers' image processor does to an image by it, in our terms."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from limber_interp.errors import InputError
from limber_interp.models.encoders.preprocessing import three_numbers

logger = logging.getLogger(__name__)

PROCESSOR_FILE = "preprocessor_config.json"
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as image processors write them
SWITCHES = {"do_resize": True, "do_center_crop": False, "do_rescale": True, "do_normalize": True}  # where not given
OBEYED = {*SWITCHES, "size", "resample", "crop_size", "rescale_factor", "image_mean", "image_std"}
# Those that BEiT's image processor does not look at for an image, or that say nothing about pixels
WITHOUT_EFFECT = {"do_reduce_labels", "reduce_labels", "do_pad", "pad_size", "do_convert_rgb", "default_to_square"}
WITHOUT_EFFECT |= {"image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "return_tensors"}
WITHOUT_EFFECT |= {"data_format", "input_data_format", "device", "disable_grouping", "image_seq_length"}
WITHOUT_EFFECT |= {"_valid_processor_keys"}


def beit_preprocessing(processor: Mapping[str, Any], image_size: int, source: str) -> dict[str, Any]:
    """Resize, crop, rescale, normalise, each unless it is switched off: see `encoders.preprocessing`.

    Args:
        image_size: what must come out.
        source: where the description lies, for messages.

    Raises:
        InputError: a key is missing, a value is not known, or pixels come out that the encoder does not take.
    """
    given = {key: value for key, value in processor.items() if value is not None}  # null stands for what is usual
    if unknown := sorted(given.keys() - OBEYED - WITHOUT_EFFECT):
        logger.warning("%s: keys that are not known, and not used: %s", source, ", ".join(unknown))
    return {**_geometry(given, image_size, source), **_colours(given, source)}


def _geometry(given: Mapping[str, Any], image_size: int, source: str) -> dict[str, Any]:
    described: dict[str, Any] = {"resize": None, "interpolation": None, "crop": None}
    whole: int | list[int] | None = [image_size, image_size]
    comes_out = None  # of any size
    if _switch(given, "do_resize", source):
        resample = _value(given, "resample", source)
        if resample not in tuple(RESAMPLE):  # a list has no hash
            raise InputError(f"{source}: found resample {resample!r}, expected 2 or 3")
        comes_out = _size(given.get("size", image_size), "size", source)
        described["resize"] = "short side" if isinstance(comes_out, int) else "both sides"
        described["interpolation"] = RESAMPLE[resample]
        if comes_out != whole:
            described["resize_to"] = comes_out
    if _switch(given, "do_center_crop", source):
        comes_out = _size(given.get("crop_size", image_size), "crop_size", source)
        described["crop"] = "center, rounded down"
    if comes_out != whole:
        found = " x ".join(map(str, comes_out)) if isinstance(comes_out, list) else "any number of"
        raise InputError(
            f"{source}: do_resize, size, do_center_crop and crop_size give images of {found} pixels; the encoder takes "
            f"{image_size} x {image_size}"
        )
    return described


def _colours(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    described: dict[str, Any] = {"mean": [0.0] * 3, "std": [1.0] * 3}
    factor = 1.0
    if _switch(given, "do_rescale", source):
        factor = given.get("rescale_factor", 1 / 255)
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not (number and math.isfinite(factor) and factor > 0):
            raise InputError(f"{source}: rescale_factor: expected a number above 0, found {factor!r}")
    if factor != 1 / 255:
        described["rescale"] = float(factor)
    if _switch(given, "do_normalize", source):
        for name, key in (("mean", "image_mean"), ("std", "image_std")):
            described[name] = three_numbers(_value(given, key, source), key, source)
    return described


def _switch(given: Mapping[str, Any], key: str, source: str) -> bool:
    value = given.get(key, SWITCHES[key])
    if not isinstance(value, bool):
        raise InputError(f"{source}: {key}: expected true or false, found {value!r}")
    return value


def _value(given: Mapping[str, Any], key: str, source: str) -> Any:
    if key not in given:
        raise InputError(f"{source}: key {key!r} is missing")
    return given[key]


def _size(value: Any, key: str, source: str) -> int | list[int]:
    """[height, width]; or pixels of the short side, where the shape of the image stays."""
    match value:
        case {"shortest_edge": short, **others} if key == "size" and not others:
            sides = [short]
        case {"height": height, "width": width, **others} if not others:
            sides = [height, width]
        case [height, width]:
            sides = [height, width]
        case _:
            sides = [value, value]
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        also = ", or shortest_edge" if key == "size" else ""
        raise InputError(f"{source}: {key}: expected a number, or height and width{also}; found {value!r}")
    return sides if len(sides) == 2 else sides[0]
