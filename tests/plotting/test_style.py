import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from limber_interp.plotting.style import FONT, blank, drawable, fitted, ink_on, inscribe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" dog", "␣dog"),
        ("\n", "\\n"),
        ("$x$", "$x$"),
        ("中", "\\u4e2d"),
        ("🐶", "\\U0001f436"),
        ("extraordinary", "extraordi…"),
    ],
)
def test_any_token_can_be_drawn(text: str, shown: str):
    assert drawable(text, 10) == shown


@pytest.mark.parametrize("text", ["a", " dog", "extraordinarily", "W" * 60, "", "🐶🐶"])
@pytest.mark.parametrize("points", [20.0, 40.0, 200.0])
def test_text_is_made_to_fit(text: str, points: float):
    shown, size = fitted(text, points, 9.0, 6.0)
    assert size <= 9
    assert len(shown) <= 40
    if shown:
        width = TextPath((0, 0), shown, size=size, prop=FontProperties(family=FONT)).get_extents().width
        assert width <= points
    if shown != drawable(text, 40):
        assert shown.endswith("…")
        assert size >= 6


def test_ink_can_be_read():
    assert [ink_on(np.array([grey] * 3)) for grey in (0.0, 0.2, 0.7, 1.0)] == ["white", "white", "black", "black"]


def test_a_sheet_grows_with_its_caption():
    short, long = blank(7.0, 3.0), blank(7.0, 3.0)
    inscribe(short, "$a$", "word " * 3)
    inscribe(long, "$a$", "word " * 200)
    assert long.get_figheight() > short.get_figheight() + 1
    assert long._suptitle.get_text() == "$a$"
    long.canvas.draw()
    label = long._supxlabel.get_window_extent()
    assert label.x1 < long.bbox.x1
    assert label.y0 >= 0
