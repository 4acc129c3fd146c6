"""A contact sheet: each image as the encoder sees it, over its caption."""

import math
import textwrap
import warnings
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from limber_interp.plotting.style import write
from limber_interp.records import Captions
from limber_interp.text import printable

COLUMNS = 4
MOST = 48  # images on one sheet; more would be too long to be drawn, or looked at


def figure(record: Captions, path: str | Path) -> None:
    """Write the contact sheet of the first `MOST` images; the ending chooses the format.

    Under each caption stands its score in nats per token and, for its chance level, the score without the image.

    Raises:
        InputError: the path cannot be written.
    """
    shown = record.images[:MOST]
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    sheet = Figure(figsize=(3.2 * columns, 4.0 * rows), layout="constrained")
    FigureCanvasAgg(sheet)
    for i, item in enumerate(shown):
        axes = sheet.add_subplot(rows, columns, i + 1)
        axes.imshow(item.seen)
        axes.set_xticks([])
        axes.set_yticks([])
        caption = "\n".join(textwrap.wrap(printable(item.caption), 32, max_lines=4)) or "(nothing)"
        axes.set_xlabel(f"{caption}\n{item.logprob:.2f} · without image {item.logprob_no_image:.2f}", parse_math=False)
    blind = textwrap.shorten(printable(record.caption_no_image), 60) or "(nothing)"
    left_out = f"   (first {MOST} of {len(record.images)})" if len(record.images) > MOST else ""
    sheet.suptitle(f"{printable(record.prompt)} …   (without image: {blind}){left_out}", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # a box is drawn, and a caption is no place to stop
        write(sheet, path, dpi=150)
