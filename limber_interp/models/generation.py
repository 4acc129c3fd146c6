"""Continuing a prompt of embeddings, token by token."""

import hashlib
import logging
import math
import weakref
from collections.abc import Callable, Container, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer, TransformerLensKeyValueCache

from limber_interp.errors import InputError
from limber_interp.finite import not_finite
from limber_interp.hooks import hooks_on, some
from limber_interp.text_rows import TextRows
from limber_interp.threads import using
from limber_interp.weights import tensors_sha256

logger = logging.getLogger(__name__)

# Of each model the hooks that the log has spoken of: once, not for every batch
_told: "weakref.WeakKeyDictionary[HookedTransformer, tuple[str, ...]]" = weakref.WeakKeyDictionary()


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
        temperature: above 0. Towards 0 it is the greedy choice, shared evenly by equally probable tokens.
    """
    limits, logits = torch.finfo(torch.float32), logits.float()
    # The highest logit becomes 0, so that no temperature makes infinities of it, however low
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / min(max(temperature, limits.tiny), limits.max)
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


def stream(seed: int, key: str, sample: int = 0) -> torch.Generator:
    """The random numbers by which one prompt is continued: they depend on the seed, on what the prompt says (its key),
    and on which of several samples it is, and so neither on the batch nor on the device."""
    digest = hashlib.sha256(f"{seed} {key} {sample}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def residual_keys(residual: Float[Tensor, "batch pos d_model"], attention_mask: Int[Tensor, "batch pos"]) -> list[str]:
    """A key for each prompt where nothing else is known of what it says: the hash of its numbers without the padding.

    It changes with the last bit. Soft prompts that were computed in a batch differ from the same ones computed one by
    one by about 1e-6.
    """
    rows = zip(residual, attention_mask.bool(), strict=True)
    return [tensors_sha256({"residual": row[kept]}) for row, kept in rows]


def cached(lm: HookedTransformer, use_cache: bool | None) -> bool:
    """Whether to keep keys and values of past positions: by default, unless hooks stand on the model, which is logged.

    With a cache a hook would see the new position alone after the prompt, as position 0: what it does to given
    positions of the prompt would happen to every new token.

    Raises:
        InputError: `use_cache` is True, and there are hooks.
    """
    hooks = hooks_on(lm) if use_cache is not False else ()
    if use_cache and hooks:
        raise InputError(
            f"use_cache=True: hooks stand on the language model ({some(hooks)}), and with a cache they see each new "
            "token alone, as position 0; leave use_cache out, or remove them "
            "(lm.reset_hooks(including_permanent=True))"
        )
    if hooks and _told.get(lm) != hooks:
        logger.info("hooks stand on the language model (%s): it generates without a cache, slower", some(hooks))
    _told[lm] = hooks
    return use_cache is not False and not hooks


@torch.no_grad()
def generate(
    lm: HookedTransformer,
    residual: Float[Tensor, "batch pos d_model"],
    attention_mask: Int[Tensor, "batch pos"],
    rows: TextRows | int,
    eos: int,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    use_cache: bool | None = None,
    stops: Container[int] = frozenset(),
    sample: int = 0,
    keys: Callable[[], Sequence[str] | None] = lambda: None,
    names: Sequence[str] = (),
) -> list[list[int]]:
    """Continue each prompt until the end-of-text token (left out of the result) or `max_new_tokens`.

    No token outside of `rows` is ever chosen. Each row of the batch draws from a generator of its own, seeded by
    `seed`, `sample` and what its prompt says: different prompts draw different numbers, and a prompt is continued the
    same way whatever it is batched with. Hooks that stand on the model see whole prompts, as in a forward pass of their
    own.

    Args:
        residual: embeddings, padded on the left.
        rows: the tokens that may be chosen; a number n for `0 … n - 1`.
        temperature: 0 takes the most probable token each time.
        use_cache: keep keys and values of past positions; False computes them anew each time, with the same result.
            None: keep them unless hooks stand on the model, which would see the new positions alone.
        stops: tokens after which a continuation has ended as well; they are part of it.
        sample: which of several samples from the same prompt, from 0 on.
        keys: gives a hash of what each prompt says, for its generator, or None for that of its numbers. It is asked
            only where something is drawn.
        names: of the prompts, for messages.

    Raises:
        InputError: a setting out of its range, more positions than the model has, `use_cache` where hooks stand on the
            model, or logits that are not finite (where it became so is said). Logits of minus infinity, by which a hook
            forbids tokens, are no fault.
    """
    rows = TextRows.of(rows)
    check_sampling(temperature, top_k, top_p, len(rows))
    batch, pos, _ = residual.shape
    if max_new_tokens < 1 or pos + max_new_tokens > lm.cfg.n_ctx:
        raise InputError(
            f"max_new_tokens {max_new_tokens}: expected 1 to {lm.cfg.n_ctx - pos}; "
            f"the prompt takes {pos} of the model's {lm.cfg.n_ctx} positions"
        )
    generators = []
    if temperature:
        of_rows = keys() or residual_keys(residual, attention_mask)
        generators = [stream(seed, key, sample) for key in of_rows]
    with using(lm):  # so that no other thread's hooks come and go between two tokens
        use_cache = cached(lm, use_cache)
        cache = TransformerLensKeyValueCache.init_cache(lm.cfg, residual.device, batch) if use_cache else None
        continuations: list[list[int]] = [[] for _ in range(batch)]
        finished = [False] * batch
        whole = [residual]  # the prompt, and what follows it
        if not use_cache:
            residual = residual.clone()  # hooks may write into it
        for _ in range(max_new_tokens):
            logits = rows.columns(_next_logits(lm, residual, attention_mask, cache))
            highest = logits.amax(dim=-1).isfinite()
            if not highest.all() and not all(f or h for f, h in zip(finished, highest.tolist(), strict=True)):
                raise not_finite(lm, torch.cat(whole, dim=1), attention_mask, names)
            if temperature == 0:
                places = logits.float().argmax(dim=-1)
            else:
                probabilities = token_probabilities(logits, temperature, top_k, top_p).cpu()
                drawn = [_draw(p, g) for p, g in zip(probabilities, generators, strict=True)]
                places = torch.cat(drawn).to(residual.device)
            chosen = rows.at(places)
            for i, token in enumerate(chosen.tolist()):
                finished[i] = finished[i] or token == eos
                if not finished[i]:
                    continuations[i].append(token)
                    finished[i] = token in stops
            if all(finished):
                break
            new = lm.W_E[chosen][:, None]
            whole.append(new)
            residual = new if use_cache else torch.cat(whole, dim=1)
            attention_mask = torch.cat([attention_mask, attention_mask.new_ones(batch, 1)], dim=1)
    return continuations


def _next_logits(
    lm: HookedTransformer, residual: Tensor, attention_mask: Tensor, cache: TransformerLensKeyValueCache | None
) -> Float[Tensor, "batch token"]:
    # With start_at_layer, TransformerLens takes the mask over past and new positions as it is given
    given = {"start_at_layer": 0, "attention_mask": attention_mask}
    if cache is None and any(not name.startswith("blocks.") for name in hooks_on(lm)):
        return lm(residual, **given)[:, -1]  # hooks on the model's end see all positions too
    resid_post = lm(residual, stop_at_layer=lm.cfg.n_layers, past_kv_cache=cache, **given)
    # Logits of the last position alone: those of a prompt of images would be most of the memory
    return lm.unembed(lm.ln_final(resid_post[:, -1:]))[:, 0]


def _draw(probabilities: Float[Tensor, " token"], generator: torch.Generator) -> Int[Tensor, "1"]:
    if not probabilities.isfinite().all():  # of a row that has ended; the others have been looked at
        return torch.zeros(1, dtype=torch.long, device="cpu")
    return torch.multinomial(probabilities, 1, generator=generator)
