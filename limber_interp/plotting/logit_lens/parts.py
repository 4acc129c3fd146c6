"""What the figures of a logit lens have in common: the axis of layers, the controls' lines and names, the image."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from limber_interp.plotting.style import GREY, INK, bare, drawable, known
from limber_interp.records import ImageLens, LensControl, LogitLens

LAYERS = (
    "Layer 0 is the input of the first block, layer l the output of the l-th block (resid_post), each through ln_final "
    "and the unembedding"
)
NO_CONTROL = "No control was run: these numbers alone say nothing."
THIS_IMAGE: dict[str, Any] = {"color": INK, "linestyle": "-", "marker": "o", "linewidth": 1.8, "markersize": 4}
# Of each control in turn: a colour (Okabe and Ito's, told apart by colour-blind readers), dashes and a marker
CONTROLS: tuple[dict[str, Any], ...] = tuple(
    {"color": colour, "linestyle": dashes, "marker": marker, "linewidth": 1.3, "markersize": 3.5}
    for colour, dashes, marker in (
        ("#0072b2", (0, (5, 2)), "s"),
        ("#d55e00", (0, (1, 1.2)), "^"),
        ("#009e73", (0, (6, 1.5, 1, 1.5)), "D"),
        ("#cc79a7", (0, (2, 1)), "v"),
        ("#b8860b", (0, (8, 2, 1, 2, 1, 2)), "X"),
    )
)


def named(record: LogitLens) -> str:
    """What a caption opens with."""
    return f"{known(str(record.manifest.config.get('name', 'unnamed')), 60)}: logit lens"


def counted(control: LensControl) -> str:
    """A control's name and the number of its draws."""
    return f"{control.name.replace('_', ' ')}, {control.n_draws} draw{'s'[: control.n_draws > 1]}"


def described(item: ImageLens) -> str:
    """The controls, as a caption has to name them."""
    each = "; ".join(f"{control.name.replace('_', ' ')}, {control.description}" for control in item.controls)
    return f"Controls (seed {item.controls[0].seed}): {each}." if item.controls else NO_CONTROL


def either(item: ImageLens) -> str:
    """The image's targets, as a caption names them."""
    return " or ".join(drawable(target.word, 30) for target in item.targets)


def layer_axis(axes: Axes, layers: Sequence[int]) -> None:
    """The record's layers along the horizontal axis, at most about ten of them with their numbers."""
    axes.set_xticks(layers[:: math.ceil(len(layers) / 10)])
    axes.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    axes.set_xlabel("layer", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(linewidth=0.4, alpha=0.5)
    bare(axes)


def draw_image(axes: Axes, item: ImageLens) -> None:
    """The image as the encoder sees it, with the numbers of its patches' rows and columns."""
    assert item.seen is not None
    axes.imshow(item.seen, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    if item.grid is not None:
        (rows, cols), (height, width, _) = item.grid, item.seen.shape
        axes.set_yticks([(row + 0.5) * height / rows - 0.5 for row in range(rows)], map(str, range(rows)))
        axes.set_xticks([(col + 0.5) * width / cols - 0.5 for col in range(cols)], map(str, range(cols)))
        axes.tick_params(length=0, pad=3, labelsize=6, labelcolor=GREY)


def square(item: ImageLens, place: tuple[int, int], share: float = 1.0) -> tuple[tuple[float, float], float, float]:
    """Corner, width and height, in the image's pixels, of a patch, or of its middle if `share` is below 1."""
    assert item.seen is not None
    assert item.grid is not None
    height, width = item.seen.shape[0] / item.grid[0], item.seen.shape[1] / item.grid[1]
    row, col = (number + (1 - share) / 2 for number in place)
    return (col * width - 0.5, row * height - 0.5), share * width, share * height


def outline(axes: Axes, item: ImageLens, place: tuple[int, int]) -> None:
    """A frame around a patch, to be seen on any image."""
    on_black = [Stroke(linewidth=3, foreground="black"), Normal()]
    corner, width, height = square(item, place)
    frame = Rectangle(corner, width, height, fill=False, edgecolor="white", linewidth=1.4, path_effects=on_black)
    axes.add_patch(frame).set_clip_on(False)  # at the image's edge too
