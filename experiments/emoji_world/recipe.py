"""What the training stages share: the learning-rate schedule and how half-precision weights are saved."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel


def cosine(optimizer: torch.optim.Optimizer, steps: int, warmup: int = 100) -> torch.optim.lr_scheduler.LRScheduler:
    """Linear warm-up, then a cosine down to one hundredth."""

    def factor(step: int) -> float:
        return min(1, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def save_half(model: nn.Module, out: Path) -> None:
    """Writes the model in float16 safetensors; the model itself stays as it is."""
    out.mkdir(parents=True, exist_ok=True)
    half = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(out, state_dict=half)
    else:
        save_file(half, out / "model.safetensors")
