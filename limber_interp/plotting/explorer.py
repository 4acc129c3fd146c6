"""A lens over layers as one HTML page: every patch at every layer, at hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from limber_interp.errors import InputError
from limber_interp.plotting.html import data_uri, manifest_of, packed, write_page
from limber_interp.plotting.style import COLOURS
from limber_interp.records import ImageLens, LayerReading, LensControl, LensTarget, LogitLens
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
    write_page(path, "explorer", SCRIPTS, _page(record))


def _page(record: LogitLens) -> dict[str, Any]:
    """What the scripts read. There a token is an index into `tokens`, which are as they are shown, all different."""
    texts = {int(token_id): text for token_id, text in record.tokens.items()}
    texts |= {target.token_id: target.token for image in record.images for target in image.targets}
    ids = np.array(sorted(texts))
    shown = [visible(texts[token_id]) for token_id in ids.tolist()]
    alike = Counter(shown)  # parts of characters all look like U+FFFD
    return {
        "config": printable(str(record.manifest.config.get("name", "unnamed"))),
        "prompt": None if record.prompt is None else printable(record.prompt),
        "k": record.k,
        "layers": list(record.layers),
        "tokens": [t if alike[t] == 1 else f"{t} #{token_id}" for t, token_id in zip(shown, ids.tolist(), strict=True)],
        "token_ids": packed(ids),
        "images": [_image(image, ids) for image in record.images],
        "colours": [to_hex(colour) for colour in colormaps[COLOURS](np.linspace(0, 1, N_COLOURS))],
        "manifest": manifest_of(record.manifest),
    }


def _image(image: ImageLens, ids: np.ndarray) -> dict[str, Any]:
    return {
        "name": printable(image.image),
        "seen": None if image.seen is None else data_uri(image.seen, "PNG"),
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
        "tokens": packed(np.searchsorted(ids, reading.token_ids)),
        "logprobs": packed(reading.logprobs),
        # in hundredths, as they are shown
        "entropy": packed(np.rint(100 * reading.entropy).clip(0).astype(np.int64)),
        "kl": packed(np.rint(100 * reading.kl).clip(0).astype(np.int64)),
        "agrees": packed(reading.agrees),
    }


def _target(target: LensTarget, ids: np.ndarray) -> dict[str, Any]:
    against = (
        (target.p_words, target.n_words, "other words at this image"),
        (target.p_images, target.n_images, "other images"),
    )
    return {
        "word": visible(target.word),
        "token": int(np.searchsorted(ids, target.token_id)),
        "ranks": packed(target.ranks),
        "logprobs": packed(target.logprobs),
        "p": [
            {"values": packed(p), "against": f"{n} {others}", "least": f"{1 / (n + 1):.2g}"}
            for p, n, others in against
            if p is not None
        ],
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
        "ranks": packed(np.quantile(control.best_ranks, BAND, axis=0).astype(np.float32)),
        "logprobs": packed(np.quantile(control.best_logprobs, BAND, axis=0).astype(np.float32)),
    }
