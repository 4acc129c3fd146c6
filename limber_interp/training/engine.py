"""Trains a projection: what goes in is checked first, and what comes out is written whole."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
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
from limber_interp.training.examples import Examples, Live, Stored, in_batches, open_data
from limber_interp.training.held_out import held_out_losses
from limber_interp.training.log import Log
from limber_interp.training.memory import frozen_dtype
from limber_interp.training.ranks import meet
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
        InputError: unusable data, a projection that is there already, an output that cannot be written, or a batch that
            the processes cannot share evenly.
        RuntimeError: the loss became NaN or exploded; the step and its examples are named.
    """
    ranks = Ranks.of_environment()
    _check_asked(config, ranks, method, resume, init, live)
    out = Path(out)
    projection, log_path, rejected = (
        out / f"{config.name}.{end}" for end in ("safetensors", "jsonl", "rejected.jsonl")
    )
    limbers = out / f"{config.name}.ckpt"
    for path in (projection, *((limbers,) if ckpt else ())):
        if path.exists():  # a log alone was left by a run that did not end, and is replaced
            raise InputError(f"{path}: is there already; name another --out, or move it away")
    opened = [open_data(source) if isinstance(source, str | Path) else source for source in (data, held_out) if source]
    checkpoints = Checkpoints(out / f"{config.name}.checkpoints")
    if not resume and (done := checkpoints.newest()):
        raise InputError(f"{done.path}: a run that did not end; go on with --resume, or move {checkpoints.folder} away")
    make_folder(out)
    for path in (projection, log_path, rejected):
        check_writable(path)

    began = time.monotonic()
    torch.manual_seed(config.seed)
    device = choose_device(ranks.device(device))
    dtype = frozen_dtype(dtype, device, config.bf16)
    model = load(config, projection=UNTRAINED if init is None else init, device=device, dtype=dtype)
    meet(model.device)
    started_from = None if init is None else model.projection.sha256
    with ranks.first_alone():
        kept_in = out if encodings_folder is None else Path(encodings_folder)
        examples, *unseen = (_examples(model, source, kept_in, live, max_rejected, progress) for source in opened)
    if isinstance(examples, Stored):
        rejections = examples.encodings.rejections(rejected, max_rejected)
    else:
        rejections = Rejections(examples.name, len(examples), rejected, max_rejected)
    rejections.check()

    course = Course()
    described = {"examples": len(examples), "method": method, "init": started_from}
    if method != "gradient":
        assert isinstance(examples, Stored)
        _set(model, _closed_form(model, examples.encodings, method, log_path, progress))
    else:
        steps = Steps(model, examples, rejections, ranks)
        if resume:
            steps.resume(checkpoints, log_path)
        course = steps.course
        seen = list(in_batches(unseen[0], first=EVALUATED)) if unseen and config.eval_every and ranks.first else []

        def evaluate(step: int) -> dict[str, float]:
            """On the first rank; the others wait for it at the next step."""
            if not ranks.first:
                return {}
            _set(model, steps.trained)
            losses = held_out_losses(model, seen)
            earlier = [line["held_out"]["right"] for line in course.lines if "held_out" in line]
            if losses["right"] < min(earlier, default=np.inf):
                _save(model, out / f"{config.name}.best.safetensors", {**described, "steps": step, "held_out": losses})
            with torch.random.fork_rng():  # whatever is drawn there, the run's own dropout goes on
                evaluated(step, model)
            return losses

        with Log(log_path, bool(course.lines), None if tensorboard is None else Path(tensorboard), ranks.first) as log:
            steps.run(log, checkpoints, progress, evaluate if unseen else None, watch)
        steps.gather_rejections()
        rejections.check()
        _set(model, steps.trained)
    minutes = (time.monotonic() - began) / 60

    losses = held_out_losses(model, in_batches(unseen[0])) if unseen and ranks.first else {}
    history = [line["loss"] for line in course.lines]
    evaluations = [{"step": line["step"] + 1, **line["held_out"]} for line in course.lines if "held_out" in line]
    if not history and ranks.first:
        history = [held_out_losses(model, in_batches(examples, first=EVALUATED))["right"]]
    run = TrainingRun(
        projection=str(projection),
        log=str(log_path),
        examples=len(examples) - len(rejections),
        rejected=len(rejections),
        steps=len(course.lines),
        loss=float(np.mean(history[-100:])),
        losses=np.array(history, dtype=np.float32),
        evaluations=tuple(evaluations),
        held_out=losses,
        pace=course.pace,
        minutes=minutes,
        manifest=_manifest(model),
    )
    if ranks.first:
        rejections.write()
        if ckpt:
            model.projection.save_ckpt(limbers)
        _save(model, projection, {**described, "steps": run.steps, "loss": run.loss, "held_out": losses})
    return run


def _check_asked(
    config: LimberConfig, ranks: Ranks, method: str, resume: bool, init: str | Path | None, live: bool
) -> None:
    if (processes := ranks.world_size) > 1:
        if method != "gradient":
            raise InputError(f"method {method}: runs in one process, found {processes}; start it without a launcher")
        if config.batch_size % processes:
            raise InputError(f"batch_size {config.batch_size}: {processes} processes cannot share it evenly")
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


def _save(model: Limber, path: Path, training: dict[str, Any]) -> None:
    model.projection.save(path, {**_manifest(model).as_dict(), "training": training}, model.encoder.n_positions)
