"""Train a config's projection: encoder and language model frozen, one linear layer between them."""

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from limber_interp.cli import FIGURE_SUFFIXES, ModelOptions, Report, progress, result_table, run, share_of
from limber_interp.config import LimberConfig
from limber_interp.errors import InputError
from limber_interp.extras import require
from limber_interp.options import PLACE, READ, WRITTEN
from limber_interp.overwriting import NamedPath
from limber_interp.records import TrainingPlan, TrainingRun, check_writable, make_folder

if TYPE_CHECKING:
    from limber_interp.datasets import Dataset
    from limber_interp.encodings import Encodings
    from limber_interp.models.limber import Limber
    from limber_interp.training.steps import Course

logger = logging.getLogger(__name__)
ON_A_SHEET = 8  # held-out images, captioned at every evaluation


@dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Train a config's projection: encoder and language model frozen, one linear layer between them."""

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER"), PLACE]
    """Where <config>.safetensors and its log <config>.jsonl go; a projection there is not replaced."""
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH"), READ] = None
    """Captioned images: LIMBER's folder, COCO captions .json, .tar shards, .csv or .tsv; or what limber_interp.encode
    made of them; none: the config's train_dataset_dir."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """Of COCO captions and tables, where the images are not beside them."""
    held_out: Annotated[str | None, tyro.conf.arg(metavar="PATH"), READ] = None
    """The same, unseen, for losses and sample captions; none: the config's eval_dataset_dir, if it is there."""
    held_out_images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """The same as --images, for the held-out data."""
    max_rejected: Annotated[str, tyro.conf.arg(metavar="SHARE")] = "1%"
    """Stop where more of the data than this cannot be used; what is left out is listed in <config>.rejected.jsonl."""
    encodings: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), PLACE] = None
    """Keep the frozen encoder's outputs here between runs; none: in the output folder."""
    live: bool = False
    """Encode each image whenever its turn comes, and keep nothing: for data whose encodings would fill the disk."""
    train_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Instead of the config's, as are the next ones."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Of all processes together."""
    gradient_accumulation_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Batches in a step."""
    lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Highest learning rate."""
    min_lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Where the warm-up begins and the decay ends."""
    warmup_num_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Steps of linear warm-up."""
    lr_decay_iters: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Step at which the linear decay has ended."""
    weight_decay: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Of AdamW."""
    gradient_clipping: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Largest norm of the gradient; 0: any."""
    image_embed_dropout_prob: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Dropout on the projected prompt."""
    zero_stage: Annotated[int | None, tyro.conf.arg(metavar="0|1|2")] = None
    """DeepSpeed's ZeRO: what of optimizer and gradients the processes split among them."""
    bf16: bool | None = None
    """Whether the language model computes in bfloat16."""
    save_every: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Steps between checkpoints, in <config>.checkpoints."""
    eval_every: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Steps between held-out losses and sheets of captions, in <config>.sheets; the best projection is kept."""
    resume: bool = False
    """Go on after the newest whole checkpoint."""
    method: Literal["gradient", "least-squares", "ridge", "procrustes"] = "gradient"
    """How the projection is found: by training, or in closed form from encodings and caption embeddings."""
    init: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), READ] = None
    """Train from this projection, such as one found in closed form; none: from one drawn from the seed."""
    checkpointing: Literal["auto", "on", "off"] | None = None
    """Compute activations again in the backward pass instead of keeping them; auto: where memory asks for it."""
    ckpt: bool = False
    """Also write <config>.ckpt, the projection as LIMBER's own code reads it."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="PATH"), WRITTEN] = None
    """Draw the curves of the run; the ending chooses the format (.png, .pdf, .svg)."""
    tensorboard: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), PLACE] = None
    """Write TensorBoard's events here."""
    dry_run: bool = False
    """Take ten steps, say what the whole run would take, and write nothing."""

    def outputs(self) -> Iterator[NamedPath]:
        yield from super().outputs()
        name = self.training_config().name
        for end in ("safetensors", "best.safetensors", "jsonl", "rejected.jsonl", *(("ckpt",) if self.ckpt else ())):
            yield NamedPath("--out", self.out / f"{name}.{end}")

    def check_outputs(self) -> None:
        super().check_outputs()
        self.training_config()
        share_of("--max-rejected", self.max_rejected)
        if self.method == "gradient":
            require("train", "deepspeed", what_for="training")
        if self.tensorboard is not None:
            require("train", "tensorboard", what_for="--tensorboard")
        if self.figure is not None:
            check_writable(self.figure, FIGURE_SUFFIXES)
            if self.method != "gradient":
                raise InputError(f"--figure {self.figure}: --method {self.method} has no steps to draw; leave it out")

    def training_config(self) -> LimberConfig:
        """The config with every setting that these options replace."""
        if self.projection is not None:
            raise InputError(f"--projection {self.projection}: training starts from the seed, or from --init FILE")
        same = (
            "train_steps", "batch_size", "gradient_accumulation_steps", "lr", "min_lr", "warmup_num_steps",
            "lr_decay_iters", "weight_decay", "gradient_clipping", "image_embed_dropout_prob", "zero_stage", "bf16",
            "save_every", "eval_every",
        )  # fmt: skip
        settings = {name: getattr(self, name) for name in same}
        return self.load_config(**settings, gradient_checkpointing=self.checkpointing, projection="none")


def train(options: Options) -> Report:
    max_rejected = share_of("--max-rejected", options.max_rejected)
    config = options.training_config()
    if (data := options.data or config.train_dataset_dir) is None:
        raise InputError(f"config {config.name}: names no train_dataset_dir; give --data PATH")
    if options.held_out is None and options.held_out_images is not None:
        raise InputError(
            f"--held-out-images {options.held_out_images}: of no held-out data that are named; give --held-out PATH"
        )
    from limber_interp.training.engine import train as train_projection
    from limber_interp.training.examples import open_data

    source = open_data(data, options.images)
    watched = _Watched()

    def bar(items: Iterable[int], description: str) -> Iterable[int]:
        return progress(items, description, note=watched.note)

    if options.dry_run:
        from limber_interp.training.plan import plan

        found = plan(config, source, bar, options.device, options.dtype, options.live)
        return Report(found, _planned(config, found), silent=not _first())
    unseen = _unseen(options.held_out, options.held_out_images, config)
    record = train_projection(
        config,
        source,
        options.out,
        unseen,
        options.encodings,
        bar,
        device=options.device,
        dtype=options.dtype,
        resume=options.resume,
        method=options.method,
        init=options.init,
        live=options.live,
        max_rejected=max_rejected,
        tensorboard=options.tensorboard,
        watch=watched.see,
        evaluated=_Sheets(unseen, options.out / f"{config.name}.sheets").draw,
        ckpt=options.ckpt,
    )
    if options.figure is not None and _first():
        from limber_interp.plotting.training import figure

        figure(record, options.figure)
    return Report(record, _shown(config, options.method, record), silent=not _first())


def _unseen(named: str | None, images: Path | None, config: LimberConfig) -> "Dataset | Encodings | None":
    """The held-out data that are named, or the config's, if they are on this machine."""
    from limber_interp.training.examples import open_data

    if named is not None:
        try:
            return open_data(named, images)
        except InputError as error:  # it knows of one option for images, which is the training data's
            raise InputError(str(error).replace("--images", "--held-out-images")) from error
    if config.eval_dataset_dir is None:
        return None
    try:
        return open_data(config.eval_dataset_dir)
    except InputError as error:
        if Path(config.eval_dataset_dir).exists():
            raise
        logger.warning(
            "no held-out loss: the config's eval_dataset_dir cannot be used (%s); --held-out names one", error
        )
        return None


def _shown(config: LimberConfig, method: str, record: TrainingRun) -> tuple:
    table = result_table(f"{config.name}, {method}, after {record.steps} steps")
    table.add_column("measure")
    table.add_column("nats per caption token", justify="right")
    table.add_row("training loss", f"{record.loss:.4f}")
    for kind, value in record.held_out.items():
        table.add_row(f"held-out, {kind} image" if kind != "none" else "held-out, no image", f"{value:.4f}")
    said = [f"{record.projection} ({record.minutes:.1f} min, {record.examples} examples, {record.rejected} rejected)"]
    if record.pace:
        pace = record.pace
        said.append(
            f"{pace['images_per_s']:.1f} images/s, {pace['tokens_per_s']:.0f} caption tokens/s; a step takes "
            f"{pace['seconds']:.3f} s, of which {pace['data_seconds']:.3f} s waiting for data"
        )
        if pace["data_seconds"] > pace["seconds"] / 2:
            said.append("bound by reading the data: encode it once (limber_interp.encode), or put it on a faster disk")
    table.caption = "\n".join(said)
    table.min_width = 100  # or the caption, about as wide, is broken to the width of two short columns
    return (table,)


def _planned(config: LimberConfig, found: TrainingPlan) -> tuple:
    table = result_table(f"{config.name}: what training would take on {found.device}")
    table.add_column("", overflow="fold")
    table.add_column("", overflow="fold")
    checkpointing = "checkpointed" if found.checkpointing else "kept"
    for name, value in {
        "trained, frozen": f"{found.trainable:,} and {found.frozen:,} parameters",
        "data": f"{found.examples:,} examples, each seen {found.epochs:.3g} times",
        "a step": f"{found.images_per_step:,} images of {found.prompt_pos} positions, {found.tokens_per_step:,.0f} "
        f"caption tokens; {found.processes} process{'es' if found.processes > 1 else ''}",
        "memory": f"peak {found.peak_bytes / 2**30:.2f} GiB; activations of a batch: "
        f"{found.activation_bytes / 2**30:.2f} GiB, {checkpointing}",
        "time of a step": f"{found.step_seconds:.3g} s, {found.data_seconds:.3g} s of it waiting for data",
        "encoding beforehand": f"{_span(found.encoding_seconds)}, {found.encodings_bytes / 1e9:.3g} GB"
        if found.encodings_bytes
        else "none",
        "all": f"{found.steps:,} steps: {_span(found.total_seconds)}",
    }.items():
        table.add_row(name, value)
    table.caption = "after ten measured steps; nothing was written"
    table.show_header = False
    return (table,)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


class _Watched:
    """What the progress bar says of the run behind it."""

    def __init__(self) -> None:
        self._course: Course | None = None

    def see(self, course: "Course") -> None:
        self._course = course

    def note(self) -> str:
        if self._course is None:
            return ""
        line, now = self._course.lines[-1], self._course.measured[-1]
        return (
            f"loss {line['loss']:.3f}  lr {line['lr']:.1e}  {now['images_per_s']:.0f} images/s  "
            f"{now['tokens_per_s']:.0f} tokens/s"
        )


class _Sheets:
    """A sheet of captioned held-out images at every evaluation."""

    def __init__(self, unseen: "Dataset | Encodings | None", folder: Path) -> None:
        self._unseen = unseen
        self._folder = folder

    def draw(self, step: int, model: "Limber") -> None:
        from limber_interp.datasets import Dataset, Rejected
        from limber_interp.evaluation.captions import captions
        from limber_interp.images import load_image
        from limber_interp.plotting.captions import figure

        if not isinstance(self._unseen, Dataset):
            return  # encodings alone: there is no image to show
        images = []
        for index in range(len(self._unseen)):
            try:
                image = self._unseen[index].image
                load_image(image)
            except (Rejected, InputError):  # the losses leave it out too, and say so
                continue
            images.append(image)
            if len(images) == ON_A_SHEET:
                break
        if not images:
            return
        figure(captions(model, images), make_folder(self._folder) / f"step-{step:08d}.png")


def main(args: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if args is None else args
    # DeepSpeed's launcher adds --local_rank=N to what it starts, beside the variable LOCAL_RANK, which is read
    return run("train", Options, train, [word for word in given if not word.startswith("--local_rank=")])


if __name__ == "__main__":
    sys.exit(main())
