"""What the pages share: a record and its scripts in one HTML file that needs nothing else."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from limber_interp.records import WRITER, Manifest, write_atomically
from limber_interp.text import printable

PAGES = resources.files("limber_interp.plotting") / "page"


def write_page(path: str | Path, name: str, scripts: Sequence[str], record: Mapping[str, Any]) -> None:
    """Write a page: no network, no server, no folder beside it; its own policy forbids them to it.

    Texts of models and data sets are only ever in `record`, which a browser takes for data. The scripts show them as
    text, and never as HTML.

    Args:
        name: of the folder in `page/` with its page.html, style.css and `scripts`.
        record: what the scripts read, as JSON has it: no NaN.

    Raises:
        InputError: the path cannot be written.
    """
    data = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # with it begins all that could end the data early
    html = Template(_source(name, "page.html")).substitute(
        writer=WRITER,
        style=_source("shared", "base.css") + _source(name, "style.css"),
        record=data,
        script="\n".join([_source("shared", "record.js"), *(_source(name, script) for script in scripts)]),
    )
    write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))


def manifest_of(manifest: Manifest) -> dict[str, Any]:
    """In groups of lines, as `buildManifest` shows them."""
    return {
        "config": lines(manifest.config),
        "hashes": {name: value and value[:12] for name, value in manifest.hashes.items()},
        "computed": {"dtype": manifest.dtype, "device": manifest.device, "seed": str(manifest.seed)},
        "preprocessing": lines(manifest.preprocessing),
        "versions": lines(manifest.versions),
        "notes": [printable(note) for note in manifest.notes],
    }


def lines(values: Mapping[Any, Any]) -> dict[str, str]:
    """Keys and values as texts."""
    return {printable(str(key)): printable(str(value)) for key, value in values.items()}


def packed(array: Shaped[np.ndarray, "..."]) -> tuple[str, str]:
    """Type and base64 of the values in row-major order: little-endian, as is every machine with a browser."""
    if array.dtype.kind == "f":
        dtype = np.dtype("<f4")
    else:
        dtype = np.min_scalar_type(int(array.max(initial=0))).newbyteorder("<")
    return dtype.str[1:], base64.b64encode(array.astype(dtype).tobytes()).decode("ascii")


def data_uri(pixels: UInt8[np.ndarray, "height width 3"], format: Literal["PNG", "JPEG"], most: int = 10_000) -> str:
    """An image, its longer side at most so many pixels, as an address that holds all of it."""
    image = Image.fromarray(pixels)
    image.thumbnail((most, most))
    file = io.BytesIO()
    image.save(file, format, optimize=True, **({"quality": 85} if format == "JPEG" else {}))
    return f"data:image/{format.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _source(folder: str, name: str) -> str:
    return (PAGES / folder / name).read_text(encoding="utf-8")
