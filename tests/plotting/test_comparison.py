from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.plotting import comparison as plotting
from limber_interp.plotting.comparison import colours, figure
from limber_interp.plotting.style import write
from limber_interp.records import Comparison
from tests.plotting.compared import comparison_of

LONG = "a_config_with_quite_a_long_name_$x$"
MANY = {f"{LONG}{i}": kind for i, kind in enumerate(["trained"] * 4 + ["random"] * 2 + ["control"] * 2)}
TEN = tuple(f"category {i}" for i in range(10))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a record and gives the sheet."""
    sheets: list[Figure] = []
    monkeypatch.setattr(plotting, "write", lambda sheet, path: sheets.append(sheet) or write(sheet, path))

    def draw(record: Comparison) -> Figure:
        figure(record, tmp_path / "out.png")
        sheets[-1].canvas.draw()  # at the resolution that extents are asked for
        return sheets[-1]

    return draw


def panels(sheet: Figure) -> dict:
    return {axes.get_title(): axes for axes in sheet.findobj(Axes) if axes.get_title()}


def points(axes, marks: str) -> list[tuple[float, float]]:
    """Places of the marks of some shapes, from above."""
    found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() in marks]
    return sorted(found, key=lambda point: point[1])


def test_each_entry_has_its_estimate_interval_and_chance_level(drawn):
    record = comparison_of()
    for metric in record.headlines:
        axes = panels(drawn(record))[metric.label]
        scores = [record.score(entry.name, metric.name) for entry in record.entries]
        expected = [(score.estimate.value, y) for y, score in enumerate(scores)]
        assert points(axes, "o^s") == pytest.approx(np.array(expected))
        assert points(axes, "D") == pytest.approx(np.array([(score.chance, y) for y, score in enumerate(scores)]))
        bars = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
        assert bars == [[score.estimate.low, score.estimate.high] for score in scores]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first entry on top


def test_groups_are_below_with_the_entries_in_order(drawn):
    record = comparison_of()
    axes = panels(drawn(record))["recall 1\nby category"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["animal (4)", "vehicle (4)"]
    expected = [
        record.score(entry.name, "recall_1", "category", group).estimate.value
        for group in ("animal", "vehicle")
        for entry in record.entries
    ]
    assert [x for x, _ in points(axes, "o^s")] == pytest.approx(expected)
    assert [round(y) for _, y in points(axes, "o^s")] == [0] * 4 + [1] * 4
    assert not points(axes, "D")  # groups have no chance level here


def test_a_group_that_no_image_falls_into_is_left_out(drawn):
    record = comparison_of()
    nothing = replace(record.scores[0].estimate, value=float("nan"), low=float("nan"), high=float("nan"), n=0)
    scores = [replace(s, estimate=nothing) if s.group == "animal" else s for s in record.scores]
    axes = panels(drawn(replace(record, scores=tuple(scores))))["recall 1\nby category"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["vehicle (4)"]


def test_an_entry_that_a_metric_says_nothing_of_keeps_its_row(drawn):
    record = comparison_of()
    scores = tuple(s for s in record.scores if (s.entry, s.metric) != ("nfrn", "cider_d"))
    axes = panels(drawn(replace(record, scores=scores)))["CIDEr-D"]
    assert [y for _, y in points(axes, "o^s")] == [0, 2, 3]
    assert len(axes.get_yticks()) == 4


def test_who_sees_no_image_is_grey_and_the_others_differ():
    record = comparison_of(MANY)
    found = colours(record)
    assert len(set(found)) == 8
    greys = [max(to_rgb(colour)) - min(to_rgb(colour)) < 0.01 for colour in found]
    assert greys == [False] * 6 + [True] * 2


def ink(texts: list[Text]) -> list[tuple[str, Bbox]]:
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]


@pytest.mark.parametrize(
    ("entries", "n_metrics", "categories"),
    [({"clip": "trained", "blind": "control"}, 2, ()), (MANY, 11, TEN), (MANY, 3, TEN)],
)
def test_no_text_overlaps_another_or_leaves_the_sheet(drawn, entries, n_metrics, categories):
    """Two entries by three metrics, and eight by twelve in ten categories, as answers are one of the metrics."""
    sheet = drawn(comparison_of(entries, n_metrics, categories))
    found = []
    for axes in sheet.findobj(Axes):
        if axes.axison:
            found += ink([axes.title, axes.xaxis.label, *axes.get_yticklabels()])
    found += ink([*sheet.texts, *(text for legend in sheet.findobj(Legend) for text in legend.get_texts())])
    assert len(found) > len(entries)
    for i, (text, box) in enumerate(found):
        assert box.x0 >= 0, text
        assert box.x1 <= sheet.bbox.x1, text
        assert box.y0 >= 0, text
        assert box.y1 <= sheet.bbox.y1, text
        for other, beside in found[i + 1 :]:
            assert not box.padded(-1).overlaps(beside.padded(-1)), (text, other)


def test_the_caption_stands_alone(drawn):
    sheet = drawn(comparison_of())
    assert sheet.get_suptitle() == "scenes: 4 entries compared over 8 images"
    caption = sheet.get_supxlabel().replace("\n", " ")
    for said in ("8 images", "16 questions", "“A picture of”", "seed (7)", "95 %", "another image's references"):
        assert said in caption
    assert "Open diamonds" in caption
    assert "Triangles" in caption
    alone = drawn(comparison_of({"clip": "trained"}, categories=(), n_questions=0)).get_supxlabel()
    assert "Triangles" not in alone
    assert "questions" not in alone
    assert "brackets" not in alone


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_redrawn_from_disk(tmp_path, ending):
    comparison_of().save(tmp_path / "record.npz")
    path = tmp_path / f"figure.{ending}"
    figure(Comparison.load(tmp_path / "record.npz"), path)
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(start)
    if ending == "png":
        with Image.open(path) as image:
            assert min(image.size) > 700


def test_without_a_headline_all_metrics_are_drawn(drawn):
    """Probes of images without categories have none, and after the whole comparison its figure was refused."""
    record = comparison_of(categories=(), n_questions=0)
    record = replace(record, metrics=tuple(replace(metric, headline=False) for metric in record.metrics))
    titles = {axes.get_title() for axes in drawn(record).findobj(Axes)}
    assert titles >= {metric.label for metric in record.metrics}


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="without a score of a headline metric"):
        figure(replace(comparison_of(), scores=()), tmp_path / "out.png")
    with pytest.raises(InputError, match="cannot be written"):
        figure(comparison_of(), tmp_path / "nowhere" / "out.png")
    assert not list(tmp_path.iterdir())
