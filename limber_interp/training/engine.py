"""Drives the training of a projection with DeepSpeed, in one process or in several."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from limber_interp.config import LimberConfig
from limber_interp.errors import InputError
from limber_interp.models.limber import UNTRAINED, Limber, load
from limber_interp.models.projection import Projection
from limber_interp.records import TrainingRun, check_writable, make_folder, write_atomically
from limber_interp.training.checkpoints import Checkpoint, Checkpoints
from limber_interp.training.closed_form import Method, fit
from limber_interp.training.data import IGNORED, Example, caption_tokens, encodings, order, read_folder, share
from limber_interp.training.memory import Checkpointing
from limber_interp.training.objective import caption_loss
from limber_interp.training.ranks import Ranks
from limber_interp.training.whitening import Whitened, statistics

logger = logging.getLogger(__name__)

# Settings that a resumed run may have otherwise: they change nothing of what was done
MAY_CHANGE = {"train_steps", "save_every", "train_dataset_dir", "eval_dataset_dir", "gradient_checkpointing"}

Progress = Callable[[Iterable[int], str], Iterable[int]]


def train(
    config: LimberConfig,
    data: str | Path,
    out: str | Path,
    held_out: str | Path | None = None,
    encodings_folder: str | Path | None = None,
    progress: Progress = lambda items, _: items,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
    resume: bool = False,
    method: Literal["gradient"] | Method = "gradient",
    init: str | Path | None = None,
) -> TrainingRun:
    """Train a config's projection on a folder in LIMBER's format; encoder and language model stay frozen.

    Recipe of the configs published with the paper (arXiv 2209.15162): AdamW (0.9, 0.95), gradient
    clipping, linear warm-up, dropout on the projected prompt, loss on caption tokens and one end of text.

    Args:
        out: folder for `<config>.safetensors` (the projection with its manifest), `<config>.jsonl` (the log), and
            `<config>.checkpoints/` where the config's `save_every` asks for them.
        held_out: a folder in the same format, for the losses at the end.
        encodings_folder: where the encodings are kept between runs; `out` if None.
        progress: wraps the iteration, with a description.
        dtype: in which the language model is kept; it computes in bfloat16 where the config's `bf16` says so.
        resume: go on after the newest whole checkpoint in `out`; the losses are then those of a run that never stopped.
        method: "gradient", or a closed form, see `closed_form.fit`: in no step, with its fit in the log's one line.
        init: a projection to start from instead of one drawn from the seed.

    Raises:
        InputError: unusable data, a projection that is there already, an output that cannot be written, or a batch that
            the processes cannot share evenly.
    """
    ranks = Ranks.of_environment()
    if (processes := ranks.world_size) > 1:
        if method != "gradient":
            raise InputError(f"method {method}: runs in one process, found {processes}; start it without a launcher")
        if config.batch_size % processes:
            raise InputError(f"batch_size {config.batch_size}: {processes} processes cannot share it evenly")
    if method != "gradient" and (resume or init is not None):
        raise InputError(f"method {method}: starts from nothing, in one go; leave out {'resume' if resume else 'init'}")
    out = Path(out)
    paths = out / f"{config.name}.safetensors", out / f"{config.name}.jsonl"
    if paths[0].exists():  # a log alone was left by a run that did not end, and is replaced
        raise InputError(f"{paths[0]}: is there already; name another --out, or move it away")
    examples = read_folder(data)
    held_out_examples = read_folder(held_out) if held_out is not None else None
    checkpoints = Checkpoints(out / f"{config.name}.checkpoints")
    if not resume and (done := checkpoints.newest()):
        raise InputError(f"{done.path}: a run that did not end; go on with --resume, or move {checkpoints.folder} away")
    make_folder(out)
    for path in paths:
        check_writable(path)

    began = time.monotonic()
    torch.manual_seed(config.seed)
    model = load(config, projection=UNTRAINED if init is None else init, device=ranks.device(device), dtype=dtype)
    ranks.meet(model.device)
    started_from = None if init is None else model.projection.sha256
    kept_in = out if encodings_folder is None else encodings_folder
    with ranks.first_alone():
        encoded = encodings(model, examples, kept_in, progress=lambda items: progress(items, "Encoding"))
    if method == "gradient":
        trained, history = _fit(model, examples, encoded, paths[1], progress, checkpoints, resume, ranks)
    else:
        trained, history = _closed_form(model, examples, encoded, method, paths[1], progress), []
    minutes = (time.monotonic() - began) / 60

    with torch.no_grad():
        for name, value in zip(("weight", "bias"), trained, strict=True):
            getattr(model.projection.linear, name).copy_(value)
    losses: dict[str, float] = {}
    if held_out_examples and ranks.first:
        kept = encodings(model, held_out_examples, kept_in, progress=lambda items: progress(items, "Encoding held-out"))
        losses = held_out_losses(model, held_out_examples, kept)
    manifest = model.manifest(seed=config.seed)
    # An untrained projection came with the model: its hash and the remark on it are not the trained one's.
    hashes = {part: sha256 for part, sha256 in manifest.hashes.items() if part != "projection"}
    run = TrainingRun(
        projection=str(paths[0]),
        log=str(paths[1]),
        examples=len(examples),
        steps=len(history),
        loss=float(np.mean(history[-100:])) if history else held_out_losses(model, examples[:500], encoded)["right"],
        held_out=losses,
        minutes=minutes,
        manifest=replace(manifest, hashes=hashes, notes=()),
    )
    training = {"examples": run.examples, "steps": run.steps, "loss": run.loss, "held_out": losses}
    training |= {"method": method, "init": started_from}
    if not ranks.first:
        return run
    model.projection.save(paths[0], {**run.manifest.as_dict(), "training": training}, model.encoder.n_positions)
    return run


def _closed_form(
    model: Limber, examples: list[Example], encoded: np.ndarray, method: Method, log_path: Path, progress: Progress
) -> tuple[Tensor, Tensor]:
    captions = [example.captions for example in examples]
    found = fit(model, captions, encoded, method, model.config.seed, progress=lambda items: progress(items, "Fitting"))
    log_path.write_text(json.dumps({"method": method, "strength": found.strength, "r2": found.r2}) + "\n")
    return found.weight, found.bias


def _fit(
    model: Limber,
    examples: list[Example],
    encoded: np.ndarray,
    log_path: Path,
    progress: Progress,
    checkpoints: Checkpoints,
    resume: bool,
    ranks: Ranks,
) -> tuple[tuple[Tensor, Tensor], list[float]]:
    """Weight and bias after `train_steps`, and the loss of every step, the mean over all processes; the first of them
    writes the log, line by line. Each process has its share of every batch.

    Resumed, it goes on after the newest checkpoint as if it had never stopped: layer, optimizer, schedule, place in the
    order of the examples, choice of captions and dropout are where they were, and the log's later lines are dropped.
    """
    config = model.config
    projection = model.projection
    layer = _trainable(projection, encoded, config)
    engine = _engine(layer, config, ranks)
    if ranks.world_size > 1:
        torch.manual_seed(config.seed + 1 + ranks.rank)  # each process drops other positions
    chooser = np.random.default_rng(config.seed + 1)
    fixed = {"examples": len(examples), "config": config.model_dump(exclude=MAY_CHANGE)}
    history: list[float] = []
    if (done := checkpoints.newest() if resume else None) is not None:
        _check_same_run(fixed, done)
        with ranks.first_alone():
            history = _kept_losses(log_path, done.step)
        checkpoints.load(engine, done)
        chooser.bit_generator.state = done.state["chooser"]
    elif resume:
        logger.info("%s: no whole checkpoint in it; training starts from the beginning", checkpoints.folder)
    batches = order(len(examples), config.batch_size * config.gradient_accumulation_steps, config.seed)
    batches = islice(batches, len(history), None)
    limit = _room(model, encoded)
    checkpointing = Checkpointing(config.gradient_checkpointing)
    with (log_path if ranks.first else Path(os.devnull)).open("a" if history else "w", encoding="utf-8") as log_file:
        for step in progress(range(len(history), config.train_steps), "Training"):
            losses = []
            for rows in np.split(next(batches), config.gradient_accumulation_steps):
                chosen = [examples[i].captions[chooser.integers(len(examples[i].captions))] for i in rows]
                mine = share(np.arange(len(rows)), ranks.rank, ranks.world_size)
                rows, told = rows[mine], [chosen[i] for i in mine]
                ids, labels = (t.to(model.device) for t in caption_tokens(model.vocabulary, told, limit))
                encoding = torch.from_numpy(encoded[np.sort(rows)][np.argsort(np.argsort(rows))]).to(model.device)
                soft_prompt = engine(encoding.float()).unflatten(-1, (projection.n_tokens, -1)).flatten(1, 2)
                dropped = nn.functional.dropout(soft_prompt, config.image_embed_dropout_prob)
                with torch.autocast(model.device.type, torch.bfloat16, enabled=config.bf16):
                    loss = caption_loss(model.lm, model.vocabulary.n_used, dropped, ids, labels, checkpointing)
                if not loss.isfinite():
                    raise RuntimeError(f"step {step}: the loss is {loss.item()}; lower lr ({config.lr})")
                engine.backward(loss)
                engine.step()
                losses.append(loss.item())
            history.append(ranks.mean(float(np.mean(losses)), model.device))
            line = json.dumps({"step": step, "loss": history[-1], "lr": engine.get_lr()[0]})
            print(line, file=log_file, flush=True)
            if config.save_every and (step + 1) % config.save_every == 0:
                if ranks.first:  # or a crash could leave a checkpoint with fewer lines than steps
                    os.fsync(log_file.fileno())
                checkpoints.save(engine, step + 1, {**fixed, "chooser": chooser.bit_generator.state})
    return (layer.folded() if isinstance(layer, Whitened) else (layer.weight.data, layer.bias.data)), history


def _check_same_run(fixed: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Raise InputError if the checkpoint is of a run with other settings or data."""
    here, there = ({"examples": run["examples"], **run["config"]} for run in (fixed, checkpoint.state))
    if changed := [key for key in here if here[key] != there.get(key)]:
        values = ", ".join(f"{key} {there.get(key)!r}, now {here[key]!r}" for key in changed)
        raise InputError(f"{checkpoint.path}: of another run ({values}); give the same settings, or another --out")


def _kept_losses(log_path: Path, steps: int) -> list[float]:
    """The losses of the first steps of a log, which is cut after them."""
    try:
        written = log_path.read_text(encoding="utf-8").splitlines(keepends=True)
        losses = [json.loads(line)["loss"] for line in written[:steps]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{log_path}: cannot be read as the log of the run to resume: {error!r}") from error
    if len(losses) < steps:
        raise InputError(f"{log_path}: holds {len(losses)} steps, the checkpoint {steps}; put the run's own log there")
    if len(written) > steps:
        write_atomically(log_path, lambda path: path.write_text("".join(written[:steps]), encoding="utf-8"))
    return losses


def _trainable(projection: Projection, encoded: np.ndarray, config: LimberConfig) -> Whitened | nn.Linear:
    """The projection's layer, unfrozen, on whitened encodings where the config says so."""
    linear = nn.Linear(projection.linear.in_features, projection.linear.out_features)
    linear.load_state_dict(projection.linear.state_dict())
    linear = linear.to(projection.linear.weight.device)
    if not config.whiten:
        return linear
    whitened = Whitened(linear, *statistics(encoded, config.seed)).to(linear.weight.device)
    if config.projection != UNTRAINED:  # a drawn layer is as good in these coordinates as in the others
        whitened.start_from(linear.weight, linear.bias)
    return whitened


@torch.no_grad()
def held_out_losses(
    model: Limber, examples: list[Example], encoded: np.ndarray, batch_size: int = 64
) -> dict[str, float]:
    """Loss in nats per caption token with the `right` image, the `wrong` one (the next example's), and with `none`.

    There is no wrong image where there is only one example.
    """
    totals = dict.fromkeys(("right", "wrong", "none") if len(examples) > 1 else ("right", "none"), 0.0)
    tokens = dict.fromkeys(totals, 0)
    limit = _room(model, encoded)
    for start in range(0, len(examples), batch_size):
        rows = np.arange(start, min(start + batch_size, len(examples)))
        told = [examples[i].captions[0] for i in rows]
        ids, labels = (t.to(model.device) for t in caption_tokens(model.vocabulary, told, limit))
        for kind in totals:
            shown = (rows + 1) % len(examples) if kind == "wrong" else rows
            soft_prompt = model.projection(torch.from_numpy(encoded[shown]).float().to(model.device))
            kept = labels.clone()
            kept[:, 0] = IGNORED  # without an image nothing stands before the first token: leave it out of all three
            if kind == "none":
                soft_prompt, seen, kept = model.lm.W_E[ids[:, :1]], ids[:, 1:], kept[:, 1:]
            else:
                seen = ids
            loss = caption_loss(model.lm, model.vocabulary.n_used, soft_prompt, seen, kept)
            count = int((kept != IGNORED).sum())
            totals[kind] += loss.item() * count
            tokens[kind] += count
    return {kind: totals[kind] / tokens[kind] for kind in totals}


def _room(model: Limber, encoded: np.ndarray) -> int:
    """Tokens of a caption that fit behind the soft prompt; the last is only predicted, and takes no position."""
    prompt_pos, n_ctx = encoded.shape[1] * model.projection.n_tokens, model.lm.cfg.n_ctx
    if prompt_pos >= n_ctx:
        raise InputError(
            f"soft prompt of {prompt_pos} positions: the language model has {n_ctx}, and a caption follows"
        )
    return n_ctx - prompt_pos + 1


def _engine(layer: nn.Module, config: LimberConfig, ranks: Ranks) -> Any:
    """DeepSpeed's engine around the one layer that is trained."""
    import deepspeed

    parameters = [p for p in layer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    warmup = {"warmup_min_lr": config.min_lr, "warmup_max_lr": config.lr, "warmup_num_steps": config.warmup_num_steps}
    if config.lr_decay_iters is None:
        scheduler: dict[str, Any] = {"type": "WarmupLR", "params": {**warmup, "warmup_type": "linear"}}
    else:
        scheduler = {
            "type": "WarmupDecayLR",
            "params": {**warmup, "warmup_type": "linear", "total_num_steps": config.lr_decay_iters},
        }
    engine, *_ = deepspeed.initialize(
        model=layer,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": config.batch_size // ranks.world_size,
            "gradient_accumulation_steps": config.gradient_accumulation_steps,
            "gradient_clipping": config.gradient_clipping,
            "zero_optimization": {"stage": config.zero_stage},
            "scheduler": scheduler,
            "steps_per_print": 10**9,
        },
    )
    return engine
