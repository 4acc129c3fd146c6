"""Reading the residual stream at all layers through the model's own end, in a memory that no vocabulary multiplies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from limber_interp.finite import not_finite
from limber_interp.models.limber import Limber
from limber_interp.models.prompt import Prompt
from limber_interp.probes.lens import UnembeddingLens, best

BLOCK = 2**23  # logits in memory at a time (32 MiB), one matrix product: 166 positions of GPT-J's vocabulary
SLICE = 2**20  # logits that are summed up at a time (4 MiB): what stays in a processor's cache on its way


class Layers(NamedTuple):
    """What `read_layers` keeps. Natural logarithms.

    Attributes:
        ids, logprobs: the k most probable tokens, most probable first; of equal ones the one with the lower id.
        entropy: of each distribution.
        kl: KL(last layer || layer).
        agrees: whether the most probable token is the last layer's.
        ranks: of each target, 1 for the most probable token.
        logits: of each target.
        watched: log-probabilities of the watched tokens, targets or not.
    """

    ids: Int[Tensor, "layers n k"]
    logprobs: Float[Tensor, "layers n k"]
    entropy: Float[Tensor, "layers n"]
    kl: Float[Tensor, "layers n"]
    agrees: Bool[Tensor, "layers n"]
    ranks: Int[Tensor, "layers n targets"]
    logits: Float[Tensor, "layers n targets"]
    watched: Float[Tensor, "layers n watched"]


@torch.no_grad()
def capture(
    model: Limber, lens: UnembeddingLens, prompt: Prompt, positions: Sequence[Sequence[int]]
) -> Float[Tensor, "layers n d_model"]:
    """`ln_final` of the input of the first block and of every block's `resid_post`, at the given positions of each
    prompt of the batch, one prompt after the other.

    It runs with whatever hooks are set on the model, behind them, and LayerNorm sees whole batches, so that hooks on it
    take effect too. The unembedding of the forward pass is left out.

    Raises:
        InputError: a layer's residual is not finite at one of the positions; where it became so is said.
    """
    rows = torch.tensor([row for row, of_row in enumerate(positions) for _ in of_row], device=model.device)
    columns = torch.tensor([position for of_row in positions for position in of_row], device=model.device)
    found: list[Tensor] = []

    def keep(residual: Tensor, hook: object) -> None:
        found.append(lens.normalised(residual)[rows, columns])

    n_layers = model.lm.cfg.n_layers
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers))]
    model.run_with_hooks(prompt, [(name, keep) for name in names], stop_at_layer=n_layers)
    normalised = torch.stack(found)
    if not normalised.isfinite().all():
        raise not_finite(model.lm, prompt.residual, prompt.attention_mask, prompt.names)
    return normalised


@torch.no_grad()
def read_layers(
    lens: UnembeddingLens,
    normalised: Float[Tensor, "layers n d_model"],
    k: int,
    targets: Int[Tensor, " targets"],
    watched: Int[Tensor, " watched"],
) -> Layers:
    """Read every layer of each position, as `capture` gave them; the last of the layers is what the others are held to.

    Of a block of positions the distribution at the last layer stays in memory while the other layers are read. The cost
    is that of the matrix products, layers * n * d_model * n_used, and a few passes over their results in the cache.

    Args:
        targets, watched: token ids, as all that is returned.
    """
    followed = lens.tokens.places(targets), lens.tokens.places(watched)
    blocks = [_read_block(lens, block, k, *followed) for block in normalised.split(max(1, BLOCK // lens.n_used), dim=1)]
    found = Layers(*(torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True)))
    return found._replace(ids=lens.tokens.at(found.ids))


def _read_block(lens: UnembeddingLens, block: Tensor, k: int, targets: Tensor, watched: Tensor) -> Layers:
    """Three buffers hold all that is as large as the logits: the logits of one layer, the last layer's distribution
    (as exponentials, which `of_last` has the sums of), and what passes by.
    """
    n_positions = block.shape[1]
    size = n_positions if block.is_cuda else max(1, SLICE // lens.n_used)
    scores, last, passing = (
        torch.empty(rows, lens.n_used, dtype=torch.float32, device=block.device)
        for rows in (n_positions, n_positions, min(size, n_positions))
    )
    of_last: list[_Last] = []
    layers: list[Layers] = []
    for residual in reversed(block):
        lens.products(residual, out=scores)
        slices = []
        for i, (logits, e_last) in enumerate(zip(scores.split(size), last.split(size), strict=True)):
            logits.add_(lens.bias)
            scratch = passing[: len(logits)]
            ids = best(logits, k).sort(dim=-1).values
            top, order = logits.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
            ids = ids.gather(-1, order)

            e = scratch if layers else e_last
            torch.sub(logits, top[:, :1], out=e).exp_()
            total = e.sum(dim=-1)
            log_total = top[:, 0] + total.log()
            entropy = log_total - torch.mul(e, logits, out=scratch).sum(dim=-1) / total
            if not layers:
                of_last.append(_Last(ids[:, 0], entropy, total))
            expected = torch.mul(e_last, logits, out=scratch).sum(dim=-1) / of_last[i].total  # logit, under the last
            followed = logits[:, targets]
            slices.append(
                Layers(
                    ids=ids,
                    logprobs=top - log_total[:, None],
                    entropy=entropy.clamp_min(0),
                    kl=(log_total - expected - of_last[i].entropy).clamp_min(0),
                    agrees=ids[:, 0] == of_last[i].id,
                    ranks=_ranks(logits, followed),
                    logits=followed,
                    watched=logits[:, watched] - log_total[:, None],
                )
            )
        layers.append(Layers(*(torch.cat(parts) for parts in zip(*slices, strict=True))))
    return Layers(*(torch.stack(parts) for parts in zip(*reversed(layers), strict=True)))


class _Last(NamedTuple):
    """Of a slice at the last layer: most probable token, entropy, and sum of the exponentials."""

    id: Int[Tensor, " n"]
    entropy: Float[Tensor, " n"]
    total: Float[Tensor, " n"]


def _ranks(logits: Float[Tensor, "n n_used"], followed: Float[Tensor, "n targets"]) -> Int[Tensor, "n targets"]:
    """One more than the number of tokens with a higher logit; by counting, since targets are few."""
    ranks = torch.empty(followed.shape, dtype=torch.int64, device=logits.device)
    if logits.is_cuda:
        for i in range(followed.shape[1]):
            ranks[:, i] = 1 + (logits > followed[:, [i]]).sum(dim=-1)
        return ranks
    # A row at a time stays in the cache, and numpy counts booleans several times faster than torch adds them up
    for row, values, found in zip(logits.numpy(), followed.numpy(), ranks.numpy(), strict=True):
        for i, value in enumerate(values):
            found[i] = 1 + np.count_nonzero(row > value)
    return ranks
