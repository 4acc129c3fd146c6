"""The steps of a run: batches, the loss, DeepSpeed's engine around the one layer, checkpoints."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from limber_interp.config import LimberConfig
from limber_interp.datasets import Rejections
from limber_interp.errors import InputError
from limber_interp.finite import not_finite
from limber_interp.models.limber import UNTRAINED, Limber
from limber_interp.ranks import Ranks
from limber_interp.training.checkpoints import Checkpoint, Checkpoints
from limber_interp.training.data import caption_tokens, order, share
from limber_interp.training.examples import Examples, Read, ahead, keys_shown, sample
from limber_interp.training.held_out import room
from limber_interp.training.identity import difference, identity
from limber_interp.training.log import Log, kept_lines
from limber_interp.training.memory import Checkpointing
from limber_interp.training.objective import caption_loss
from limber_interp.training.schedule import rate
from limber_interp.training.whitening import Whitened, statistics

logger = logging.getLogger(__name__)

# Settings that a resumed run may have otherwise: they change nothing of what was done
MAY_CHANGE = {
    "train_steps", "save_every", "eval_every", "train_dataset_dir", "eval_dataset_dir", "gradient_checkpointing",
    "encoder_weights", "lm_name", "projection",  # paths, which may move: what they hold is compared by its hash
}  # fmt: skip
SAMPLE = 100_000  # vectors, for the statistics of whitening
# A loss of so many times what even odds on all tokens cost is no longer learning, and rarely comes back
EXPLODED = 5.0

Progress = Callable[[Iterable[int], str], Iterable[int]]


@dataclass
class Course:
    """How a run goes.

    Attributes:
        lines: of every step, as the log has them.
        measured: of the steps of this process: `seconds`, `data_seconds` (of these, waiting for data), `images_per_s`,
            `tokens_per_s` (with a label, over all ranks).
    """

    lines: list[dict[str, Any]] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean of the last hundred steps."""
        return float(np.mean([line["loss"] for line in self.lines[-100:]]))

    @property
    def evaluations(self) -> tuple[dict[str, int | float], ...]:
        """Held-out losses on the way, with the number of steps after which they were measured."""
        return tuple({"step": line["step"] + 1, **line["held_out"]} for line in self.lines if "held_out" in line)

    @property
    def pace(self) -> dict[str, float]:
        """Medians of what was measured."""
        return {name: float(np.median([m[name] for m in self.measured])) for name in (self.measured or [{}])[0]}


class _Sums:
    """Over the labelled tokens of a step's micro-batches: their gradient, their loss in nats, and how many they are.

    Each token counts once, whatever the micro-batch it came in: their means, of batches of unlike numbers of tokens,
    would depend on how a step is cut into micro-batches and ranks.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]
        self.loss, self.tokens, self.images = 0.0, 0.0, 0.0

    def add(self, mean: Tensor, tokens: int, images: int) -> None:
        """Add a micro-batch by the mean loss of its tokens, from which the gradient is computed here."""
        for total, gradient in zip(self.gradients, torch.autograd.grad(mean, self.parameters), strict=True):
            total.add_(gradient, alpha=tokens)
        self.loss += tokens * mean.item()
        self.tokens += tokens
        self.images += images


class _Along(nn.Module):
    """What DeepSpeed is given to train: a function of the layer's parameters, with the gradient that it is called with.

    DeepSpeed gives every micro-batch and every rank the same weight. Here they are weighted by their tokens, of which
    the number is known only once all were read; so they are summed up first, and DeepSpeed sees one batch per step. It
    clips, splits and averages over the ranks as ever.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, gradients: list[Tensor]) -> Tensor:
        products = [(p * gradient).sum() for p, gradient in zip(_trained(self.layer), gradients, strict=True)]
        return torch.stack(products).sum()


class Steps:
    """A run of one config on one set of examples, on this rank. Every rank makes one, and runs it.

    The loss of a step is the mean over all labelled tokens of its micro-batches on all ranks, and so is its gradient:
    up to rounding, and to what dropout draws, neither depends on how a batch is cut.

    Args:
        model: its encoder and language model stay as they are; its projection is where the run starts from.
        rejections: what was left out so far; more is added as it is met.
        started_from: hash of the projection that the model came with; None if it was drawn.
    """

    def __init__(
        self,
        model: Limber,
        examples: Examples,
        rejections: Rejections,
        ranks: Ranks,
        started_from: str | None = None,
    ) -> None:
        self.model = model
        self.examples = examples
        self.rejections = rejections
        self.ranks = ranks
        self.started_from = started_from
        self.config: LimberConfig = model.config
        self.limit: int = room(model, examples.n_positions)
        self.layer = _trainable(model, examples)
        ranks.wait()  # DeepSpeed's own groups have less patience than the one that waits here
        self.engine = _engine(self.layer, self.config, ranks)
        self.chooser = np.random.default_rng(self.config.seed + 1)
        self.checkpointing = Checkpointing(self.config.gradient_checkpointing)
        self.course = Course()

    @property
    def trained(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one layer as it is now."""
        return self.layer.folded() if isinstance(self.layer, Whitened) else (self.layer.weight, self.layer.bias)

    def resume(self, checkpoints: Checkpoints, log_path: Path) -> None:
        """Go back to the newest whole checkpoint: layer, optimizer, schedule, place in the order of the examples,
        choice of captions, dropout, and what was rejected are where they were; the log's later lines are dropped.

        Raises:
            InputError: it is of another run, or the log is not its own.
        """
        if (done := checkpoints.newest()) is None:
            logger.info("%s: no whole checkpoint in it; training starts from the beginning", checkpoints.folder)
            return
        self._check_same_run(done)
        with self.ranks.first_alone():
            self.course.lines = kept_lines(log_path, done.step)
        checkpoints.load(self.engine, done)
        self.chooser.bit_generator.state = done.state["chooser"]
        self.rejections.extend(done.state["rejected"])

    def run(
        self,
        log: Log,
        checkpoints: Checkpoints,
        progress: Progress,
        evaluate: Callable[[int], dict[str, float]] | None,
        watch: Callable[[Course], object],
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        """All steps that are left. Each rank has its share of every batch.

        Args:
            ended: called right after the last step, before anything else that could fail; also where none was left.
        """
        config = self.config
        if self.ranks.world_size > 1 and not self.course.lines:
            torch.manual_seed(config.seed + 1 + self.ranks.rank)  # each process drops other positions
        if len(self.course.lines) >= config.train_steps:
            ended()
        reads = ahead(self._read, self._micro_batches())
        for step in progress(range(len(self.course.lines), config.train_steps), "Training"):
            with self.ranks.missing(f"step {step}"):
                line = self._step(step, reads)
            if step + 1 == config.train_steps:
                ended()
            if evaluate is not None and config.eval_every and (step + 1) % config.eval_every == 0:
                line["held_out"] = evaluate(step + 1)
            log.write(line, self.course.measured[-1])
            watch(self.course)
            if config.save_every and (step + 1) % config.save_every == 0:
                log.sync()
                checkpoints.save(self.engine, step + 1, self._state())

    def _step(self, step: int, reads: Iterator[tuple[int, np.ndarray, Read]]) -> dict[str, Any]:
        began = time.perf_counter()
        waited, sums = 0.0, _Sums(_trained(self.layer))
        for _ in range(self.config.gradient_accumulation_steps):
            asked = time.perf_counter()
            count, mine, read = next(reads)
            waited += time.perf_counter() - asked
            self._reject(read)
            # Drawn for all, so that what one is told depends neither on the others nor on what was rejected
            chosen = self.chooser.random(count)[mine][read.places]
            if read.captions:
                sums.add(*self._loss(step, read, chosen), images=len(read.captions))
        loss, tokens, images = self.ranks.totals((sums.loss, sums.tokens, sums.images), self.model.device)
        if not tokens:
            raise InputError(f"step {step}: all of its examples were rejected; mend the data, or raise batch_size")
        lr = self._update(step, sums.gradients, tokens)
        line = {"step": step, "loss": loss / tokens, "lr": lr, "tokens": int(tokens)}
        self.course.lines.append(line)
        seconds = time.perf_counter() - began
        rates = {"images_per_s": images / seconds, "tokens_per_s": tokens / seconds}
        self.course.measured.append({"seconds": seconds, "data_seconds": waited, **rates})
        return line

    def _update(self, step: int, gradients: list[Tensor], tokens: float) -> float:
        """Let DeepSpeed take a step along the mean gradient of all `tokens` of all ranks; returns its learning rate."""
        lr = rate(self.config, step)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        scale = self.ranks.world_size / tokens  # DeepSpeed takes the mean over the ranks
        self.engine.backward(self.engine([gradient * scale for gradient in gradients]))
        self.engine.step()
        return lr

    def _loss(self, step: int, read: Read, chosen: np.ndarray) -> tuple[Tensor, int]:
        """Of one micro-batch that has examples left, and its number of labels."""
        model, device = self.model, self.model.device
        encoding = self.examples.encoding(read).to(device).float()
        n_tokens = model.projection.n_tokens
        soft_prompt = self.layer(encoding).unflatten(-1, (n_tokens, -1)).flatten(1, 2)
        told = [captions[int(u * len(captions))] for captions, u in zip(read.captions, chosen, strict=True)]
        ids, labels = (t.to(device) for t in caption_tokens(model.vocabulary, told, self.limit))
        dropped = nn.functional.dropout(soft_prompt, self.config.image_embed_dropout_prob)
        rows = model.vocabulary.rows
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.bf16):
            loss = caption_loss(model.lm, rows, dropped, ids, labels, self.checkpointing)
            if step == 0 and not loss.isfinite():  # nothing was trained yet that could have gone wrong
                prompt = torch.cat([dropped.detach().to(model.dtype), model.lm.W_E[ids[:, :-1]]], dim=1)
                raise InputError(f"step 0: {not_finite(model.lm, prompt, names=read.keys)}")
        if not loss.item() < EXPLODED * math.log(len(rows)):  # NaN is not below it either
            raise RuntimeError(
                f"step {step}: the loss is {loss.item():.4g} on {keys_shown(read.keys)}; look at these, or lower lr "
                f"({self.config.lr}), and go on with --resume"
            )
        return loss, int((labels >= 0).sum())

    def _reject(self, read: Read) -> None:
        for index, rejected in read.rejected.items():
            self.rejections.add(index, rejected)
        if read.rejected:
            self.rejections.check()

    def _micro_batches(self) -> Iterator[Int[np.ndarray, " rows"]]:
        config = self.config
        batches = order(len(self.examples), config.batch_size * config.gradient_accumulation_steps, config.seed)
        for batch in islice(batches, len(self.course.lines), config.train_steps):
            yield from np.split(batch, config.gradient_accumulation_steps)

    def _read(self, rows: Int[np.ndarray, " rows"]) -> tuple[int, Int[np.ndarray, " share"], Read]:
        mine = share(np.arange(len(rows)), self.ranks.rank, self.ranks.world_size)
        return len(rows), mine, self.examples.read(rows[mine])

    def _state(self) -> dict[str, Any]:
        self.gather_rejections()
        return {**self._fixed, "chooser": self.chooser.bit_generator.state, "rejected": self.rejections.rows()}

    def gather_rejections(self) -> None:
        """Let every rank know what the others left out."""
        for rows in self.ranks.gathered(self.rejections.rows()):
            self.rejections.extend(rows)

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        """What is the same in all of a run, resumed or not."""
        return {
            "examples": len(self.examples),
            "config": self.config.model_dump(exclude=MAY_CHANGE),
            "init": self.started_from,
            "data": identity(self.model, self.examples),
        }

    def _check_same_run(self, checkpoint: Checkpoint) -> None:
        """Raise InputError if the checkpoint is of a run with other settings, another start, or other data."""
        if "data" not in checkpoint.state:
            raise InputError(
                f"{checkpoint.path}: does not say what data it was trained on: an earlier release wrote it, and "
                "weighted the losses otherwise; start anew with another --out"
            )
        here, there = (
            {"examples": run["examples"], "init": run["init"], **run["config"]}
            for run in (self._fixed, checkpoint.state)
        )
        if changed := [key for key in here if here[key] != there.get(key)]:
            values = ", ".join(f"{key} {there.get(key)!r}, now {here[key]!r}" for key in changed)
            raise InputError(f"{checkpoint.path}: of another run ({values}); give the same settings, or another --out")
        if found := difference(checkpoint.state["data"], self._fixed["data"], self.examples):
            raise InputError(
                f"{checkpoint.path}: of a run on other data than {self.examples.name}: {found}; give the same data, or "
                "another --out"
            )


def _trainable(model: Limber, examples: Examples) -> Whitened | nn.Linear:
    """The projection's layer, unfrozen, on whitened encodings where the config says so."""
    projection, config = model.projection, model.config
    linear = nn.Linear(projection.linear.in_features, projection.linear.out_features, dtype=torch.float32)
    linear.load_state_dict(projection.linear.state_dict())
    linear = linear.to(projection.linear.weight.device)
    if not config.whiten:
        return linear
    whitened = Whitened(linear, *statistics(sample(examples, config.seed, SAMPLE))).to(linear.weight.device)
    if config.projection != UNTRAINED:  # a drawn layer is as good in these coordinates as in the others
        whitened.start_from(linear.weight, linear.bias)
    return whitened


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters() if parameter.requires_grad]


def _engine(layer: nn.Module, config: LimberConfig, ranks: Ranks) -> Any:
    """DeepSpeed's engine around the one layer that is trained. It sees one batch per step; see `_Along`."""
    import deepspeed

    optimizer = torch.optim.AdamW(_trained(layer), lr=config.lr, betas=(0.9, 0.95), weight_decay=config.weight_decay)
    engine, *_ = deepspeed.initialize(
        model=_Along(layer),
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": config.batch_size // ranks.world_size,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": config.gradient_clipping,
            "zero_optimization": {"stage": config.zero_stage},
            "steps_per_print": 10**9,
        },
    )
    return engine
