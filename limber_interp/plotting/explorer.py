"""A lens over layers as one HTML page: every patch at every layer, at hand."""

import base64
import io
import json
from collections import Counter
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.plotting.style import COLOURS
from limber_interp.records import ImageLens, LayerReading, LensControl, LensTarget, LogitLens, write_atomically
from limber_interp.text import printable, visible

N_COLOURS = 64
BAND = (0.05, 0.5, 0.95)  # quantiles over a control's draws
SCRIPTS = ("data.js", "map.js", "table.js", "curves.js", "main.js")


def explorer(record: LogitLens, path: str | Path) -> None:
    """Write a record as one page that needs nothing else: no network, no server, no folder beside it.

    A patch shows its k tokens at every layer; a layer labels the whole image with its most probable tokens; a token is
    mapped over the patches and followed over the layers, beside the controls. All numbers are the record's, in float32:
    where a token is not among the k it has none, unless it is one of the record's targets, which were followed
    everywhere. The first draw of a control can be laid over the same patches, to see what the lens says of nothing.

    Many tokens are looked at on such a page, and one of many fits the image by chance. The page is for finding
    hypotheses; a target that was named beforehand, with its p-values, is for testing one.

    Raises:
        InputError: the record holds no image, or the path cannot be written.
    """
    if not record.images:
        raise InputError("a record without images cannot be explored; run the probe with at least one")
    data = json.dumps(_page(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # with it begins all that could end the data early
    script = "\n".join(_source(name) for name in SCRIPTS)
    html = Template(_source("page.html")).substitute(style=_source("style.css"), record=data, script=script)
    write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))


def _source(name: str) -> str:
    return (resources.files("limber_interp.plotting") / "page" / name).read_text(encoding="utf-8")


def _page(record: LogitLens) -> dict[str, Any]:
    """What the scripts read. There a token is an index into `tokens`, which are as they are shown, all different."""
    texts = {int(token_id): text for token_id, text in record.tokens.items()}
    texts |= {target.token_id: target.token for image in record.images for target in image.targets}
    ids = np.array(sorted(texts))
    shown = [visible(texts[token_id]) for token_id in ids.tolist()]
    alike = Counter(shown)  # parts of characters all look like U+FFFD
    manifest = record.manifest
    return {
        "config": printable(str(manifest.config.get("name", "unnamed"))),
        "prompt": None if record.prompt is None else printable(record.prompt),
        "k": record.k,
        "layers": list(record.layers),
        "tokens": [t if alike[t] == 1 else f"{t} #{token_id}" for t, token_id in zip(shown, ids.tolist(), strict=True)],
        "token_ids": _packed(ids),
        "images": [_image(image, ids) for image in record.images],
        "colours": [to_hex(colour) for colour in colormaps[COLOURS](np.linspace(0, 1, N_COLOURS))],
        "manifest": {
            "config": _lines(manifest.config),
            "hashes": {name: value and value[:12] for name, value in manifest.hashes.items()},
            "computed": {"dtype": manifest.dtype, "device": manifest.device, "seed": str(manifest.seed)},
            "preprocessing": _lines(manifest.preprocessing),
            "versions": _lines(manifest.versions),
            "notes": [printable(note) for note in manifest.notes],
        },
    }


def _lines(values: Any) -> dict[str, str]:
    return {printable(str(key)): printable(str(value)) for key, value in values.items()}


def _image(image: ImageLens, ids: np.ndarray) -> dict[str, Any]:
    return {
        "name": printable(image.image),
        "seen": None if image.seen is None else _png(image.seen),
        # (rows, columns) of patches, and (height, width) in pixels
        "grid": image.grid,
        "size": image.grid if image.seen is None else image.seen.shape[:2],
        "places": [image.place(i) for i in range(image.n_pos)],
        "positions": image.positions.tolist(),
        "inputs": [visible(text) for text in image.inputs],
        "reading": _reading(image.reading, ids),
        "targets": [_target(target, ids) for target in image.targets],
        "controls": [_control(control, ids) for control in image.controls],
    }


def _reading(reading: LayerReading, ids: np.ndarray) -> dict[str, Any]:
    return {
        "tokens": _packed(np.searchsorted(ids, reading.token_ids)),
        "logprobs": _packed(reading.logprobs),
        # in hundredths, as they are shown
        "entropy": _packed(np.rint(100 * reading.entropy).clip(0).astype(np.int64)),
        "kl": _packed(np.rint(100 * reading.kl).clip(0).astype(np.int64)),
        "agrees": _packed(reading.agrees),
    }


def _target(target: LensTarget, ids: np.ndarray) -> dict[str, Any]:
    against = (
        (target.p_words, target.n_words, "other words at this image"),
        (target.p_images, target.n_images, "other images"),
    )
    return {
        "word": visible(target.word),
        "token": int(np.searchsorted(ids, target.token_id)),
        "ranks": _packed(target.ranks),
        "logprobs": _packed(target.logprobs),
        "p": [{"values": _packed(p), "against": f"{n} {others}"} for p, n, others in against if p is not None],
    }


def _control(control: LensControl, ids: np.ndarray) -> dict[str, Any]:
    return {
        "name": printable(control.name.replace("_", " ")),
        "description": printable(control.description),
        "seed": control.seed,
        "draws": control.n_draws,
        "sources": [printable(source) for source in control.sources],
        "reading": _reading(control.reading, ids),
        # (quantiles, layers, targets)
        "ranks": _packed(np.quantile(control.best_ranks, BAND, axis=0).astype(np.float32)),
        "logprobs": _packed(np.quantile(control.best_logprobs, BAND, axis=0).astype(np.float32)),
    }


def _packed(array: np.ndarray) -> tuple[str, str]:
    """Type and base64 of the values in row-major order: little-endian, as is every machine with a browser."""
    if array.dtype.kind == "f":
        dtype = np.dtype("<f4")
    else:
        dtype = np.min_scalar_type(int(array.max(initial=0))).newbyteorder("<")
    return dtype.str[1:], base64.b64encode(array.astype(dtype).tobytes()).decode("ascii")


def _png(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
