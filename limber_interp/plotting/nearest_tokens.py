"""One image's nearest tokens: on its patches, and the strongest of them against what the controls score."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from limber_interp.errors import InputError
from limber_interp.plotting.style import COLOURS, GREY, INK, blank, chosen, drawable, ink_on, inscribe, write
from limber_interp.records import ImageTokens, NearestTokens

PATCHES, LIST = 5.6, 5.4  # widths of the two halves, in inches
N_STRONGEST = 12
SCORES = {
    "cosine": "cosine",
    "dot": "dot product",
    "euclidean": "minus the Euclidean distance",
    "centred_cosine": "cosine, the vocabulary's mean removed",
}


def figure(record: NearestTokens, path: str | Path, image: int = 0) -> None:
    """Draw one image of a record; the ending of the path chooses the format (.png, .pdf, .svg).

    Left the image as the encoder sees it, each patch labelled with its nearest token and coloured by the score; an
    encoder whose positions are no places has no labels there. Right the strongest tokens of all positions over the
    scores of each control, on one axis. The strongest of many positions is strong by chance too: it is to be compared
    to the far end of a control, not to the line at its 95 % quantile.

    Raises:
        InputError: there is no such image in the record, its pixels were not kept, or the path cannot be written.
    """
    item = chosen(record.images, image)
    if item.seen is None:
        raise InputError(f"{item.image}: its pixels were not kept; run the probe with keep_seen above {image}")
    sheet = blank(PATCHES + LIST, 5.7)
    left, right = sheet.subplots(1, 2, width_ratios=(PATCHES, LIST))
    nearest = item.scores[:, 0]
    colours = ScalarMappable(Normalize(nearest.min(), max(nearest.max(), nearest.min() + 1e-6)), COLOURS)

    left.imshow(item.seen, interpolation="nearest")
    left.set_xticks([])
    left.set_yticks([])
    if item.grid is not None:
        _label_patches(left, record, item, colours)
        bar = sheet.colorbar(colours, ax=left, location="bottom", fraction=0.04, pad=0.02)
        bar.set_label(f"score of each patch's nearest token ({SCORES[record.metric]})", color=INK)
        bar.outline.set_visible(False)
    _list_strongest(right, record, item, colours)
    inscribe(sheet, Path(item.image).name, _caption(record, item))
    write(sheet, path)


def _label_patches(axes: Axes, record: NearestTokens, item: ImageTokens, colours: ScalarMappable) -> None:
    assert item.grid is not None
    assert item.seen is not None
    (rows, cols), (height, width, _) = item.grid, item.seen.shape
    for row in range(1, rows):
        axes.axhline(row * height / rows - 0.5, color="white", linewidth=0.6, alpha=0.8)
    for col in range(1, cols):
        axes.axvline(col * width / cols - 0.5, color="white", linewidth=0.6, alpha=0.8)
    most = 7 if cols > 7 else 12
    labels = [drawable(record.text(token).strip(" ") or " ", most) for token in item.token_ids[:, 0].tolist()]
    points = 72 * (PATCHES - 0.4) / cols  # width of a patch on paper, which the longest label fills
    fontsize = min(12.0, points / (0.7 * max(map(len, labels)) + 1.2))
    for position, (label, colour) in enumerate(zip(labels, colours.to_rgba(item.scores[:, 0]), strict=True)):
        row, col = divmod(position, cols)
        axes.text(
            (col + 0.5) * width / cols - 0.5,
            (row + 0.94) * height / rows - 0.5,
            label,
            ha="center",
            va="bottom",
            fontsize=fontsize,
            color=ink_on(colour),
            bbox={"boxstyle": "round,pad=0.18", "facecolor": colour, "edgecolor": "white", "linewidth": 0.5},
            parse_math=False,
        )


def _list_strongest(axes: Axes, record: NearestTokens, item: ImageTokens, colours: ScalarMappable) -> None:
    strongest = item.strongest(N_STRONGEST)
    ticks, names = [float(y) for y in range(len(strongest))], []
    scores = np.array([score for _, score, _ in strongest])
    dots = [INK] if item.grid is None else colours.to_rgba(scores)
    axes.scatter(scores, ticks, s=60, c=dots, edgecolors=INK, linewidths=0.6, zorder=3)
    for token, _, position in strongest:
        place = item.place(position)
        where = "" if item.n_pos == 1 else f"  ({position})" if place is None else f"  {place}"
        names.append(drawable(record.text(token), 18) + where)
    y = ticks[-1] + 0.4
    random = np.random.default_rng(0)  # of the jitter alone
    for control in item.controls:
        y += 1.4
        ticks.append(y)
        names.append(f"{control.name.replace('_', ' ')}, {control.n_draws} draw{'s'[: control.n_draws > 1]}")
        scores = control.scores.ravel()
        jitter = random.uniform(-0.4, 0.4, len(scores))
        alpha = float(np.clip(100 / len(scores), 0.1, 0.6))
        axes.plot(scores, y + jitter, ".", markersize=4, color=GREY, alpha=alpha, markeredgewidth=0, rasterized=True)
        axes.plot([control.q95] * 2, [-0.6, y + 0.5], "--", linewidth=0.9, color=GREY, zorder=0)
        axes.plot([control.q95] * 2, [y - 0.5, y + 0.5], linewidth=2, color=INK)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_ylim(y + 0.8, -0.7)
    axes.set_xlabel(f"score ({SCORES[record.metric]})", color=INK)
    axes.tick_params(length=0)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _caption(record: NearestTokens, item: ImageTokens) -> str:
    config = record.manifest.config.get("name", "unnamed")
    text = f"{config}: rows of {record.matrix} nearest to the soft prompt by {record.metric}, k = {record.k}. "
    if item.grid is not None:
        text += "On each patch its nearest token, without leading space. "
    where = {True: "", False: " (row, column)" if item.grid else " (position)"}[item.n_pos == 1]
    text += f"Right: the strongest tokens of all positions{where}, ␣ for a space"
    if item.controls:
        described = "; ".join(f"{c.name.replace('_', ' ')}, {c.description}" for c in item.controls)
        text += f", above the nearest token's score at each position of the controls (seed {item.controls[0].seed}): "
        text += f"{described}. Dashed: each control's 95 % quantile over positions."
    else:
        text += ". No control was run: these scores alone say nothing."
    return text
