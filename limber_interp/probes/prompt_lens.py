"""The logit lens of whole prompts: what `logit_lens` does to each image's prompt and to each control's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from limber_interp.finite import not_finite
from limber_interp.layout import Layout, Positions
from limber_interp.models.limber import Limber
from limber_interp.models.prompt import Prompt
from limber_interp.probes.controls import DESCRIPTIONS
from limber_interp.probes.layers import capture, read_layers
from limber_interp.probes.lens import UnembeddingLens
from limber_interp.probes.targets import Watch, permutation_p
from limber_interp.records import ImageLens, LayerReading, LensControl, LensTarget


class Read(NamedTuple):
    """One prompt at all kept layers; of each watched token the highest log-probability over the positions."""

    reading: LayerReading
    ranks: Int[np.ndarray, "layers pos targets"]
    logits: Float[np.ndarray, "layers pos targets"]
    logprobs: Float[np.ndarray, "layers pos targets"]
    best: Float[np.ndarray, "layers watched"]


@dataclass(frozen=True)
class PromptLens:
    """What is read of every prompt of a run, and where."""

    model: Limber
    lens: UnembeddingLens
    k: int
    positions: Positions
    layers: tuple[int, ...]
    watch: Watch

    def read(self, prompt: Prompt) -> list[Read]:
        """Each prompt of the batch.

        Raises:
            InputError: something on the way is not finite; where it became so is said.
        """
        positions = [layout.select(self.positions) for layout in prompt.layouts]
        normalised = capture(self.model, self.lens, prompt, positions)
        device = normalised.device
        targets, watched = self.watch.target_ids.to(device), self.watch.ids.to(device)
        read = read_layers(self.lens, normalised, self.k, targets, watched)
        if not read.entropy.isfinite().all():  # the residuals were, and so these are its matrix or bias
            raise not_finite(self.model.lm, prompt.residual, prompt.attention_mask, prompt.names)
        kept = list(self.layers)
        found = []
        for part in zip(*(part[kept].cpu().split([len(p) for p in positions], dim=1) for part in read), strict=True):
            ids, logprobs, entropy, kl, agrees, ranks, logits, watched_logprobs = (tensor.numpy() for tensor in part)
            found.append(
                Read(
                    reading=LayerReading(ids.astype(np.int32), logprobs, entropy, kl, agrees),
                    ranks=ranks.astype(np.int32),
                    logits=logits,
                    logprobs=watched_logprobs[:, :, : logits.shape[-1]],
                    best=watched_logprobs.max(axis=1),
                )
            )
        return found

    def control(self, name: str, seed: int, reads: Sequence[Read], sources: tuple[str, ...] = ()) -> LensControl:
        """A control from the readings of its draws."""
        n_targets = len(self.watch.words)
        return LensControl(
            name=name,
            description=DESCRIPTIONS[name],
            seed=seed,
            reading=reads[0].reading,
            top_logprobs=np.stack([read.reading.logprobs[:, :, 0] for read in reads]),
            best_ranks=np.stack([read.ranks.min(axis=1) for read in reads]),
            best_logprobs=np.stack([read.best[:, :n_targets] for read in reads]),
            sources=sources,
        )

    def result(self, name: str, layout: Layout, read: Read) -> ImageLens:
        """An image's result, without its controls."""
        positions = layout.select(self.positions)
        one_image = len(layout.images) == 1  # of several the places would be ambiguous
        return ImageLens(
            image=name,
            grid=layout.images[0].grid if one_image else None,
            image_start=layout.images[0].start - layout.n_padding if layout.images else 0,
            positions=np.array(positions) - layout.n_padding,
            inputs=self._inputs(layout, positions),
            reading=read.reading,
            targets=tuple(self._target(i, read) for i in range(len(self.watch.words))),
        )

    def _inputs(self, layout: Layout, positions: Sequence[int]) -> tuple[str, ...]:
        vocabulary = self.model.vocabulary
        texts: dict[int, str] = {}
        for segment in layout.segments:
            if segment.kind == "text":
                texts |= dict(
                    zip(segment.positions, vocabulary.strings(vocabulary.encode(segment.source)), strict=True)
                )
        return tuple(texts.get(position, "") for position in positions)

    def _target(self, i: int, read: Read) -> LensTarget:
        others = read.best[:, self.watch.populations[i]]
        return LensTarget(
            word=self.watch.words[i],
            token=self.watch.tokens[i],
            token_id=int(self.watch.ids[i]),
            ranks=read.ranks[:, :, i],
            logits=read.logits[:, :, i],
            logprobs=read.logprobs[:, :, i],
            p_words=p_values(read.best[:, i], others),
            n_words=others.shape[1],
        )


def p_values(
    best: Float[np.ndarray, " layers"], others: Float[np.ndarray, "layers others"]
) -> Float[np.ndarray, " layers"] | None:
    """Of each layer, against others that are better where they are higher."""
    if not others.shape[1]:
        return None
    return np.array([permutation_p(-value, -row) for value, row in zip(best.tolist(), others, strict=True)])
