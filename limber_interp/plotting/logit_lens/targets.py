"""One followed token: its probability over the image's patches, and its rank by layer beside the controls'."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from limber_interp.errors import InputError
from limber_interp.plotting.logit_lens.parts import (
    CONTROLS,
    LAYERS,
    THIS_IMAGE,
    counted,
    described,
    draw_image,
    layer_axis,
    named,
    outline,
    square,
)
from limber_interp.plotting.style import COLOURS, GREY, INK, blank, chosen, drawable, inscribe, write
from limber_interp.records import ImageLens, LensTarget, LogitLens, least_p_told

PANELS = 6  # layers that `patches` draws where none are asked for
COLUMNS = 3
PICTURE, CURVE = (3.2, 3.7), (3.3, 2.7)  # inches: width and height of a panel with its labels
SCALE = 0.8  # inches that the colour scale takes
NARROWEST = 7.0  # inches: least width of a sheet, for its caption
LEAST, MOST = 0.12, 0.8  # sides of the squares in a patch, as shares of it, of no probability and of the highest
LEVEL = 0.05


def patches(
    record: LogitLens, path: str | Path, target: str, layers: Sequence[int] | None = None, image: int = 0
) -> None:
    """Draw a target's probability at each patch, on the image as the encoder sees it, at some layers.

    Each patch carries a square, the larger and the brighter the more probable the target is there, on one scale for
    all layers; the most probable patch of each layer is framed. What is bright here may be bright for any image: under
    each layer stand the highest probability and the controls'.

    Args:
        layers: those to draw, of the record's; by default about six, evenly spaced, with the first and the last.

    Raises:
        InputError: no such image, target or layer in the record; the image has no grid or was not kept; not all of its
            patches were read; the path cannot be written.
    """
    item = chosen(record.images, image)
    followed = item.targets[_index(item, target)]
    rows = _rows(record, layers)
    _check_patches(item)
    assert item.grid is not None
    n_patches, cols = item.grid[0] * item.grid[1], item.grid[1]
    sheet, panels = _panels(len(rows), *PICTURE, beside=SCALE)
    probabilities = np.exp(followed.logprobs[rows, :n_patches].astype(np.float64))
    highest = max(float(probabilities.max()), 1e-30)  # a scale of no length cannot be drawn
    scale = ScalarMappable(Normalize(0, highest), COLOURS)
    for axes, row, values in zip(panels, rows, probabilities, strict=True):
        draw_image(axes, item)
        for patch, (value, colour) in enumerate(zip(values, scale.to_rgba(values), strict=True)):
            share = LEAST + (MOST - LEAST) * math.sqrt(value / highest)
            corner, width, height = square(item, divmod(patch, cols), share)
            axes.add_patch(Rectangle(corner, width, height, facecolor=colour, edgecolor="white", linewidth=0.4))
        outline(axes, item, divmod(int(values.argmax()), cols))
        axes.set_title("input" if record.layers[row] == 0 else f"layer {record.layers[row]}", fontsize=10)
        axes.set_xlabel(_beside_chance(item, target, row), fontsize=7)
    bar = sheet.colorbar(scale, ax=panels, fraction=0.03, pad=0.02)
    bar.set_label(f"probability of {drawable(followed.token, 30)}", parse_math=False, color=INK)
    bar.outline.set_visible(False)
    text = f"{named(record)}, probability of the token {drawable(followed.token, 30)} at each patch. {LAYERS}. "
    text += "Framed: the patch with the highest. A square's side grows with the square root of the probability, on one "
    text += "scale for all layers. Below: the highest over the positions that were read"
    text += ", and its median over each control's draws. " if item.controls else ". "
    inscribe(sheet, Path(item.image).name, text + described(item))
    write(sheet, path)


def ranks(record: LogitLens, path: str | Path, target: str, image: int = 0) -> None:
    """Draw a target's rank at the position best for it, by layer, beside each control's median and 5-95 % band.

    Rank 1, on top, is the most probable token of all. The controls are read at the same positions, and their best is
    taken too. The last panel holds the permutation p-values at each layer, where there are any; one of many layers is
    small by chance, therefore the line at 0.05 divided by their number.

    Raises:
        InputError: no such image or target in the record, or the path cannot be written.
    """
    item = chosen(record.images, image)
    index = _index(item, target)
    followed = item.targets[index]
    bands = [control.band(index) for control in item.controls]
    worst = max(values.max() for values in (followed.best_ranks, *(band["q95"] for band in bands)))
    tested = followed.p_words is not None or followed.p_images is not None
    sheet, panels = _panels(max(1, len(bands)) + tested, *CURVE)
    if tested:
        _draw_p_values(panels[-1], record, followed)
    for axes in panels[: len(panels) - tested]:
        axes.plot(record.layers, followed.best_ranks, **THIS_IMAGE, zorder=3)
        axes.set_yscale("log")
        axes.set_ylim(max(1.5 * worst, 10), 0.7)  # a decade at least, for its numbers
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title("this image", fontsize=10)
        layer_axis(axes, record.layers)
    for axes, control, band, style in zip(panels, item.controls, bands, cycle(CONTROLS), strict=False):
        axes.fill_between(
            record.layers, band["q05"], band["q95"], color=style["color"], alpha=0.25, hatch="///", linewidth=0.5
        )
        axes.vlines(
            record.layers, band["q05"], band["q95"], color=style["color"], linewidth=0.8
        )  # one layer's band too
        axes.plot(record.layers, band["median"], **style)
        axes.set_title(counted(control), fontsize=10)
    panels[0].set_ylabel(f"best rank of {drawable(followed.token, 20)}", parse_math=False)
    text = f"{named(record)}, best rank of the token {drawable(followed.token, 30)} over {item.n_pos} "
    text += f"position{'s' * (item.n_pos > 1)}; 1 is the most probable token of all. {LAYERS}. "
    if bands:
        text += (
            "Black, solid: this image. In each panel one control: its median over draws, hatched from the 5 % to the "
        )
        text += "95 % quantile. "
    if tested:
        text += "p-values of the highest log-probability over positions; one of many layers is small by chance; "
        text += f"{least_p_told(followed.n_words, followed.n_images)}. "
    inscribe(sheet, Path(item.image).name, text + described(item))
    write(sheet, path)


def _panels(count: int, width: float, height: float, beside: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A sheet with so many panels of a size in inches, in rows of `COLUMNS`."""
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    sheet = blank(max(width * columns + beside, NARROWEST), height * rows)
    grid = sheet.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[count:]:
        axes.remove()
    return sheet, list(grid.flat[:count])


def _draw_p_values(axes: Axes, record: LogitLens, followed: LensTarget) -> None:
    n_layers = len(record.layers)
    levels = {LEVEL: f"{LEVEL}"} | ({LEVEL / n_layers: f"{LEVEL} / {n_layers} layers"} if n_layers > 1 else {})
    lowest = min(levels)
    by_images = {**THIS_IMAGE, "color": GREY, "linestyle": "--", "marker": "s"}
    for p, label, style in (
        (followed.p_words, f"against {followed.n_words} other words", THIS_IMAGE),
        (followed.p_images, f"against {followed.n_images} other images", by_images),
    ):
        if p is not None:
            axes.plot(record.layers, p, **style, label=label)
            lowest = min(lowest, p.min())
    for level, text in levels.items():
        axes.axhline(level, color=GREY, linestyle=":", linewidth=1)
        axes.text(record.layers[-1] + 0.5, level, text, ha="right", va="bottom", fontsize=7, color=GREY)
    axes.set_yscale("log")
    axes.set_ylim(1.3, lowest / 6)  # room for the names
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title("permutation p-value", fontsize=10)
    axes.legend(fontsize=7, loc="upper left", frameon=False, borderaxespad=0)
    layer_axis(axes, record.layers)


def _index(item: ImageLens, word: str) -> int:
    words = [target.word for target in item.targets]
    if word not in words:
        raise InputError(
            f"target {word!r} was not followed at {item.image}: the record holds {', '.join(words) or 'none'}; "
            "run the probe with it"
        )
    return words.index(word)


def _rows(record: LogitLens, layers: Sequence[int] | None) -> list[int]:
    """Indices of the layers to draw."""
    n_layers = len(record.layers)
    if layers is None:
        return np.unique(np.linspace(0, n_layers - 1, min(PANELS, n_layers)).round().astype(int)).tolist()
    layers = list(layers)  # an array, perhaps, of which Python asks whether it is true
    if not layers:
        raise InputError("no layer to draw: name at least one, or none for about six of the record's")
    for layer in layers:
        if layer not in record.layers:
            raise InputError(f"layer {layer} is not in the record: it holds {', '.join(map(str, record.layers))}")
    return [record.layers.index(layer) for layer in layers]


def _check_patches(item: ImageLens) -> None:
    if item.grid is None:
        raise InputError(f"{item.image}: its positions are no places in the image; draw the target's ranks instead")
    if not item.covers_patches:
        raise InputError(f"{item.image}: not all of its patches were read; run the probe on all the image's positions")
    if item.seen is None:
        raise InputError(f"{item.image}: its pixels were not kept; run the probe on fewer images")


def _beside_chance(item: ImageLens, word: str, row: int) -> str:
    index = _index(item, word)
    values = [f"highest {np.exp(item.targets[index].best_logprobs[row]):.2g}"]
    for control in item.controls:
        median = np.exp(np.median(control.best_logprobs[:, row, index]))
        values.append(f"{control.name.replace('_', ' ')} {median:.2g}")
    return "\n".join("  ·  ".join(values[i : i + 2]) for i in range(0, len(values), 2))
