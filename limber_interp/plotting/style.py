"""What the figures share: colours, text that any font can show, captions, and how a sheet is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from limber_interp.errors import InputError
from limber_interp.records import WRITER, write_atomically
from limber_interp.text import printable, visible

COLOURS = "viridis"  # perceptually uniform, also in grey and to colour-blind readers
FONT = "DejaVu Sans"
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of red, green and blue (ITU-R BT.709)
INK, GREY = "#1a1a1a", "#6e6e6e"
CAPTION = 8.0  # points
TITLE, LINE = 0.3, 0.14  # heights in inches, the second of a caption's line
T = TypeVar("T")


def chosen(images: Sequence[T], index: int) -> T:
    """One of a record's images.

    Raises:
        InputError: there is no such image.
    """
    if not 0 <= index < len(images):
        raise InputError(f"image {index} of a record that holds {len(images)}: count from 0")
    return images[index]


def blank(width: float, height: float) -> Figure:
    """An empty sheet, in inches, without its title and caption; pyplot and its global state are left alone."""
    sheet = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(sheet)
    return sheet


def inscribe(sheet: Figure, title: str, caption: str) -> None:
    """Title above and caption below, for which the sheet grows; a dollar sign in them is no mathematics."""
    lines = _lines(caption, 0.96 * 72 / CAPTION * sheet.get_figwidth())
    sheet.set_figheight(sheet.get_figheight() + TITLE + LINE * len(lines))
    sheet.suptitle(known(title, 80), parse_math=False, fontweight="bold", color=INK)
    sheet.supxlabel("\n".join(lines), fontsize=CAPTION, color=GREY, parse_math=False, x=0.02, ha="left")


def write(sheet: Figure, path: str | Path, dpi: int = 200) -> None:
    """Write the sheet whole or not at all; the ending of the path chooses the format. The file says who wrote it.

    Raises:
        InputError: the path cannot be written.
    """
    key = "Software" if Path(path).suffix.lower() == ".png" else "Creator"
    write_atomically(path, lambda temporary: sheet.savefig(temporary, dpi=dpi, metadata={key: WRITER}))


def drawable(token: str, most: int) -> str:
    """A token, its spaces shown, with at most so many characters and none that the font lacks."""
    return known(visible(token), most)


def known(text: str, most: int) -> str:
    """At most so many characters, and none that the font lacks: those as their escapes, like control characters."""
    in_font = get_font(findfont(FONT)).get_charmap()
    text = "".join(c if ord(c) in in_font else c.encode("unicode_escape").decode() for c in printable(text))
    return text if len(text) <= most else text[: most - 1] + "…"


def fitted(text: str, points: float, largest: float, smallest: float) -> tuple[str, float]:
    """The text and the font size with which it is at most so many points wide: made smaller first, then cut."""
    shown = text = drawable(text, 40)
    for length in range(len(text), 0, -1):
        shown = text if length == len(text) else text[: length - 1] + "…"
        if points / _width(shown) >= smallest:
            break
    return shown, min(largest, points / _width(shown))


def ink_on(colour: Sequence[float] | np.ndarray) -> str:
    """Black or white, whichever can be read on the colour."""
    return "black" if np.asarray(colour)[:3] @ LUMINANCE > 0.4 else "white"


def bare(axes: Axes) -> None:
    """No ticks and no frame's upper and right line: what is left carries data."""
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(text: str, width: float) -> list[str]:
    """Broken between words such that no line is wider than so many multiples of the font size."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and _width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _width(text: str) -> float:
    """Of a line in the font, in multiples of the font size."""
    font = get_font(findfont(FONT))
    font.set_size(100, 72)
    font.set_text(text)
    return max(font.get_width_height()[0] / 6400, 0.1)  # in 64ths of a pixel
