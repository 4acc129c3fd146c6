"""The curves of a training run."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from limber_interp.errors import InputError
from limber_interp.plotting.style import GREY, INK, bare, blank, inscribe, write
from limber_interp.records import TrainingRun

COLOURS = {"right": "#1b7837", "wrong": "#c2571a", "none": "#6e6e6e"}
LABELS = {"right": "held-out, right image", "wrong": "held-out, wrong image", "none": "held-out, no image"}
WINDOW = 0.02  # of the run, over which the training loss is averaged


def figure(record: TrainingRun, path: str | Path) -> None:
    """Write the training loss of every step, and the held-out losses where the run stopped to measure them.

    The gap between the right image and none is what the projection carries.

    Raises:
        InputError: there was no step, as in a closed form, or the path cannot be written.
    """
    if not record.steps:
        raise InputError("a closed form has no steps to draw; train by gradient, or leave out --figure")
    sheet = blank(7.2, 3.8)
    axes = sheet.add_subplot()
    steps, window = np.arange(1, record.steps + 1), max(1, round(WINDOW * record.steps))
    axes.plot(steps, record.losses, color=GREY, alpha=0.3, linewidth=0.6)
    smoothed = f"training, mean of {window} steps" if window > 1 else "training"
    axes.plot(*_smooth(record.losses, window), color=INK, linewidth=1.5, label=smoothed)
    measured = [*record.evaluations]
    if record.held_out:
        measured.append({"step": record.steps, **record.held_out})
    for kind, colour in COLOURS.items():
        points = [(e["step"], e[kind]) for e in measured if kind in e]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3.5, label=LABELS[kind])
    axes.set_xlabel("step")
    axes.set_ylabel("nats per caption token")
    axes.set_xlim(0, record.steps * 1.01)
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8)
    bare(axes)
    config = record.manifest.config
    inscribe(
        sheet,
        f"{config['name']}: {record.steps} steps",
        f"Cross entropy of captions after soft prompts. {record.examples} images, batches of "
        f"{config['batch_size'] * config['gradient_accumulation_steps']}, seed {record.manifest.seed}; training with "
        f"dropout {config['image_embed_dropout_prob']:g} on the prompt. Held-out losses leave out a caption's first "
        "token, before which nothing stands without an image.",
    )
    write(sheet, path)


def _smooth(
    losses: Float[np.ndarray, " step"], window: int
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """Means over windows of steps, each at its middle."""
    means = np.convolve(losses.astype(np.float64), np.ones(window) / window, mode="valid")
    return np.arange(len(means)) + (window + 1) / 2, means
