import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.plotting import nearest_tokens as plotting
from limber_interp.plotting.nearest_tokens import figure
from limber_interp.plotting.style import write
from limber_interp.records import Control, ImageTokens, Manifest, NearestTokens

WORDS = (" dog", " cat", "$x$", "\n", " extraordinarily", "中", "�", "<|endoftext|>")


def record_of(grid: tuple[int, int] | None, n_pos: int, controls: bool = True, k: int = 5) -> NearestTokens:
    random = np.random.default_rng(0)
    ids = np.stack([(np.arange(k) + position) % len(WORDS) for position in range(n_pos)]).astype(np.int32)
    scores = -np.sort(-random.normal(0.3, 0.1, (n_pos, k)), axis=1).astype(np.float32)
    noise = Control("noise", "Gaussian vectors", 7, random.normal(0.2, 0.1, (3, n_pos)).astype(np.float32))
    item = ImageTokens(
        image="folder/$a$.png",
        grid=grid,
        token_ids=ids,
        scores=scores,
        norms=np.ones(n_pos, dtype=np.float32),
        controls=(noise,) if controls else (),
        seen=random.integers(0, 256, (48, 48, 3), dtype=np.uint8),
    )
    manifest = Manifest(
        config={"name": "emoji_clip_linear"}, hashes={}, dtype="float32", device="cpu", seed=7, preprocessing={}
    )
    tokens = {str(i): word for i, word in enumerate(WORDS)}
    return NearestTokens("cosine", "W_E", k, (item,), tokens, {"median": 1.0}, manifest)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a record and gives the figure's two panels and its texts."""
    sheets: list[Figure] = []
    monkeypatch.setattr(plotting, "write", lambda sheet, path: sheets.append(sheet) or write(sheet, path))

    def draw(record: NearestTokens):
        figure(record, tmp_path / "out.png")
        sheets[-1].canvas.draw()  # at the resolution that extents are asked for
        left, right = sheets[-1].axes[:2]
        return left, right, sheets[-1].get_supxlabel()

    return draw


@pytest.mark.parametrize("grid", [(3, 3), (6, 6), (12, 12)])
def test_each_patch_carries_its_token_inside_of_it(drawn, grid):
    record = record_of(grid, grid[0] * grid[1])
    left, right, _ = drawn(record)
    labels = left.texts
    assert len(labels) == grid[0] * grid[1]
    assert [label.get_text() for label in labels[:4]] == ["dog", "cat", "$x$", "\\n"]
    assert {"\\u4e2d", "�"} <= {label.get_text() for label in labels}
    size = 48 / grid[0]
    for position, label in enumerate(labels):
        row, col = divmod(position, grid[1])
        box = label.get_bbox_patch().get_window_extent().transformed(left.transData.inverted())
        assert (col - 0.01) * size <= box.x0 + 0.5, label
        assert box.x1 + 0.5 <= (col + 1.01) * size, label
        assert row * size <= box.y1 + 0.5 <= box.y0 + 0.5 <= (row + 1.01) * size
        assert label.get_fontsize() >= 4
    best = record.images[0].strongest(1)[0]
    assert right.get_yticklabels()[0].get_text().endswith(f"  {record.images[0].place(best[2])}")


def test_positions_without_places_are_listed(drawn):
    left, right, caption = drawn(record_of(None, 1))
    assert not left.texts
    assert len(left.lines) == 0
    shown = [label.get_text() for label in right.get_yticklabels()]
    assert shown == ["␣dog", "␣cat", "$x$", "\\n", "␣extraordinarily", "noise, 3 draws"]
    assert "patch" not in caption
    _, right, _ = drawn(record_of(None, 3))
    assert re.fullmatch(r"\S+  \([012]\)", right.get_yticklabels()[0].get_text())


def test_the_caption_stands_alone(drawn):
    caption = drawn(record_of((3, 3), 9))[2].replace("\n", " ")
    for said in ("emoji_clip_linear", "W_E", "cosine", "k = 5", "noise, Gaussian vectors", "seed 7", "95 % quantile"):
        assert said in caption
    assert "No control was run" in drawn(record_of((3, 3), 9, controls=False))[2]


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_redrawn_from_disk(tmp_path, ending):
    record_of((3, 3), 9).save(tmp_path / "record.npz")
    path = tmp_path / f"figure.{ending}"
    figure(NearestTokens.load(tmp_path / "record.npz"), path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start)
    if ending == "png":
        with Image.open(path) as image:
            assert min(image.size) > 1000


@pytest.mark.parametrize(("image", "message"), [(1, "image 1 of a record that holds 1"), (0, "pixels were not kept")])
def test_bad_input(tmp_path, image, message):
    record = record_of((3, 3), 9)
    record = replace(record, images=(replace(record.images[0], seen=None),))
    with pytest.raises(InputError, match=message):
        figure(record, tmp_path / "out.png", image=image)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        figure(record_of(None, 1), tmp_path / "nowhere" / "out.png")
