"""Numbers that are not finite: where they came from and what to do, in one line.

The checks look at the last thing that was computed anyway. Only where it is not finite, the forward pass is run again,
to find the place.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer

from limber_interp.errors import InputError
from limber_interp.hooks import hooks_on, some
from limber_interp.threads import using


def check_rows(values: Float[Tensor, "batch ..."], names: Sequence[str], what: str) -> None:
    """Raise InputError if a row has numbers that are not finite: its name, and `what` they are."""
    if not (finite := values.isfinite().flatten(1).all(dim=1)).all():
        raise InputError(f"{names[int(finite.int().argmin())]}: {what}")


@torch.no_grad()
def not_finite(
    lm: HookedTransformer,
    residual: Float[Tensor, "batch pos d_model"],
    attention_mask: Int[Tensor, "batch pos"] | None = None,
    names: Sequence[str] = (),
) -> InputError:
    """The error for a prompt after which something was not finite: the first place where it shows, and what to do.

    The hooks that stand on the model take effect here too, before their place is looked at.

    Args:
        residual: embeddings, padded on the left where `attention_mask` is 0. What stands there does not count.
        names: of the prompts.
    """
    with using(lm):
        hooks = hooks_on(lm)
        place, bad = _first(lm, residual, attention_mask)
    row = int(bad.int().argmax()) if bad.any() else None
    name = f"{names[row]}: " if row is not None and row < len(names) else ""
    dtype = str(lm.cfg.dtype).removeprefix("torch.")
    remedies = ["check the language model's weights"]
    if lm.cfg.dtype == torch.float16:
        remedies = ["it ends at 65,504: choose --dtype bfloat16 or float32 (dtype=… in Python)", *remedies]
    if place == PROMPT and lm.cfg.dtype != torch.float16:
        remedies = ["check the encoder's weights and the projection's"]
    if hooks:
        remedies.append(f"look at the hooks that stand on it ({some(hooks)})")
    return InputError(f"{name}{place} has numbers that are not finite in {dtype}; {', or '.join(remedies)}")


PROMPT = "the prompt itself (the soft prompt, before the first layer)"
END = "what ln_final and the unembedding make of the last layer"


def _first(
    lm: HookedTransformer, residual: Tensor, attention_mask: Tensor | None
) -> tuple[str, Bool[Tensor, " batch"]]:
    """The first place of a forward pass that is not finite, and in which prompts."""
    counts = torch.ones(residual.shape[:2], dtype=torch.bool, device=residual.device)
    if attention_mask is not None:
        counts = attention_mask.bool()

    def bad_rows(values: Tensor) -> Bool[Tensor, " batch"]:
        return (~values.isfinite().all(dim=-1) & counts).any(dim=-1)

    if (bad := bad_rows(residual)).any():
        return PROMPT, bad
    found: list[tuple[str, Tensor]] = []

    def look(values: Tensor, hook: object) -> None:
        if not found and (bad := bad_rows(values)).any():
            found.append((f"the language model's {hook.name}", bad))  # type: ignore[attr-defined]

    of_block = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    names = [f"blocks.{layer}.{name}" for layer in range(lm.cfg.n_layers) for name in of_block]
    lm.run_with_hooks(
        residual.clone(),  # hooks may write into it
        start_at_layer=0,
        stop_at_layer=lm.cfg.n_layers,
        attention_mask=attention_mask,
        fwd_hooks=[(name, look) for name in names],
    )
    return found[0] if found else (END, torch.zeros(len(residual), dtype=torch.bool))
