"""Captions, each beside what its words are worth without the image."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch

from limber_interp.images import ImageSource, describe, distinct, each, image_hash, load_image
from limber_interp.models.limber import Limber, PromptPart
from limber_interp.probes.controls import noise
from limber_interp.records import Caption, Captions


def captions(
    model: Limber,
    images: ImageSource | Iterable[ImageSource],
    prompt: str = "A picture of",
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    batch_size: int = 8,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Captions:
    """Caption each image (see `Limber.caption`), and score the caption with the image, without, and with noise for it.

    The score is the mean log-probability per token of the caption, in nats. A caption that is as probable without the
    image says nothing about it, however well it reads. The converse misleads: a high score says that the model is sure,
    not that it is right.

    Args:
        seed: of sampling, and of the noise.
        progress: wraps the iteration over batches.

    Raises:
        InputError: a setting out of its range, or an image that cannot be opened (before any is captioned).
    """
    images = list(each(images))
    for image in images:  # opened again in batches: all at once they may not fit into memory
        load_image(image)
    names = [describe(image) for image in images]
    sampling = (max_new_tokens, temperature, top_k, top_p, seed)
    no_image = model.generate([prompt], *sampling)[0]

    found, hashes = [], []
    for start in progress(range(0, len(images), batch_size)):
        opened = [load_image(image) for image in images[start : start + batch_size]]
        hashes += [image_hash(image) for image in opened]
        pixels = model.preprocess(opened)
        soft_prompts = model.soft_prompt(pixels)
        continuations = model.generate([[rows, prompt] for rows in soft_prompts], *sampling)
        for i, (soft_prompt, ids) in enumerate(zip(soft_prompts, continuations, strict=True)):
            (instead,) = noise(soft_prompt, 1, torch.Generator().manual_seed(seed))
            found.append(
                Caption(
                    image=names[start + i],
                    caption=model.vocabulary.text(ids).strip(),
                    logprob=mean_logprob(model, [soft_prompt, prompt], ids),
                    logprob_no_image=mean_logprob(model, [prompt], ids),
                    logprob_noise=mean_logprob(model, [instead, prompt], ids),
                    seen=model.encoder.visible(pixels[i]),
                )
            )
    manifest = replace(model.manifest(seed=seed), images=dict(zip(distinct(names), hashes, strict=True)))
    return Captions(prompt, tuple(found), model.vocabulary.text(no_image).strip(), manifest)


@torch.no_grad()
def mean_logprob(model: Limber, prompt: Sequence[PromptPart], ids: Sequence[int]) -> float:
    """Mean log-probability per token of a continuation of a prompt, in nats, in float32 over the used vocabulary.

    Args:
        ids: the continuation, as tokens: bytes that are no character do not survive as text. NaN if empty.
    """
    if not ids:
        return float("nan")
    logits = model.run_with_hooks([*prompt, model.lm.W_E[list(ids)]])
    before = logits[0, -len(ids) - 1 : -1, : model.vocabulary.n_used]
    targets = torch.tensor(ids, device=before.device)[:, None]
    return before.float().log_softmax(dim=-1).gather(-1, targets).mean().item()
