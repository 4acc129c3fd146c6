"""What the activations of the frozen language model take in training, and whether there is room to keep them."""

import logging
from typing import Literal

import psutil
import torch
from transformer_lens import HookedTransformer

logger = logging.getLogger(__name__)

Asked = Literal["auto", "on", "off"]
SPARE = 0.8  # of the free memory that activations may take: the allocator's fragments and what passes by take the rest


class Checkpointing:
    """Whether each block's activations are computed again in the backward pass instead of being kept.

    Chen et al., arXiv 1604.06174. That costs one more forward pass, and leaves one residual per block in memory. `auto`
    asks for it where what a batch keeps would not fit into the memory that is free; loss and gradient are the same.

    Attributes:
        chosen: for the last batch; None before the first.
    """

    def __init__(self, asked: Asked = "auto") -> None:
        self.asked = asked
        self.chosen: bool | None = None

    def wanted(self, lm: HookedTransformer, batch: int, positions: int) -> bool:
        """The choice for a batch; it is logged with its sizes where it differs from the last one."""
        if not torch.is_grad_enabled():
            return False
        needed, free = kept_bytes(lm, batch, positions), free_bytes(lm.W_E.device)
        chosen = needed > SPARE * free if self.asked == "auto" else self.asked == "on"
        if chosen != self.chosen:
            sizes = f"{batch} x {positions} positions keep {needed / 2**30:.2f} of {free / 2**30:.2f} GiB free"
            logger.info("gradient checkpointing %s (%s): %s", "on" if chosen else "off", self.asked, sizes)
            self.chosen = chosen
        return chosen


def frozen_dtype(asked: str | torch.dtype, device: torch.device, bf16: bool) -> str | torch.dtype:
    """In which the frozen language model is kept where `auto` is asked for: on a GPU what it computes in, since
    autocast would keep its casts of float32 beside it; float32 on a CPU. Never float16, whose gradients need scaling.
    """
    if asked != "auto":
        return asked
    return torch.bfloat16 if bf16 and device.type == "cuda" else torch.float32


def kept_bytes(lm: HookedTransformer, batch: int, positions: int) -> int:
    """Bytes that all blocks keep for the backward pass when nothing is checkpointed.

    Per position and block: what each of the four LayerNorms normalises, rotated queries and keys and the softmax in
    float32; values, attention pattern and the MLP's input to its activation function in the model's dtype; and masks.
    Frozen matrices keep nothing of their input. Autocast keeps its casts of them, though, since it does not cache
    those of frozen ones.
    """
    cfg = lm.cfg
    item, d_mlp = cfg.dtype.itemsize, cfg.d_mlp or 0
    position = 6 * 4 * cfg.d_model + item * cfg.d_model + (4 + item + 1) * cfg.n_heads * positions + item * d_mlp
    cast = torch.is_autocast_enabled(lm.W_E.device.type) and cfg.dtype == torch.float32
    weights = 2 * sum(p.numel() for p in lm.blocks[0].parameters() if p.ndim > 1) if cast else 0
    return cfg.n_layers * (batch * positions * position + weights)


def free_bytes(device: torch.device) -> int:
    """Bytes that a tensor on the device may take: on a GPU also those that torch holds and does not use."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return psutil.virtual_memory().available
