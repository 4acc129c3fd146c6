"""What a run would take, from ten of its steps. Nothing is written."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float16
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.datasets import Dataset, Rejections
from limber_interp.devices import choose_device
from limber_interp.encodings import Encodings, open_encodings
from limber_interp.models.encoders import Encoder
from limber_interp.models.limber import UNTRAINED, load
from limber_interp.ranks import Ranks
from limber_interp.records import TrainingPlan
from limber_interp.training.checkpoints import Checkpoints
from limber_interp.training.examples import Live, Read, Stored
from limber_interp.training.log import Log
from limber_interp.training.memory import frozen_dtype, kept_bytes
from limber_interp.training.ranks import check_deepspeed, meet
from limber_interp.training.steps import Progress, Steps

MEASURED = 10


def plan(
    config: LimberConfig,
    source: Dataset | Encodings,
    progress: Progress = lambda items, _: items,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    live: bool = False,
) -> TrainingPlan:
    """Take ten steps of one batch each, and multiply: by the batches in a step, and by the steps.

    Images are encoded as they come, and the time of that told apart: with stored encodings it is spent once for each
    image, with `live` at every step. Nothing is whitened, which changes no time that can be measured.

    It misleads where the machine is shared, where ten batches are read from a cache that the whole data does not fit
    into, and where later captions are longer.

    Raises:
        InputError, RuntimeError: as `train`, as far as ten steps meet it.
    """
    check_deepspeed()
    ranks = Ranks.of_environment()
    short = {"train_steps": MEASURED, "gradient_accumulation_steps": 1, "whiten": False}
    quiet = {"save_every": None, "eval_every": None}
    device = choose_device(ranks.device(device))
    dtype = frozen_dtype(dtype, device, config.bf16)
    model = load(config.model_copy(update={**short, **quiet}), projection=UNTRAINED, device=device, dtype=dtype)
    meet(model.device)
    given = isinstance(source, Encodings)
    if isinstance(source, Encodings):
        examples: Stored | _Timed = Stored(open_encodings(source.folder, model.encoder))
    else:
        examples = _Timed(model.encoder, source)
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    with tempfile.TemporaryDirectory() as folder:
        rejections = Rejections(examples.name, len(examples), Path(folder) / "rejected.jsonl", max_rejected=1.0)
        steps = Steps(model, examples, rejections, ranks)
        with Log(Path(folder) / "log.jsonl", 0, None, writes=False) as log:
            steps.run(log, Checkpoints(Path(folder)), progress, None, lambda course: None)
    pace, batches = steps.course.pace, config.gradient_accumulation_steps
    encoding = float(np.median(examples.seconds)) if isinstance(examples, _Timed) else 0.0
    tokens = float(np.mean([line["tokens"] for line in steps.course.lines]))
    share = config.batch_size // ranks.world_size
    prompt_pos = examples.n_positions * model.projection.n_tokens
    longest = prompt_pos + int(np.ceil(tokens / config.batch_size))
    seconds = pace["seconds"] - (0.0 if live else encoding)
    step = batches * seconds
    once = 0.0 if given or live else len(examples) * encoding / share / ranks.world_size
    return TrainingPlan(
        trainable=sum(p.numel() for p in steps.layer.parameters() if p.requires_grad),
        frozen=sum(p.numel() for part in (model.encoder, model.lm) for p in part.parameters()),
        examples=len(examples),
        processes=ranks.world_size,
        images_per_step=config.batch_size * batches,
        prompt_pos=prompt_pos,
        tokens_per_step=tokens * batches,
        epochs=config.train_steps * config.batch_size * batches / len(examples),
        steps=config.train_steps,
        step_seconds=step,
        data_seconds=batches * pace["data_seconds"],
        encoding_seconds=once,
        total_seconds=once + config.train_steps * step,
        encodings_bytes=0 if given or live else 2 * len(examples) * examples.n_positions * examples.d_encoder,
        activation_bytes=kept_bytes(model.lm, share, longest),
        checkpointing=steps.checkpointing.chosen,
        peak_bytes=_peak(model.device),
        device=str(model.device),
        manifest=model.manifest(seed=config.seed),
    )


class _Timed(Live):
    """Knows what the encoder's part of the time was."""

    def __init__(self, encoder: Encoder, dataset: Dataset) -> None:
        super().__init__(encoder, dataset)
        self.seconds: list[float] = []

    def encoding(self, read: Read) -> Float16[Tensor, "kept image_pos d_encoder"]:
        began = time.perf_counter()
        encoded = super().encoding(read)
        self.seconds.append(time.perf_counter() - began)
        return encoded


def _peak(device: torch.device) -> int:
    """Most memory so far: the GPU's, or that of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
