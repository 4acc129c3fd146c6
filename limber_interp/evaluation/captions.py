"""Captions, each beside what its words are worth without the image."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from limber_interp.errors import check_at_least_one
from limber_interp.finite import not_finite
from limber_interp.images import ImageSource, describe, distinct, each, load_image
from limber_interp.models.generation import stream
from limber_interp.models.limber import Limber, PromptPart, check_samples
from limber_interp.models.prompt import ImagePrompt, Text
from limber_interp.probes.batches import batches
from limber_interp.probes.controls import noise
from limber_interp.records import Caption, Captions, CaptionSample


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
    n_samples: int | None = None,
) -> Captions:
    """Caption each image (see `Limber.caption`), and score the caption with the image, without, and with noise for it.

    The score is the mean log-probability per token of the caption, in nats. A caption that is as probable without the
    image says nothing about it, however well it reads. The converse misleads: a high score says that the model is sure,
    not that it is right.

    Args:
        seed: of sampling, and of the noise.
        progress: wraps the iteration over batches.
        n_samples: draw so many captions of each image, and as many without an image, each with its score. The first is
            the one that is drawn without it.

    Raises:
        InputError: a setting out of its range, an image that cannot be opened (before any is captioned), or numbers
            that are not finite.
    """
    check_at_least_one(batch_size=batch_size)
    check_samples(n_samples, temperature)
    images = list(each(images))
    for image in images:  # opened again in batches: all at once they may not fit into memory
        load_image(image)
    names = [describe(image) for image in images]
    text = Text(prompt)
    sampling = _Sampling(max_new_tokens, temperature, top_k, top_p, seed)
    no_image = [ids[0] for ids in sampling.drawn(model, [[text]], n_samples or 1)]

    found, hashes = [], []
    for start in progress(range(0, len(images), batch_size)):
        (batch,) = batches(model, images[start : start + batch_size], batch_size)
        hashes += batch.hashes
        drawn = sampling.drawn(model, [[shown, text] for shown in batch.image_prompts], n_samples or 1)
        for i, (shown, samples) in enumerate(zip(batch.image_prompts, zip(*drawn, strict=True), strict=True)):
            (instead,) = noise(shown.vectors, 1, stream(seed, f"noise {shown.sha256}"))
            scored = [_scored(model, shown, instead, text, ids) for ids in samples]
            several = () if n_samples is None else tuple(scored)
            seen = model.encoder.visible(batch.pixels[i])
            found.append(Caption(shown.source, **asdict(scored[0]), seen=seen, samples=several))
    manifest = replace(model.manifest(seed=seed), images=dict(zip(distinct(names), hashes, strict=True)))
    blind = tuple(model.vocabulary.text(ids).strip() for ids in no_image)
    return Captions(
        prompt=prompt,
        images=tuple(found),
        caption_no_image=blind[0],
        manifest=manifest,
        samples_no_image=() if n_samples is None else blind,
        sampling=sampling.described if temperature else None,
    )


@dataclass(frozen=True)
class _Sampling:
    """How captions are drawn, in the order in which `Limber.generate` takes it."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int

    def drawn(self, model: Limber, prompts: Sequence[Sequence[PromptPart]], n_samples: int) -> list[list[list[int]]]:
        """Of each sample the continuation of each prompt."""
        embedded = model.embed(prompts)
        settings = (self.max_new_tokens, self.temperature, self.top_k, self.top_p, self.seed)
        return [model.generate(embedded, *settings, sample=sample) for sample in range(n_samples)]

    @property
    def described(self) -> dict[str, float | int | None]:
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}


def _scored(
    model: Limber, image: ImagePrompt, instead: torch.Tensor, prompt: Text, ids: Sequence[int]
) -> CaptionSample:
    return CaptionSample(
        caption=model.vocabulary.text(list(ids)).strip(),
        logprob=mean_logprob(model, [image, prompt], ids),
        logprob_no_image=mean_logprob(model, [prompt], ids),
        logprob_noise=mean_logprob(model, [instead, prompt], ids),
    )


@torch.no_grad()
def mean_logprob(model: Limber, prompt: Sequence[PromptPart], ids: Sequence[int]) -> float:
    """Mean log-probability per token of a continuation of a prompt, in nats, in float32 over the used vocabulary.

    Args:
        ids: the continuation, as tokens: bytes that are no character do not survive as text. NaN if empty.

    Raises:
        InputError: the logits are not finite.
    """
    if not ids:
        return float("nan")
    embedded = model.embed([*prompt, model.lm.W_E[list(ids)]])
    logits = model.run_with_hooks(embedded)
    rows = model.vocabulary.rows
    before = rows.columns(logits[0, -len(ids) - 1 : -1])
    targets = rows.places(torch.tensor(ids, device=before.device))[:, None]
    found = before.float().log_softmax(dim=-1).gather(-1, targets).mean().item()
    if math.isnan(found):
        raise not_finite(model.lm, embedded.residual, embedded.attention_mask, embedded.names)
    return found
