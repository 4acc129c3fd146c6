"""What the projection carries: the loss on unseen captions with the right image, a wrong one, and none."""

from collections.abc import Iterable

import torch

from limber_interp.errors import InputError
from limber_interp.finite import not_finite
from limber_interp.models.limber import Limber
from limber_interp.training.data import IGNORED, caption_tokens
from limber_interp.training.examples import Told
from limber_interp.training.objective import caption_loss


@torch.no_grad()
def held_out_losses(model: Limber, batches: Iterable[Told]) -> dict[str, float]:
    """Loss in nats per caption token with the `right` image, the `wrong` one (the next example's in its batch), and
    with `none`; of each example its first caption. Right against none is what the projection carries; right against
    wrong, what it carries of this image rather than of images as such.

    An example that is alone in its batch has no wrong image, and where all are there is no `wrong`.

    Raises:
        InputError: a loss that is not finite; where it became so is said.
    """
    totals, tokens = dict.fromkeys(("right", "wrong", "none"), 0.0), dict.fromkeys(("right", "wrong", "none"), 0)
    for encoding, captions in batches:
        limit = room(model, encoding.shape[1])
        told = caption_tokens(model.vocabulary, [those[0] for those in captions], limit)
        ids, labels = (t.to(model.device) for t in told)
        for kind in totals:
            if kind == "wrong" and len(captions) == 1:
                continue
            shown = encoding.roll(-1, 0) if kind == "wrong" else encoding
            kept = labels.clone()
            kept[:, 0] = IGNORED  # without an image nothing stands before the first token: leave it out of all three
            if not (kept != IGNORED).any():  # and the context had room for no other
                continue
            if kind == "none":
                soft_prompt, seen, kept = model.lm.W_E[ids[:, :1]], ids[:, 1:], kept[:, 1:]
            else:
                soft_prompt, seen = model.projection(shown.to(model.device).float()), ids
            loss = caption_loss(model.lm, model.vocabulary.rows, soft_prompt, seen, kept)
            if not loss.isfinite():
                prompt = torch.cat([soft_prompt.to(model.dtype), model.lm.W_E[seen[:, :-1]]], dim=1)
                raise not_finite(model.lm, prompt, names=[f"held-out caption {text[0]!r}" for text in captions])
            count = int((kept != IGNORED).sum())
            totals[kind] += loss.item() * count
            tokens[kind] += count
    return {kind: totals[kind] / tokens[kind] for kind in totals if tokens[kind]}


def room(model: Limber, n_positions: int) -> int:
    """Tokens of a caption that fit behind the soft prompt; the last is only predicted, and takes no position.

    Raises:
        InputError: none fits.
    """
    prompt_pos, n_ctx = n_positions * model.projection.n_tokens, model.lm.cfg.n_ctx
    if prompt_pos >= n_ctx:
        raise InputError(
            f"soft prompt of {prompt_pos} positions: the language model has {n_ctx}, and a caption follows"
        )
    return n_ctx - prompt_pos + 1
