"""Encoders compared: each entry by each metric, and the categories and kinds that a metric falls into."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from limber_interp.errors import InputError
from limber_interp.plotting.style import GREY, INK, bare, blank, inscribe, known, write
from limber_interp.records import Comparison, Entry, Metric, Score

# Told apart by colour-blind readers, in the light and in the dark (Okabe and Ito's; the last is one of Tol's)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#aa4466")
CONTROL_COLOURS = ("#6e6e6e", "#a3a3a3")
MARKS = {"trained": "o", "random": "^", "control": "s"}
MOST_METRICS, MOST_STACKS = 6, 3  # panels beside each other, above and below
WIDTH, PANEL, NAMES = 7.6, 1.45, 1.9  # in inches: at least, of a panel, of the entries' names
ROW, HEAD = 0.22, 0.75  # heights in inches: of an entry, of what is above and below the rows of a panel
HEAD_BELOW = 0.74  # the same where the rows are groups: there a title has two lines
DODGE, BETWEEN = 0.06, 0.1  # heights in inches where the rows are groups: of an entry, of the space between groups
LEGEND = 0.2  # height in inches of a line of it


class Groups(NamedTuple):
    """A metric in all its groups of one sort, such as by category."""

    metric: Metric
    by: str
    names: tuple[str, ...]


def figure(record: Comparison, path: str | Path) -> None:
    """Draw the headline metrics of a record; the ending of the path chooses the format (.png, .pdf, .svg). Where none
    has a score (of probes alone, of images without categories), all others are drawn.

    Above a panel per metric, with a row per entry: the estimate, its interval and, as an open mark, its chance level.
    Below the same metrics by category (and answers by kind of question), as far as the record has them, as Merullo et
    al. (arXiv 2209.15162) compare recall and Wu-Palmer similarity.

    That two intervals overlap does not say that the entries are alike: they are of the same images, and their
    difference is surer than either. It stands in the record's contrasts. Groups are of few images each; many are
    looked at, and one of many differs by chance.

    Raises:
        InputError: the record has no score, or the path cannot be written.
    """
    scored = [m for m in record.metrics if any(record.score(entry.name, m.name) for entry in record.entries)]
    metrics = [metric for metric in scored if metric.headline] or scored
    if not metrics:
        raise InputError("a comparison without a score of a headline metric or any other cannot be drawn")
    rows = math.ceil(len(metrics) / MOST_METRICS)
    columns = math.ceil(len(metrics) / rows)
    width = max(WIDTH, NAMES + PANEL * columns)
    above = rows * (ROW * len(record.entries) + HEAD)
    stacks = _stacks(record, metrics)
    per_line = int(width / 2.3)
    below = max(sum(_height(record, groups) for groups in stack) for stack in stacks) if stacks else 0.0
    below += 0.15 + LEGEND * math.ceil(len(record.entries) / per_line) if stacks else 0.0
    sheet = blank(width, above + below)
    if not stacks:
        _draw_metrics(sheet, record, metrics, rows, columns)
    else:
        grid = sheet.add_gridspec(2, 1, height_ratios=(above, below))
        _draw_metrics(sheet.add_subfigure(grid[0]), record, metrics, rows, columns)
        lower = sheet.add_subfigure(grid[1])
        _draw_stacks(lower, record, stacks)
        handles = [_sample(entry, colour) for entry, colour in zip(record.entries, colours(record), strict=True)]
        lower.legend(handles=handles, loc="outside upper left", ncols=per_line, frameon=False, fontsize=8)
    title = f"{Path(record.data).name}: {len(record.entries)} entries compared over {len(record.images)} images"
    inscribe(sheet, title, _caption(record, metrics, stacks))
    write(sheet, path)


def colours(record: Comparison) -> list[str]:
    """Of each entry; those that see no image are grey."""
    controls = [entry.kind == "control" for entry in record.entries]
    return [
        CONTROL_COLOURS[sum(controls[:i]) % len(CONTROL_COLOURS)]
        if control
        else COLOURS[(i - sum(controls[:i])) % len(COLOURS)]
        for i, control in enumerate(controls)
    ]


def _stacks(record: Comparison, metrics: Sequence[Metric]) -> list[list[Groups]]:
    """What is drawn by group, in columns of about the same height."""
    sorts = [(metric, by) for metric in metrics for by in dict.fromkeys(s.by for s in record.scores if s.by)]
    panels = [Groups(metric, by, _filled(record, metric, by)) for metric, by in sorts]
    panels = sorted((groups for groups in panels if groups.names), key=lambda groups: -len(groups.names))
    stacks: list[list[Groups]] = [[] for _ in panels[:MOST_STACKS]]
    for groups in panels:
        min(stacks, key=lambda stack: sum(_height(record, other) for other in stack)).append(groups)
    return stacks


def _filled(record: Comparison, metric: Metric, by: str) -> tuple[str, ...]:
    """The groups that any image falls into."""
    filled = {s.group for s in record.scores if (s.metric, s.by) == (metric.name, by) and s.estimate.n}
    return tuple(group for group in record.groups(metric.name, by) if group in filled)


def _height(record: Comparison, groups: Groups) -> float:
    """Of a panel, in inches."""
    return HEAD_BELOW + len(groups.names) * (DODGE * len(record.entries) + BETWEEN)


def _draw_metrics(sheet: FigureBase, record: Comparison, metrics: Sequence[Metric], rows: int, columns: int) -> None:
    """A panel each; an entry stands in the same row of all."""
    panels = sheet.subplots(rows, columns, squeeze=False).flatten()
    names = [known(entry.name, 30) for entry in record.entries]
    for i, (metric, axes) in enumerate(zip(metrics, panels, strict=False)):
        for y, (entry, colour) in enumerate(zip(record.entries, colours(record), strict=True)):
            score = record.score(entry.name, metric.name)
            if score is not None:
                _draw_score(axes, score, float(y), MARKS[entry.kind], colour, markersize=5.0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(range(len(names)), names if i % columns == 0 else [""] * len(names))
        _label(axes, metric, known(metric.label, 24))
    for axes in panels[len(metrics) :]:
        axes.set_axis_off()


def _draw_stacks(sheet: FigureBase, record: Comparison, stacks: Sequence[Sequence[Groups]]) -> None:
    """Panels below each other, in which a group takes the same height everywhere."""
    heights = [sum(_height(record, groups) for groups in stack) for stack in stacks]
    grid = sheet.add_gridspec(1, len(stacks))
    for i, stack in enumerate(stacks):
        column = sheet.add_subfigure(grid[i])
        ratios = [_height(record, groups) - HEAD_BELOW for groups in stack]  # of what is inside the axes
        if max(heights) - heights[i] > 0.01:
            ratios.append(max(heights) - heights[i])
        panels = column.subplots(len(ratios), 1, height_ratios=ratios, squeeze=False)[:, 0]
        for groups, axes in zip(stack, panels, strict=False):
            _draw_groups(axes, record, groups)
        for axes in panels[len(stack) :]:
            axes.set_axis_off()


def _draw_groups(axes: Axes, record: Comparison, groups: Groups) -> None:
    """The entries of a group close to each other, in their order."""
    step = DODGE / (DODGE * len(record.entries) + BETWEEN)  # of the distance between groups
    for y, name in enumerate(groups.names):
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color=INK, alpha=0.05, linewidth=0)
        for i, (entry, colour) in enumerate(zip(record.entries, colours(record), strict=True)):
            score = record.score(entry.name, groups.metric.name, groups.by, name)
            if score is not None:
                place = y + step * (i - (len(record.entries) - 1) / 2)
                _draw_score(axes, score, place, MARKS[entry.kind], colour, markersize=3.6)
    axes.set_ylim(len(groups.names) - 0.5, -0.5)
    axes.set_yticks(range(len(groups.names)), [_group_name(record, groups, name) for name in groups.names])
    _label(axes, groups.metric, f"{known(groups.metric.label, 30)}\nby {known(groups.by, 30)}")


def _group_name(record: Comparison, groups: Groups, name: str) -> str:
    """With the number of its images, if that is the same for all entries."""
    found = [record.score(entry.name, groups.metric.name, groups.by, name) for entry in record.entries]
    counts = {score.estimate.n for score in found if score is not None}
    return known(name, 24) + (f" ({counts.pop()})" if len(counts) == 1 else "")


def _draw_score(axes: Axes, score: Score, y: float, mark: str, colour: str, markersize: float) -> None:
    estimate = score.estimate
    ends = [estimate.low, estimate.high]
    axes.plot(ends, [y, y], color=colour, alpha=0.7, linewidth=0.3 * markersize, solid_capstyle="butt")
    axes.plot(estimate.value, y, mark, color=colour, markersize=markersize, markeredgewidth=0)
    if not math.isnan(score.chance):
        axes.plot(score.chance, y, "D", color=INK, fillstyle="none", markersize=0.7 * markersize, markeredgewidth=0.8)


def _label(axes: Axes, metric: Metric, title: str) -> None:
    arrow = {1: "", 0: "", -1: " ↓"}[metric.direction]
    axes.set_title(title + arrow, fontsize=9, parse_math=False, color=INK)
    axes.set_xlabel(known(metric.unit, 36), fontsize=8, parse_math=False, color=GREY)
    if metric.unit == "share":
        axes.set_xlim(-0.03, 1.03)
    elif axes.dataLim.xmin >= 0:
        axes.set_xlim(-0.03 * axes.dataLim.xmax, 1.05 * axes.dataLim.xmax or 1.0)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(labelsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    bare(axes)


def _sample(entry: Entry, colour: str) -> Line2D:
    """Of an entry, for the legend."""
    label = known(entry.name, 30)
    return Line2D([], [], color=colour, marker=MARKS[entry.kind], markersize=4, linewidth=1.2, label=label)


def _caption(record: Comparison, metrics: Sequence[Metric], stacks: Sequence[Sequence[Groups]]) -> str:
    return " ".join(_sentences(record, metrics, stacks))


def _sentences(record: Comparison, metrics: Sequence[Metric], stacks: Sequence[Sequence[Groups]]) -> Iterator[str]:
    questions = f" and {len(record.questions)} questions on them" if record.questions else ""
    prompt = known(record.prompt, 60)
    yield f"The same {len(record.images)} images{questions}, prompt “{prompt}” and seed ({record.seed}) for each."
    yield "Marks: estimates; bars: 95 % bootstrap intervals over images."
    if any(metric.direction < 0 for metric in metrics):
        yield "↓: less is better."
    kinds = [entry.kind for entry in record.entries]
    if "random" in kinds:
        yield "Triangles: encoders with random weights."
    if "control" in kinds:
        yield "Grey squares: entries that see no image of their own."
    chances = list(dict.fromkeys(metric.chance for metric in metrics if metric.chance))
    if chances:
        yield f"Open diamonds: chance levels ({'; '.join(chances)})."
    if stacks:
        yield "In brackets: images with something of the group."
    yield "Entries are of the same images, so that their differences are surer than their intervals look."
