"""The loss of one batch: how well the frozen language model tells the captions after the soft prompts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformer_lens import HookedTransformer

from limber_interp.text_rows import TextRows
from limber_interp.training.data import IGNORED
from limber_interp.training.memory import Checkpointing


def caption_loss(
    lm: HookedTransformer,
    rows: TextRows | int,
    soft_prompt: Float[Tensor, "batch prompt_pos d_model"],
    ids: Int[Tensor, "batch text_pos"],
    labels: Int[Tensor, "batch text_pos"],
    checkpointing: Checkpointing | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy in nats per labelled token, over the vocabulary's `rows` (n: `0 … n - 1`), in float32.

    Equation 1 of Merullo et al. (arXiv 2209.15162): the likelihood of a caption given the projected image; the language
    model is frozen and gradients reach the soft prompt through it. Captions are padded on the right, where causal
    attention makes a mask needless; logits are computed only where there is a label.

    Where `checkpointing` wants it the blocks run one by one, and again in the backward pass: hooks fire then too, and
    have to be there still.
    """
    # The position before a token predicts it: the last one of the soft prompt predicts the first of the caption.
    residual = torch.cat([soft_prompt.to(lm.cfg.dtype), lm.W_E[ids[:, :-1]]], dim=1)
    if checkpointing is not None and checkpointing.wanted(lm, *residual.shape[:2]):
        resid_post = residual
        for layer in range(lm.cfg.n_layers):
            resid_post = checkpoint(lm, resid_post, use_reentrant=False, start_at_layer=layer, stop_at_layer=layer + 1)
    else:
        resid_post = lm(residual, start_at_layer=0, stop_at_layer=lm.cfg.n_layers)
    labelled = labels != IGNORED
    normalized = lm.ln_final(resid_post[:, soft_prompt.shape[1] - 1 :][labelled][None])[0]
    rows = TextRows.of(rows)
    # Of a set with gaps the logits are picked, not the weights: captions are shorter than the model is wide
    logits = rows.columns(normalized @ lm.W_U[:, : rows.stop] + lm.b_U[: rows.stop])
    return cross_entropy(logits.float(), rows.places(labels[labelled]))
