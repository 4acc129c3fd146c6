"""Train a config's projection: encoder and language model frozen, one linear layer between them."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from limber_interp.cli import ModelOptions, Report, progress, run
from limber_interp.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Train a config's projection: encoder and language model frozen, one linear layer between them."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Where <config>.safetensors and its log <config>.jsonl go; a projection there is not replaced."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Captioned images in LIMBER's folder format; none: the config's train_dataset_dir."""
    held_out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """The same, unseen, for the losses at the end; none: the config's eval_dataset_dir."""
    encodings: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Keep the frozen encoder's outputs here between runs; none: in the output folder."""
    train_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Instead of the config's."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Instead of the config's."""
    lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Instead of the config's."""
    save_every: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Steps between checkpoints, in <config>.checkpoints; none: the config's."""
    resume: bool = False
    """Go on after the newest whole checkpoint."""
    method: Literal["gradient", "least-squares", "ridge", "procrustes"] = "gradient"
    """How the projection is found: by training, or in closed form from encodings and caption embeddings."""
    init: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Train from this projection, such as one found in closed form; none: from one drawn from the seed."""
    checkpointing: Literal["auto", "on", "off"] | None = None
    """Compute activations again in the backward pass instead of keeping them; auto: where memory asks for it."""


def train(options: Options) -> Report:
    if options.projection is not None:
        raise InputError(f"--projection {options.projection}: training starts from the seed, or from --init FILE")
    config = options.load_config(
        train_steps=options.train_steps,
        batch_size=options.batch_size,
        lr=options.lr,
        save_every=options.save_every,
        gradient_checkpointing=options.checkpointing,
        projection="none",
    )
    data = options.data or config.train_dataset_dir
    if data is None:
        raise InputError(f"config {config.name}: names no train_dataset_dir; give --data FOLDER")
    from limber_interp.training.engine import train as train_projection

    def bar(items: Iterable[int], description: str) -> Iterable[int]:
        return progress(items, description)

    record = train_projection(
        config,
        data,
        options.out,
        options.held_out or config.eval_dataset_dir,
        options.encodings,
        bar,
        device=options.device,
        dtype="float32" if options.dtype == "auto" else options.dtype,
        resume=options.resume,
        method=options.method,
        init=options.init,
    )
    title = f"{config.name}, {options.method}, after {record.steps} steps"
    table = Table("measure", "nats per caption token", title=title)
    for name, value in {
        "training loss": record.loss,
        **{f"held-out, {k}": v for k, v in record.held_out.items()},
    }.items():
        table.add_row(name, f"{value:.4f}")
    table.caption = f"{record.projection} ({record.minutes:.1f} min)"
    return Report(record, (table,), silent=os.environ.get("RANK", "0") != "0")


def main(args: Sequence[str] | None = None) -> int:
    return run("train", Options, train, args)


if __name__ == "__main__":
    sys.exit(main())
