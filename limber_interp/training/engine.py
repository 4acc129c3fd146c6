"""Trains a projection: what goes in is checked first, and what comes out is written whole."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.datasets import Dataset, Rejections
from limber_interp.devices import choose_device
from limber_interp.encodings import Encodings, encode_once, open_encodings
from limber_interp.errors import InputError
from limber_interp.models.limber import UNTRAINED, Limber, load
from limber_interp.ranks import Ranks
from limber_interp.records import TrainingRun, check_writable, make_folder
from limber_interp.training.checkpoints import Checkpoints
from limber_interp.training.closed_form import Method, fit
from limber_interp.training.examples import Examples, Live, Stored, Told, in_batches, open_data
from limber_interp.training.held_out import held_out_losses
from limber_interp.training.log import Log
from limber_interp.training.memory import frozen_dtype
from limber_interp.training.ranks import check_deepspeed, meet
from limber_interp.training.steps import Course, Progress, Steps

logger = logging.getLogger(__name__)

EVALUATED = 500  # held-out examples on which a run is measured on its way; at its end all of them
Source = str | Path | Dataset | Encodings


def train(
    config: LimberConfig,
    data: Source,
    out: str | Path,
    held_out: Source | None = None,
    encodings_folder: str | Path | None = None,
    progress: Progress = lambda items, _: items,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    resume: bool = False,
    method: Literal["gradient"] | Method = "gradient",
    init: str | Path | None = None,
    live: bool = False,
    max_rejected: float = 0.01,
    tensorboard: str | Path | None = None,
    watch: Callable[[Course], object] = lambda course: None,
    evaluated: Callable[[int, Limber], object] = lambda step, model: None,
    ckpt: bool = False,
) -> TrainingRun:
    """Train a config's projection on captioned images; encoder and language model stay frozen.

    Recipe of the configs published with the paper (arXiv 2209.15162): AdamW (0.9, 0.95), gradient
    clipping, linear warm-up, dropout on the projected prompt, loss on caption tokens and one end of text.

    The projection is written right after the last step, before held-out losses and all else that could fail; they are
    added to its manifest when they are there. The closed forms need no DeepSpeed.

    Args:
        data: a path (see `open_data`), a data set, or encodings of one.
        out: folder for `<config>.safetensors` (the projection with its manifest), `<config>.jsonl` (the log),
            `<config>.rejected.jsonl` (what could not be used: it drops out of its batches, and nothing takes its
            place), `<config>.best.safetensors` (where `eval_every` found the lowest held-out loss), and
            `<config>.checkpoints/` where the config's `save_every` asks for them.
        held_out: unseen data: the losses on its first examples every `eval_every` steps, on all of it at the end.
        encodings_folder: where the encodings are kept between runs; `out` if None.
        progress: wraps the iteration, with a description.
        dtype: in which the language model is kept, see `frozen_dtype`; it computes in bfloat16 where the config's
            `bf16` says so.
        resume: go on after the newest whole checkpoint in `out`; the losses are then those of a run that never stopped.
        method: "gradient", or a closed form, see `closed_form.fit`: in no step, with its fit in the log's one line.
        init: a projection to start from instead of one drawn from the seed.
        live: encode each image whenever its turn comes, and keep nothing; for data whose encodings would fill the disk.
        max_rejected: the share of the data above which the run stops.
        tensorboard: folder for TensorBoard's events.
        ckpt: also write `<config>.ckpt`, as LIMBER's own code reads it.
        watch: told of every step, `evaluated` of every evaluation, when the model's projection is the one of that step.

    Raises:
        InputError: unusable data, a projection that is there already, another training that writes into `out`, an
            output that cannot be written, a batch that the processes cannot share evenly, a checkpoint of a run with
            other settings or on other data, or no DeepSpeed where one is needed.
        RuntimeError: the loss became NaN or exploded; the step and its examples are named.
    """
    ranks = Ranks.of_environment()
    _check_asked(config, ranks, method, resume, init, live)
    paths = _Paths(Path(out), config.name, ckpt)
    paths.check_free(resume)
    opened = [open_data(source) if isinstance(source, str | Path) else source for source in (data, held_out) if source]
    paths.check_writable()

    with _sole_training(paths.out) if ranks.first else contextlib.nullcontext():
        paths.check_free(resume)  # again: another training may have ended since
        began = time.monotonic()
        torch.manual_seed(config.seed)
        device = choose_device(ranks.device(device))
        dtype = frozen_dtype(dtype, device, config.bf16)
        model = load(config, projection=UNTRAINED if init is None else init, device=device, dtype=dtype)
        if method == "gradient":
            meet(model.device)
        started_from = None if init is None else model.projection.sha256
        with ranks.first_alone():
            kept_in = paths.out if encodings_folder is None else Path(encodings_folder)
            examples, *unseen = (_examples(model, source, kept_in, live, max_rejected, progress) for source in opened)
        if isinstance(examples, Stored):
            rejections = examples.encodings.rejections(paths.rejected, max_rejected)
        else:
            rejections = Rejections(examples.name, len(examples), paths.rejected, max_rejected)
        rejections.check()

        course = Course()
        kept = _Kept(model, paths, {"examples": len(examples), "method": method, "init": started_from}, ranks.first)
        with kept.named():
            if method != "gradient":
                assert isinstance(examples, Stored)
                _set(model, _closed_form(model, examples.encodings, method, paths.log, progress))
                kept.write(steps=0, loss=None, held_out={})
            else:
                steps = Steps(model, examples, rejections, ranks, started_from)
                if resume:
                    steps.resume(paths.checkpoints, paths.log)
                course = steps.course
                watched = unseen and config.eval_every
                seen = _few(unseen[0]) if watched and ranks.first else []

                def evaluate(step: int) -> dict[str, float]:
                    """On the first rank; the others wait for it at the next step."""
                    if not ranks.first:
                        return {}
                    _set(model, steps.trained)
                    losses = held_out_losses(model, seen)
                    if losses["right"] < min((earlier["right"] for earlier in course.evaluations), default=np.inf):
                        kept.write_best(steps=step, held_out=losses)
                    with torch.random.fork_rng():  # whatever is drawn there, the run's own dropout goes on
                        evaluated(step, model)
                    return losses

                def ended() -> None:
                    """The projection is safe before anything else can fail."""
                    _set(model, steps.trained)
                    kept.write(steps=len(course.lines), loss=course.loss, held_out={})

                events = None if tensorboard is None else Path(tensorboard)
                with Log(paths.log, len(course.lines), events, ranks.first) as log:
                    steps.run(log, paths.checkpoints, progress, evaluate if watched else None, watch, ended)
                steps.gather_rejections()
                rejections.check()
                _set(model, steps.trained)
            minutes = (time.monotonic() - began) / 60

            losses = held_out_losses(model, in_batches(unseen[0])) if unseen and ranks.first else {}
            history = [line["loss"] for line in course.lines]
            if not history and ranks.first:
                history = [held_out_losses(model, in_batches(examples, first=EVALUATED))["right"]]
            run = TrainingRun(
                projection=str(paths.projection),
                log=str(paths.log),
                examples=len(examples) - len(rejections),
                rejected=len(rejections),
                steps=len(course.lines),
                loss=course.loss if course.lines else float(np.mean(history)),
                losses=np.array(history, dtype=np.float32),
                evaluations=course.evaluations,
                held_out=losses,
                pace=course.pace,
                minutes=minutes,
                manifest=_manifest(model),
            )
            if ranks.first:
                rejections.write()
            kept.write(steps=run.steps, loss=run.loss, held_out=losses)
        return run


class _Paths:
    """Where the outputs of a run go."""

    def __init__(self, out: Path, name: str, ckpt: bool) -> None:
        self.out = out
        self.projection = out / f"{name}.safetensors"
        self.best = out / f"{name}.best.safetensors"
        self.limbers = out / f"{name}.ckpt" if ckpt else None
        self.log = out / f"{name}.jsonl"
        self.rejected = out / f"{name}.rejected.jsonl"
        self.checkpoints = Checkpoints(out / f"{name}.checkpoints")

    def check_free(self, resume: bool) -> None:
        """Raise InputError if a run has left something here that this one would replace."""
        for path in (self.projection, self.limbers):
            if path is not None and path.exists():  # a log alone was left by a run that did not end, and is replaced
                raise InputError(f"{path}: is there already; name another --out, or move it away")
        if not resume and (done := self.checkpoints.newest()):
            folder = self.checkpoints.folder
            raise InputError(f"{done.path}: a run that did not end; go on with --resume, or move {folder} away")

    def check_writable(self) -> None:
        """Make the folder, and raise InputError if the files cannot be written in it."""
        make_folder(self.out)
        for path in (self.projection, self.log, self.rejected):
            check_writable(path)


class _Kept:
    """The projection as it is written: right after the last step, and once more with what was measured of it then."""

    def __init__(self, model: Limber, paths: _Paths, described: dict[str, Any], writes: bool) -> None:
        self.model = model
        self.paths = paths
        self.described = described
        self.writes = writes
        self.written = False

    def write(self, **training: Any) -> None:
        """Write the model's projection with what `training` adds to its manifest. The file is whole, old or new."""
        if self.writes:
            self._save(self.paths.projection, training)
            if self.paths.limbers is not None and not self.written:
                self.model.projection.save_ckpt(self.paths.limbers)
        self.written = True

    def write_best(self, **training: Any) -> None:
        self._save(self.paths.best, training)

    def _save(self, path: Path, training: dict[str, Any]) -> None:
        manifest = {**_manifest(self.model).as_dict(), "training": {**self.described, **training}}
        self.model.projection.save(path, manifest, self.model.encoder.n_positions)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Within it a failure that comes after the projection was written says where it lies."""
        try:
            yield
        except Exception as error:
            if not self.written:
                raise
            kind = InputError if isinstance(error, InputError) else RuntimeError
            name = "" if kind is InputError else f"{type(error).__name__}: "
            raise kind(
                f"{name}{error}; this came after the last step: the trained projection is in {self.paths.projection}"
            ) from error


@contextlib.contextmanager
def _sole_training(out: Path) -> Iterator[None]:
    """Within it this is the only training that writes into the folder. The lock is the operating system's: it ends with
    its process, however that ends, so that a killed run is in nobody's way. Its file stays: were it removed, one
    process could hold the lock on the old file, and another that on a new one.

    Raises:
        InputError: another one does.
    """
    lock = FileLock(out / ".training.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"{out}: another training writes into it; wait for its end, or name another --out") from error
    except (OSError, NotImplementedError) as error:
        logger.warning("%s: no lock can be taken there (%s); start no second training into this folder", out, error)
    try:
        yield
    finally:
        lock.release()


def _few(unseen: Examples) -> list[Told]:
    """Of the held-out data, what the losses on the way are measured on.

    Raises:
        InputError: nothing of it can be used.
    """
    if seen := list(in_batches(unseen, first=EVALUATED)):
        return seen
    raise InputError(f"{unseen.name}: none of its first {EVALUATED} examples can be used as held-out data; mend them")


def _check_asked(
    config: LimberConfig, ranks: Ranks, method: str, resume: bool, init: str | Path | None, live: bool
) -> None:
    if (processes := ranks.world_size) > 1:
        if method != "gradient":
            raise InputError(f"method {method}: runs in one process, found {processes}; start it without a launcher")
        if config.batch_size % processes:
            raise InputError(f"batch_size {config.batch_size}: {processes} processes cannot share it evenly")
    if method == "gradient":
        check_deepspeed()
    if method != "gradient" and (resume or live or init is not None):
        found = "resume" if resume else "live" if live else "init"
        raise InputError(f"method {method}: starts from nothing, from stored encodings, in one go; leave out {found}")


def _examples(
    model: Limber, source: Dataset | Encodings, folder: Path, live: bool, max_rejected: float, progress: Progress
) -> Examples:
    """The data for this model: encodings that are there, or computed once and kept in the folder, or as needed."""
    if isinstance(source, Encodings):
        return Stored(open_encodings(source.folder, model.encoder))
    if live:
        return Live(model.encoder, source)
    return Stored(encode_once(model.encoder, source, folder, max_rejected, progress))


def _closed_form(
    model: Limber, encodings: Encodings, method: Method, log_path: Path, progress: Progress
) -> tuple[Tensor, Tensor]:
    captions = [encodings.captions(index) for index in np.flatnonzero(encodings.kept)]
    found = fit(
        model, captions, encodings, method, model.config.seed, progress=lambda items: progress(items, "Fitting")
    )
    log_path.write_text(json.dumps({"method": method, "strength": found.strength, "r2": found.r2}) + "\n")
    return found.weight, found.bias


@torch.no_grad()
def _set(model: Limber, trained: tuple[Tensor, Tensor]) -> None:
    for name, value in zip(("weight", "bias"), trained, strict=True):
        getattr(model.projection.linear, name).copy_(value)


def _manifest(model: Limber) -> Any:
    manifest = model.manifest(seed=model.config.seed)
    # An untrained projection came with the model: its hash and the remark on it are not the trained one's.
    hashes = {part: sha256 for part, sha256 in manifest.hashes.items() if part != "projection"}
    return replace(manifest, hashes=hashes, notes=())
