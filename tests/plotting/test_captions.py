import numpy as np
import pytest
from PIL import Image

from limber_interp.plotting.captions import MOST, figure
from limber_interp.records import Caption, Captions, Manifest


@pytest.mark.parametrize("n_images", [1, 5])
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_contact_sheet(tmp_path, n_images: int, suffix: str):
    """Captions with what matplotlib would read as mathematics, and one of nothing."""
    texts = ["a $dog$ and $", "", "x_{", "word " * 40, "é"]
    seen = np.full((8, 8, 3), 200, dtype=np.uint8)
    manifest = Manifest({}, {}, "float32", "cpu", 0, {})
    images = tuple(Caption(f"{i}.png", texts[i], -1.0, -2.0, float("nan"), seen) for i in range(n_images))
    path = tmp_path / f"sheet{suffix}"
    figure(Captions("A picture of", images, "a $", manifest), path)
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    assert path.read_bytes().startswith(starts[suffix])
    if suffix == ".png":
        with Image.open(path) as drawn:
            assert len(drawn.convert("RGB").getcolors(10**6) or []) > 10


def test_a_sheet_of_very_many_images_shows_the_first(tmp_path):
    seen = np.full((8, 8, 3), 200, dtype=np.uint8)
    images = (Caption("many.png", "a dog", -1.0, -2.0, -3.0, seen),) * 600  # whole, it would be too long to be drawn
    figure(Captions("A picture of", images, "a", Manifest({}, {}, "float32", "cpu", 0, {})), tmp_path / "sheet.svg")
    drawn = (tmp_path / "sheet.svg").read_text()
    assert drawn.count("<image ") == MOST
