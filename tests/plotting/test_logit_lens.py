from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Stroke
from matplotlib.text import Text
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.plotting.logit_lens import figure, patches, ranks, sheet, targets
from limber_interp.records import (
    ImageLens,
    LayerReading,
    LensControl,
    LensTarget,
    LogitLens,
    Manifest,
)

WORDS = (" dog", " cat", "$x$", "\n", " extraordinarily", "中", "🐶", "<|endoftext|>")
SHOWN = ("␣dog", "␣cat", "$x$", "\\n", "␣extraordinarily", "\\u4e2d", "\\U0001f436", "<|endoftext|>")
TEXT = ("A", " $x$", " of")
CONTROLS = ("noise", "random_map", "random_encoder", "mean_prompt", "other_images")
K = 3


def record_of(
    grid: tuple[int, int] | None = (3, 3),
    n_own: int | None = None,
    n_layers: int = 4,
    text: tuple[str, ...] = (),
    followed: tuple[str, ...] = (" dog",),
    controls: tuple[str, ...] = CONTROLS[:2],
    tested: bool = True,
) -> LogitLens:
    """Readings of random logits over the eight words, whole: ranks, targets and controls belong together."""
    random = np.random.default_rng(0)
    n_own = n_own or (grid[0] * grid[1] if grid else 1)
    n_pos, ids = n_own + len(text), [WORDS.index(word) for word in followed]

    def logprobs() -> np.ndarray:
        logits = random.normal(0, np.linspace(1, 4, n_layers)[:, None, None], (n_layers, n_pos, len(WORDS)))
        return (logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))).astype(np.float32)

    def reading(values: np.ndarray) -> LayerReading:
        order = np.argsort(-values, axis=-1)[..., :K].astype(np.int32)
        zeros = np.zeros(values.shape[:2], dtype=np.float32)
        top = np.take_along_axis(values, order.astype(np.int64), axis=-1)
        return LayerReading(order, top, zeros, zeros, order[..., 0] == order[-1:, :, 0])

    def ranks_of(values: np.ndarray) -> np.ndarray:
        return (values[..., None, ids].swapaxes(-1, -2) < values[..., None, :]).sum(axis=-1).astype(np.int32) + 1

    def control(name: str) -> LensControl:
        draws = np.stack([logprobs() for _ in range(5)])
        best = np.stack([ranks_of(draw).min(axis=1) for draw in draws])
        return LensControl(
            name, f"about {name}", 7, reading(draws[0]), draws.max(axis=-1), best, draws[..., ids].max(axis=2)
        )

    values = logprobs()
    p = np.linspace(0.01, 1, n_layers) if tested else None
    item = ImageLens(
        image="folder/$a$.png",
        grid=grid,
        image_start=0,
        positions=np.arange(n_pos),
        inputs=("",) * n_own + text,
        reading=reading(values),
        targets=tuple(
            LensTarget(
                word.strip(), word, ids[i], ranks_of(values)[..., i], values[..., ids[i]], values[..., ids[i]], p, 99
            )
            for i, word in enumerate(followed)
        ),
        controls=tuple(control(name) for name in controls),
        seen=random.integers(0, 256, (48, 48, 3), dtype=np.uint8),
    )
    manifest = Manifest({"name": "emoji_clip_linear"}, {}, "float32", "cpu", 7, {})
    tokens = {str(i): word for i, word in enumerate(WORDS)}
    return LogitLens(K, tuple(range(n_layers)), None, (item,), tokens, manifest)


def without(record: LogitLens, **changes) -> LogitLens:
    return replace(record, images=(replace(record.images[0], **changes),))


@pytest.fixture
def drawn(monkeypatch):
    """Draws a figure and gives the sheet, laid out, instead of writing it."""
    sheets: list[Figure] = []
    for module in (sheet, targets):
        monkeypatch.setattr(module, "write", lambda drawn, path: sheets.append(drawn))

    def draw(function, *args, **kwargs) -> Figure:
        record, *rest = args
        function(record, "out.png", *rest, **kwargs)
        sheets[-1].canvas.draw()
        return sheets[-1]

    return draw


def panel(drawn: Figure, title: str):
    (found,) = (axes for axes in drawn.findobj(lambda part: getattr(part, "get_title", str)() == title))
    return found


def table_of(drawn: Figure):
    """The table's axes, its columns' names and its cells' texts, from the lowest layer up."""
    (axes,) = (axes for axes in drawn.subfigs[0].axes if axes.get_ylabel() == "layer")
    names = [label.get_text() for label in axes.get_xticklabels()]
    cells = [text.get_text() for text in axes.texts]
    return axes, names, [cells[i : i + len(names)] for i in range(0, len(cells), len(names))]


def framed(axes) -> list[tuple[float, float]]:
    """Corners of the frames around patches."""
    return [
        patch.get_xy()
        for patch in axes.patches
        if isinstance(patch, Rectangle) and any(isinstance(effect, Stroke) for effect in patch.get_path_effects())
    ]


def caption_of(drawn: Figure) -> str:
    return drawn.get_supxlabel().replace("\n", " ")


def test_the_table_holds_the_most_probable_tokens(drawn):
    record = record_of(text=TEXT)
    axes, names, cells = table_of(drawn(figure, record))
    assert names == [f"{row},{col}" for row in range(3) for col in range(3)] + ["A", "␣$x$", "␣of"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["input", "1", "2", "3"]
    assert axes.get_ylim() == (0, 4)  # the last layer on top
    for row, ids in zip(cells, record.images[0].reading.token_ids[:, :, 0], strict=True):
        for cell, token in zip(row, ids, strict=True):
            assert cell == SHOWN[token] or SHOWN[token].startswith(cell.rstrip("…"))
    colours = axes.collections[0].get_array()
    np.testing.assert_allclose(colours, np.exp(record.images[0].reading.logprobs[:, :, 0]))


@pytest.mark.parametrize(("grid", "text"), [((3, 3), ()), ((4, 4), TEXT), ((12, 12), TEXT), (None, TEXT), (None, ())])
def test_each_token_stands_inside_of_its_cell(drawn, grid, text):
    axes, names, _ = table_of(drawn(figure, record_of(grid, text=text)))
    for i, label in enumerate(axes.texts):
        row, column = divmod(i, len(names))
        box = label.get_window_extent().transformed(axes.transData.inverted())
        assert column <= box.x0 <= box.x1 <= column + 1, label
        assert row <= box.y0 <= box.y1 <= row + 1, label
        assert label.get_fontsize() >= 6


@pytest.mark.parametrize("grid", [(12, 12), (14, 14)])
def test_of_many_patches_the_table_holds_those_of_the_targets(drawn, grid):
    record = record_of(grid, text=TEXT, n_layers=2)
    best = record.images[0].targets[0].logprobs[:, : grid[0] * grid[1]].max(axis=0)
    expected = sorted(np.argsort(-best)[: sheet.STRONGEST].tolist())
    drawn = drawn(figure, record)
    _, names, _ = table_of(drawn)
    assert names[:-3] == ["{},{}".format(*divmod(i, grid[1])) for i in expected]
    corners = framed(drawn.subfigs[1].axes[0])
    assert corners == [
        pytest.approx((i % grid[1] * 48 / grid[1] - 0.5, i // grid[1] * 48 / grid[0] - 0.5)) for i in expected
    ]
    assert f"of {len(best)} those 12 where dog is most probable at its best layer" in caption_of(drawn)


def test_several_targets_share_the_table(drawn):
    """One that is improbable everywhere is not left out."""
    record = record_of((6, 6), followed=(" dog", " cat"))
    first, second = record.images[0].targets
    rare = replace(second, logprobs=second.logprobs - 100)
    _, names, _ = table_of(drawn(figure, without(record, targets=(first, rare))))
    for target in (first, rare):
        for i in np.argsort(-target.logprobs.max(axis=0))[:5].tolist():
            assert "{},{}".format(*divmod(i, 6)) in names


def test_without_targets_the_table_holds_the_surest_patches(drawn):
    record = record_of((6, 6), followed=())
    surest = np.argsort(-record.images[0].reading.logprobs[:, :, 0].mean(axis=0))[:12].tolist()
    drawn = drawn(figure, record)
    assert table_of(drawn)[1] == ["{},{}".format(*divmod(i, 6)) for i in sorted(surest)]
    assert "averaged over the layers" in caption_of(drawn)
    assert "Framed:" not in caption_of(drawn)


def test_targets_among_the_top_are_framed(drawn):
    record = record_of()
    axes, _, _ = table_of(drawn(figure, record))
    corners = {(int(patch.get_y()), int(patch.get_x())) for patch in axes.patches}
    assert corners == set(map(tuple, np.argwhere(record.images[0].targets[0].ranks <= K)))


def test_one_position_is_a_list_of_its_tokens(drawn):
    record = record_of(None, 1)
    drawn = drawn(figure, record)
    _, names, cells = table_of(drawn)
    assert names == ["1", "2", "3"]
    assert cells == [[SHOWN[token] for token in ids] for ids in record.images[0].reading.token_ids[:, 0]]
    assert not framed(drawn.subfigs[1].axes[0])
    assert "patch" not in caption_of(drawn)


def test_positions_without_places_are_numbered(drawn):
    drawn = drawn(figure, record_of(None, 4))
    assert table_of(drawn)[1] == ["0", "1", "2", "3"]
    assert not framed(drawn.subfigs[1].axes[0])
    assert "patch" not in caption_of(drawn)


def test_a_long_text_keeps_its_end(drawn):
    drawn = drawn(figure, record_of((2, 2), text=tuple("abcdefghij")))
    assert table_of(drawn)[1][4:] == list("efghij")
    assert "the last 6 of 10" in caption_of(drawn)


def test_the_curves_are_the_records(drawn):
    """Over the image's own positions alone: what the text makes probable is no chance level of the image."""
    record = record_of(text=TEXT, controls=CONTROLS)
    item = record.images[0]
    drawn = drawn(figure, record)
    for q, title in ((0.5, "median over positions"), (0.95, "95 % quantile over positions")):
        real, *chance = panel(drawn, title).lines
        assert real.get_xdata().tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(real.get_ydata(), np.quantile(item.reading.logprobs[:, :9, 0], q, axis=1))
        for line, control in zip(chance, item.controls, strict=True):
            np.testing.assert_allclose(
                line.get_ydata(), np.quantile(control.top_logprobs[:, :, :9], q, axis=(0, 2)), rtol=1e-6
            )
    lines = [real, *chance]
    assert len({line.get_marker() for line in lines}) == len(lines)  # without colours too
    names = [text.get_text() for text in drawn.subfigs[1].axes[-1].get_legend().get_texts()]
    assert names == ["this image", *(f"{name.replace('_', ' ')}, 5 draws" for name in CONTROLS)]


def test_the_captions_stand_alone(drawn):
    record = record_of()
    for sheet_drawn in (drawn(figure, record), drawn(patches, record, "dog"), drawn(ranks, record, "dog")):
        caption = caption_of(sheet_drawn)
        for said in ("emoji_clip_linear", "resid_post", "random map, about random_map", "seed 7"):
            assert said in caption
        assert sheet_drawn.get_suptitle() == "$a$.png"
    bare = record_of(controls=(), tested=False)
    for sheet_drawn in (drawn(figure, bare), drawn(patches, bare, "dog"), drawn(ranks, bare, "dog")):
        assert "No control was run: these numbers alone say nothing." in caption_of(sheet_drawn)
    assert "No control was run" in drawn(figure, bare).subfigs[1].axes[-1].get_legend().get_title().get_text()


@pytest.mark.parametrize("n_layers", [1, 29])
@pytest.mark.parametrize("grid", [(2, 2), None])
def test_any_depth(drawn, grid, n_layers):
    record = record_of(grid, n_layers=n_layers)
    assert len(table_of(drawn(figure, record))[2]) == n_layers
    assert len(panel(drawn(ranks, record, "dog"), "noise, 5 draws").lines[0].get_xdata()) == n_layers
    drawn(figure, without(record, seen=None))


def test_a_targets_probability_on_its_patches(drawn):
    record = record_of()
    probabilities = np.exp(record.images[0].targets[0].logprobs)
    drawn = drawn(patches, record, "dog", layers=[0, 3])
    *panels, bar = drawn.axes
    assert [axes.get_title() for axes in panels] == ["input", "layer 3"]
    assert bar.get_ylabel() == "probability of ␣dog"
    assert bar.get_ylim() == pytest.approx((0, probabilities[[0, 3]].max()))
    for axes, values in zip(panels, probabilities[[0, 3]], strict=True):
        assert len(axes.images) == 1
        *squares, frame = axes.patches
        assert len(squares) == 9
        for patch, square in enumerate(squares):
            x, y = square.get_center()
            assert (int(y // 16), int(x // 16)) == divmod(patch, 3)
        widths = [square.get_width() for square in squares]
        assert np.argsort(widths).tolist() == np.argsort(values).tolist()
        assert max(widths) < 16  # the image stays visible
        row, col = divmod(int(values.argmax()), 3)
        assert frame.get_xy() == (col * 16 - 0.5, row * 16 - 0.5)
    same = [
        axes.patches[int(values.argmax())].get_width()
        for axes, values in zip(panels, probabilities[[0, 3]], strict=True)
    ]
    assert (same[0] < same[1]) == (probabilities[0].max() < probabilities[3].max())  # one scale
    control = record.images[0].controls[0]
    assert f"noise {np.exp(np.median(control.best_logprobs[:, 3, 0])):.2g}" in panels[1].get_xlabel()
    assert f"highest {probabilities[3].max():.2g}" in panels[1].get_xlabel()


@pytest.mark.parametrize(("n_layers", "titles"), [(1, "input"), (3, "input 1 2"), (29, "input 6 11 17 22 28")])
def test_the_layers_that_are_drawn_unasked(drawn, n_layers, titles):
    *panels, _ = drawn(patches, record_of((2, 2), n_layers=n_layers), "dog").axes
    assert " ".join(axes.get_title().removeprefix("layer ") for axes in panels) == titles


def test_a_target_of_no_probability(drawn):
    record = record_of((2, 2))
    target = record.images[0].targets[0]
    nowhere = replace(target, logprobs=np.full_like(target.logprobs, -1000))
    *_, bar = drawn(patches, without(record, targets=(nowhere,)), "dog").axes
    assert bar.get_ylim()[0] == 0


def test_a_targets_rank_beside_each_control(drawn):
    record = record_of(followed=(" cat", " dog"), controls=CONTROLS)
    item = record.images[0]
    drawn = drawn(ranks, record, "dog")
    for control in item.controls:
        axes = panel(drawn, f"{control.name.replace('_', ' ')}, 5 draws")
        real, chance = axes.lines
        np.testing.assert_array_equal(real.get_ydata(), item.targets[1].best_ranks)
        band = control.band(1)
        np.testing.assert_array_equal(chance.get_ydata(), band["median"])
        outline = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert {*outline} == {*band["q05"], *band["q95"]}
        bottom, top = axes.get_ylim()
        assert top < 1 < bottom  # rank 1 on top
        assert axes.get_yscale() == "log"
    tested = panel(drawn, "permutation p-value")
    np.testing.assert_array_equal(tested.lines[0].get_ydata(), item.targets[1].p_words)
    assert [line.get_ydata()[0] for line in tested.lines[1:]] == [0.05, 0.05 / 4]
    assert [text.get_text() for text in tested.get_legend().get_texts()] == ["against 99 other words"]


def test_p_values_against_other_images(drawn):
    record = record_of()
    target = replace(record.images[0].targets[0], p_images=np.full(4, 0.05), n_images=19)
    axes = panel(drawn(ranks, without(record, targets=(target,)), "dog"), "permutation p-value")
    assert axes.lines[1].get_ydata().tolist() == [0.05] * 4
    assert axes.get_legend().get_texts()[1].get_text() == "against 19 other images"
    said = " ".join(axes.get_figure().get_supxlabel().split())
    assert "the smallest p-value that there can be: 0.01 against 99 words, 0.05 against 19 images." in said


def test_no_token_is_mathematics(drawn):
    record = record_of(followed=("$x$",), text=("$a$", "_{"))
    for sheet_drawn in (drawn(figure, record), drawn(patches, record, "$x$"), drawn(ranks, record, "$x$")):
        texts = [text for text in sheet_drawn.findobj(Text) if "$" in text.get_text()]
        assert texts
        assert not any(text.get_parse_math() for text in texts)


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_redrawn_from_disk(tmp_path, ending):
    record_of(text=TEXT).save(tmp_path / "record.npz")
    record = LogitLens.load(tmp_path / "record.npz")
    path = tmp_path / f"out.{ending}"
    for draw, args in ((figure, ()), (patches, ("dog",)), (ranks, ("dog",))):
        draw(record, path, *args)
        start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
        assert path.read_bytes().startswith(start)
        if ending == "png":
            with Image.open(path) as image:
                assert image.width > 1000
        path.unlink()
    assert [file.name for file in tmp_path.iterdir()] == ["record.npz"]


@pytest.mark.parametrize(
    ("draw", "args", "changes", "message"),
    [
        (figure, (), {"image": 1}, "image 1 of a record that holds 1: count from 0"),
        (patches, ("dog",), {"image": -1}, "image -1 of a record that holds 1"),
        (ranks, ("cat",), {}, "target 'cat' was not followed at .*: the record holds dog; run"),
        (patches, ("cat",), {}, "target 'cat' was not followed"),
        (patches, ("dog",), {"layers": [9]}, "layer 9 is not in the record: it holds 0, 1, 2, 3"),
        (patches, ("dog",), {"layers": []}, "no layer to draw"),
        (patches, ("dog",), {"grid": None}, r"\$a\$.png: its positions are no places in the image"),
        (patches, ("dog",), {"grid": (4, 4)}, "not all of its patches were read"),
        (patches, ("dog",), {"seen": None}, "its pixels were not kept"),
        (ranks, ("dog",), {"targets": ()}, "the record holds none"),
    ],
)
def test_bad_input(tmp_path, draw, args, changes, message):
    fields = {name: changes.pop(name) for name in ("grid", "seen", "targets") if name in changes}
    with pytest.raises(InputError, match=message):
        draw(without(record_of(), **fields), tmp_path / "out.png", *args, **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("draw", "args"), [(figure, ()), (patches, ("dog",)), (ranks, ("dog",))])
def test_a_folder_that_is_not_there(tmp_path, draw, args):
    with pytest.raises(InputError, match="cannot be written"):
        draw(record_of(), tmp_path / "nowhere" / "out.png", *args)
