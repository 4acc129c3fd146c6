"""One image's most probable tokens by layer and position, beside what the controls make probable."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from textwrap import wrap

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from limber_interp.plotting.logit_lens.parts import (
    CONTROLS,
    LAYERS,
    NO_CONTROL,
    THIS_IMAGE,
    counted,
    described,
    draw_image,
    either,
    layer_axis,
    named,
    outline,
)
from limber_interp.plotting.style import COLOURS, INK, blank, chosen, fitted, ink_on, inscribe, write
from limber_interp.records import ImageLens, LogitLens

WHOLE, STRONGEST = 16, 12  # so many of the image's positions are all in the table, and of more than these so many
MOST_TEXT, MOST_RANKS = 6, 10  # columns
CELL, BESIDE = 0.72, 1.6  # inches: a column's width, and what stands left and right of the table
ROW, HEAD = 0.25, 0.75  # inches: a row's height, and that of the table's labels
LOWEST = 4  # rows for which there is room at least: the colour scale needs it
LOWER, NARROWEST = 3.0, 10.5  # inches: height of the lower half, least width of the sheet


@dataclass(frozen=True)
class Table:
    """What stands in the cells, from the lowest layer up.

    Attributes:
        columns: the positions, by their index in the image's record.
        names: of the columns.
        outlined: cells whose position has a target among its k most probable tokens.
        rule: what the columns are, how they were chosen, and what is framed, for the caption.
    """

    columns: list[int]
    names: list[str]
    token_ids: Int[np.ndarray, "layers columns"]
    probabilities: Float[np.ndarray, "layers columns"]
    outlined: Bool[np.ndarray, "layers columns"]
    rule: str


def figure(record: LogitLens, path: str | Path, image: int = 0) -> None:
    """Draw one image of a record; the ending of the path chooses the format (.png, .pdf, .svg).

    Above, the most probable token at each layer and position, the last layer on top, coloured by its probability. Of
    many positions the table holds `STRONGEST` of the image's, chosen by a rule that the caption says; of a single one
    its k most probable tokens. Below, the image as the encoder sees it (if it was kept) with the patches of the table
    outlined, and the log-probability of the most probable token by layer beside that of the controls: there over all
    the image's positions that were read, since those in the table are chosen for being strong.

    Raises:
        InputError: there is no such image in the record, or the path cannot be written.
    """
    item = chosen(record.images, image)
    table = _best_tokens(record, item) if item.n_pos == 1 else _positions(record, item)
    height = ROW * max(LOWEST, len(record.layers)) + HEAD
    sheet = blank(max(NARROWEST, CELL * len(table.names) + BESIDE), height + LOWER)
    halves = sheet.add_gridspec(2, 1, height_ratios=(height, LOWER))
    upper, lower = sheet.add_subfigure(halves[0]), sheet.add_subfigure(halves[1])
    _draw_table(upper, record, table)
    widths = [1.0, 1.0, 0.5]
    if item.seen is None:
        panels = list(lower.subplots(1, 3, width_ratios=widths))
    else:
        picture, *panels = lower.subplots(1, 4, width_ratios=[1.0, *widths])
        draw_image(picture, item)
        for place in map(item.place, table.columns):
            if place is not None:
                outline(picture, item, place)
    _draw_chance(panels, record, item)
    inscribe(sheet, Path(item.image).name, _caption(record, item, table))
    write(sheet, path)


def _own(item: ImageLens) -> list[int]:
    """The image's own among the positions that were read; all, if none is."""
    return [i for i in range(item.n_pos) if not item.inputs[i]] or list(range(item.n_pos))


def _positions(record: LogitLens, item: ImageLens) -> Table:
    own = [i for i in range(item.n_pos) if not item.inputs[i]]
    text = [i for i in range(item.n_pos) if item.inputs[i]]
    rule = []
    if own:
        rule.append("patches by row and column" if any(map(item.place, own)) else "the image's positions")
    if len(own) > WHOLE:
        if item.targets:
            strength = np.stack([target.logprobs[:, own].max(axis=0) for target in item.targets])
            which = f"where {either(item)} is most probable at its best layer"
        else:
            strength = item.reading.logprobs[:, own, 0].mean(axis=0)[None]
            which = "whose most probable token has the highest log-probability, averaged over the layers"
        rule[-1] += f" (of {len(own)} those {STRONGEST} {which})"
        place = np.argsort(np.argsort(-strength, axis=1, kind="stable"), axis=1).min(axis=0)  # the best of its targets'
        own = sorted(own[i] for i in np.argsort(place, kind="stable")[:STRONGEST])
    if text:
        rule.append("the text's tokens" + f" (the last {MOST_TEXT} of {len(text)})" * (len(text) > MOST_TEXT))
    columns = own + text[-MOST_TEXT:]
    outlined = np.zeros((len(record.layers), len(columns)), dtype=bool)
    for target in item.targets:
        outlined |= target.ranks[:, columns] <= record.k
    return Table(
        columns=columns,
        names=[item.label(i) for i in columns],
        token_ids=item.reading.token_ids[:, columns, 0],
        probabilities=np.exp(item.reading.logprobs[:, columns, 0]),
        outlined=outlined,
        rule=f"Columns: {', then '.join(rule)}."
        + f" Framed: {either(item)} is among the {record.k} most probable." * bool(item.targets),
    )


def _best_tokens(record: LogitLens, item: ImageLens) -> Table:
    """Of a single position the k most probable tokens, for which there is room."""
    k = min(record.k, MOST_RANKS)
    token_ids = item.reading.token_ids[:, 0, :k]
    return Table(
        columns=[0],
        names=[str(i + 1) for i in range(k)],
        token_ids=token_ids,
        probabilities=np.exp(item.reading.logprobs[:, 0, :k]),
        outlined=np.isin(token_ids, [target.token_id for target in item.targets]),
        rule=f"Columns: the {k} most probable tokens at the one position that was read."
        + f" Framed: {either(item)}." * bool(item.targets),
    )


def _draw_table(sheet: SubFigure, record: LogitLens, table: Table) -> None:
    axes = sheet.subplots()
    n_layers, n_columns = table.token_ids.shape
    scale = axes.pcolormesh(table.probabilities, cmap=COLOURS, vmin=0, edgecolors="white", linewidth=0.8)
    width = 72 * (sheet.get_figure(root=True).get_figwidth() - BESIDE) / n_columns - 5  # of a cell's text, in points
    for row, column in np.ndindex(n_layers, n_columns):
        text, size = fitted(record.text(int(table.token_ids[row, column])), width, 8.5, 6.0)
        colour = ink_on(scale.to_rgba(table.probabilities[row, column]))
        middle = {"x": column + 0.5, "y": row + 0.5, "ha": "center", "va": "center"}
        axes.text(**middle, s=text, fontsize=size, color=colour, parse_math=False)
        if table.outlined[row, column]:
            frame = (column + 0.07, row + 0.1), 0.86, 0.8
            axes.add_patch(Rectangle(*frame, fill=False, edgecolor=colour, linewidth=1.3))
    axes.set_yticks(np.arange(n_layers) + 0.5, ["input" if layer == 0 else str(layer) for layer in record.layers])
    axes.set_ylabel("layer")
    fit = [fitted(name, width, 8.5, 6.0) for name in table.names]
    axes.set_xticks(np.arange(n_columns) + 0.5, [text for text, _ in fit], parse_math=False)
    for label, (_, size) in zip(axes.get_xticklabels(), fit, strict=True):
        label.set_fontsize(size)
    axes.tick_params(length=0, labelsize=8.5, axis="y")
    axes.tick_params(length=0, axis="x")
    axes.spines[:].set_visible(False)
    bar = sheet.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, aspect=7 * n_layers**0.5)
    bar.set_label("probability", color=INK)
    bar.outline.set_visible(False)


def _draw_chance(panels: Sequence[Axes], record: LogitLens, item: ImageLens) -> None:
    """The image's most probable tokens against the controls': medians, 95 % quantiles, and the lines' names."""
    *quantiles, names = panels
    quantiles[0].sharey(quantiles[1])
    own = _own(item)
    for axes, q, title in zip(quantiles, (0.5, 0.95), ("median", "95 % quantile"), strict=True):
        real = np.quantile(item.reading.logprobs[:, own, 0], q, axis=1)
        axes.plot(record.layers, real, **THIS_IMAGE, label="this image", zorder=3)
        for control, style in zip(item.controls, cycle(CONTROLS), strict=False):
            chance = np.quantile(control.top_logprobs[:, :, own], q, axis=(0, 2))
            axes.plot(record.layers, chance, **style, label=counted(control))
        axes.set_title(f"{title} over positions", fontsize=9)
        layer_axis(axes, record.layers)
    quantiles[0].set_ylabel("log-probability of\nthe most probable token (nats)", fontsize=9)
    names.axis("off")
    lines = quantiles[0].get_legend_handles_labels()
    legend = names.legend(*lines, loc="center left", frameon=False, fontsize=8, handlelength=3.5, alignment="left")
    if not item.controls:
        legend.set_title("\n".join(wrap(NO_CONTROL, 22)), FontProperties(size=8))


def _caption(record: LogitLens, item: ImageLens, table: Table) -> str:
    text = f"{named(record)}, k = {record.k}. {LAYERS}. Above: the most probable tokens, ␣ for a space. {table.rule}"
    if item.seen is not None:
        text += " Below: the image as the encoder sees it"
        text += ", framed the patches of the table." if any(map(item.place, table.columns)) else "."
    n_own, kind = len(_own(item)), "" if all(item.inputs) else "image "
    text += f" Curves: over the {n_own} {kind}position{'s' * (n_own > 1)} that {'were' if n_own > 1 else 'was'} read"
    text += ", a control's over its draws too. " if item.controls else ". "
    return text + described(item)
