"""Continuing a prompt of embeddings, token by token."""

import math
from collections.abc import Container

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer, TransformerLensKeyValueCache

from limber_interp.errors import InputError


def check_sampling(temperature: float, top_k: int | None, top_p: float | None, n_used: int) -> None:
    """Refuse settings that mean nothing.

    Raises:
        InputError: a value out of its range, or top-k or top-p where the temperature is 0.
    """
    if not 0 <= temperature < math.inf:  # which NaN is not either
        raise InputError(f"temperature {temperature}: expected 0 (greedy) or a positive number")
    if top_k is not None and not 1 <= top_k <= n_used:
        raise InputError(f"top_k {top_k}: expected 1 to {n_used}, the size of the vocabulary")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p {top_p}: expected more than 0, and 1 at most")
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise InputError("top_k and top_p change nothing at temperature 0 (greedy): set a temperature, such as 1")


def token_probabilities(
    logits: Float[Tensor, "*batch token"], temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Float[Tensor, "*batch token"]:
    """The distribution to sample from, in float32: temperature, then top-k, then top-p.

    Top-p (nucleus sampling, Holtzman et al., arXiv 1904.09751) keeps the smallest set of most probable tokens whose
    mass reaches p; the token that crosses it is kept, so at least one remains. LIMBER's own code has it inverted: its
    default of 0.9 keeps what 0.1 keeps here, applied before the temperature.

    Args:
        temperature: above 0.
    """
    logits = logits.float() / temperature
    if top_k is not None:
        kept = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    probabilities = logits.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        descending, order = probabilities.sort(dim=-1, descending=True, stable=True)
        mass_before = descending.double().cumsum(dim=-1) - descending
        descending[mass_before >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, descending)
        probabilities /= probabilities.sum(dim=-1, keepdim=True)
    return probabilities


@torch.no_grad()
def generate(
    lm: HookedTransformer,
    residual: Float[Tensor, "batch pos d_model"],
    attention_mask: Int[Tensor, "batch pos"],
    n_used: int,
    eos: int,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    use_cache: bool = True,
    stops: Container[int] = frozenset(),
) -> list[list[int]]:
    """Continue each prompt until the end-of-text token (left out of the result) or `max_new_tokens`.

    Rows from `n_used` on are never chosen. Each row of the batch draws from its own generator, seeded alike, so that a
    prompt is continued the same way whatever it is batched with.

    Args:
        residual: embeddings, padded on the left.
        temperature: 0 takes the most probable token each time.
        use_cache: keep keys and values of past positions; False computes them anew each time, with the same result.
        stops: tokens after which a continuation has ended as well; they are part of it.

    Raises:
        InputError: a setting out of its range, or more positions than the model has.
    """
    check_sampling(temperature, top_k, top_p, n_used)
    batch, pos, _ = residual.shape
    if max_new_tokens < 1 or pos + max_new_tokens > lm.cfg.n_ctx:
        raise InputError(
            f"max_new_tokens {max_new_tokens}: expected 1 to {lm.cfg.n_ctx - pos}; "
            f"the prompt takes {pos} of the model's {lm.cfg.n_ctx} positions"
        )
    generators = [torch.Generator().manual_seed(seed) for _ in range(batch)]
    cache = TransformerLensKeyValueCache.init_cache(lm.cfg, residual.device, batch) if use_cache else None
    continuations: list[list[int]] = [[] for _ in range(batch)]
    finished = [False] * batch
    for _ in range(max_new_tokens):
        # With start_at_layer, TransformerLens takes the mask over past and new positions as it is given
        resid_post = lm(
            residual,
            start_at_layer=0,
            stop_at_layer=lm.cfg.n_layers,
            attention_mask=attention_mask,
            past_kv_cache=cache,
        )
        # Logits of the last position alone: those of a prompt of images would be most of the memory
        logits = lm.unembed(lm.ln_final(resid_post[:, -1:]))[:, 0, :n_used]
        if temperature == 0:
            chosen = logits.float().argmax(dim=-1)
        else:
            rows = token_probabilities(logits, temperature, top_k, top_p).cpu()
            drawn = [torch.multinomial(row, 1, generator=g) for row, g in zip(rows, generators, strict=True)]
            chosen = torch.cat(drawn).to(residual.device)
        for i, token in enumerate(chosen.tolist()):
            finished[i] = finished[i] or token == eos
            if not finished[i]:
                continuations[i].append(token)
                finished[i] = token in stops
        if all(finished):
            break
        new = lm.W_E[chosen][:, None]
        residual = new if use_cache else torch.cat([residual, new], dim=1)
        attention_mask = torch.cat([attention_mask, attention_mask.new_ones(batch, 1)], dim=1)
    return continuations
