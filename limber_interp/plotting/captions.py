"""A contact sheet: each image as the encoder sees it, over its caption."""

import textwrap
import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from limber_interp.plotting.style import write
from limber_interp.records import Caption, Captions
from limber_interp.text import printable

COLUMNS = 4
MOST = 48  # images on one sheet; more would be too long to be drawn, or looked at
SAMPLES = 6  # of each image
WIDTH, GAP, LINE = 3.2, 0.1, 0.175  # of an image's place, around the image, of a line of text; inches


def figure(record: Captions, path: str | Path) -> None:
    """Write the contact sheet of the first `MOST` images; the ending chooses the format.

    Under each caption stands its score in nats per token and, for its chance level, the score without the image. Of
    several captions of an image the first `SAMPLES` are shown.

    Raises:
        InputError: the path cannot be written.
    """
    shown = record.images[:MOST]
    columns = min(COLUMNS, len(shown))
    under = [_under(item) for item in shown]
    rows = [range(start, min(start + columns, len(shown))) for start in range(0, len(shown), columns)]
    heights = [WIDTH + GAP + LINE * max(under[i].count("\n") + 1 for i in row) for row in rows]
    title = _title(record, columns)
    head = 2 * GAP + 1.2 * LINE * (title.count("\n") + 1)
    width, height = WIDTH * columns, sum(heights) + head
    sheet = Figure(figsize=(width, height))
    FigureCanvasAgg(sheet)
    size = WIDTH - 2 * GAP
    for number, row in enumerate(rows):
        bottom = height - head - sum(heights[:number]) - size
        for column, i in enumerate(row):
            place = (WIDTH * column + GAP) / width, bottom / height, size / width, size / height
            axes = sheet.add_axes(place)
            axes.imshow(shown[i].seen)
            axes.set_xticks([])
            axes.set_yticks([])
            left = len(shown[i].drawn) > 1
            x, align = (0.0, "left") if left else (0.5, "center")
            axes.text(x, -0.02, under[i], ha=align, va="top", transform=axes.transAxes, parse_math=False)
    sheet.text(0.5, 1 - GAP / height, title, ha="center", va="top", fontsize=12, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # a box is drawn, and a caption is no place to stop
        write(sheet, path, dpi=150)


def _under(item: Caption) -> str:
    """What stands under an image: its captions, each with its scores."""
    several = len(item.drawn) > 1
    lines = []
    for number, drawn in enumerate(item.drawn[:SAMPLES], 1):
        text = f"{number}. {printable(drawn.caption) or '(nothing)'}" if several else printable(drawn.caption)
        lines += textwrap.wrap(text, 36 if several else 32, max_lines=3 if several else 4) or ["(nothing)"]
        lines.append(f"{drawn.logprob:.2f} · without image {drawn.logprob_no_image:.2f}")
    if (more := len(item.drawn) - SAMPLES) > 0:
        lines.append(f"… and {more} more")
    return "\n".join(lines)


def _title(record: Captions, columns: int) -> str:
    blind = record.samples_no_image[:3] or (record.caption_no_image,)
    without = " / ".join(textwrap.shorten(printable(text), 60) or "(nothing)" for text in blind)
    title = f"{printable(record.prompt)} …   (without image: {without})"
    if len(record.images) > MOST:
        title += f"   (first {MOST} of {len(record.images)})"
    return "\n".join(textwrap.wrap(title, 34 * columns, max_lines=6, drop_whitespace=False))
