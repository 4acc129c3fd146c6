"""The logit lens: what the language model would say at each layer, at the positions of an image.

nostalgebraist 2020, "interpreting GPT: the logit lens" (LessWrong).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.errors import InputError
from limber_interp.images import describe, image_hash, load_image
from limber_interp.layout import Layout, Positions
from limber_interp.models.limber import ImageSource, Limber
from limber_interp.models.prompt import Prompt
from limber_interp.probes.controls import (
    DESCRIPTIONS,
    N_OTHERS,
    Substitutes,
    bundled_scenes,
    controls_of,
    generator,
    noise,
    others_of,
)
from limber_interp.probes.layers import capture, read_layers
from limber_interp.probes.lens import UnembeddingLens, check_k
from limber_interp.probes.targets import Watch, permutation_p
from limber_interp.records import ImageLens, LayerReading, LensControl, LensTarget, LogitLens

N_DRAWS = 20  # of noise and of random maps: as many as 5 % and 95 % quantiles need
ONCE = ("random_encoder", "mean_prompt")  # controls of which every draw would be the same


@torch.no_grad()
def logit_lens(
    model: Limber,
    images_or_prompt: ImageSource | Iterable[ImageSource] | Prompt,
    k: int = 5,
    positions: Positions = "image",
    layers: Sequence[int] | None = None,
    targets: Sequence[str] = (),
    controls: str | bool = "full",
    seed: int = 0,
    *,
    prompt: str = "A picture of",
    target_first_token: bool = False,
    n_draws: int = N_DRAWS,
    others: Sequence[ImageSource] | None = None,
    batch_size: int = 8,
    keep_seen: int = 100,
    progress: Callable[[Iterable[ImageSource]], Iterable[ImageSource]] = iter,
) -> LogitLens:
    """At each layer and position: `ln_final` of that residual, unembedded with its bias, softmax over the used tokens.

    Layer 0 is the input of the first block, layer l the output of the l-th; at the last layer these are the model's own
    predictions. All of it in float32 (the residuals in the model's dtype), a block of positions at a time: of the
    distributions only what the record holds stays in memory. Hooks that are set on `model.lm` take effect, before the
    residual is read: the lens of an intervened model is the lens of the intervened model, its controls' too.

    It misleads: only the last layer was trained to be read so. Early layers may hold a word in directions that this end
    of the model does not read (Belrose et al. 2023, arXiv 2303.08112), and a position predicts what comes next: a word
    at a patch is what the model would say after it, not necessarily what it takes the patch for. A frequent token is
    probable at many layers, whatever the image: a token counts only beside the controls.

    Args:
        images_or_prompt: images, each of which becomes the prompt [image, `prompt`]; or whole prompts, from
            `model.embed`. Of these the parts are not known, so that they have no other control than noise.
        positions: see `Layout.select`; all image positions by default.
        layers: to keep, 0 to n_layers, negative ones counted from the last; None: all.
        targets: words to follow, each a single token with or without a leading space; of each its rank, logit and
            log-probability everywhere, and per layer p-values of its highest log-probability over the positions,
            against words (`targets.matched_words`) and against the other images. An image that shows the target too
            counts as another one, which only makes that p-value larger.
        target_first_token: follow the first token of a target that has several. Other words may begin with it too.
        controls: `none`, `fast` (noise, random map) or `full` (random encoder, mean prompt and other images' too), each
            in the image's place in the same prompt; see `probes.controls`.
        seed: of everything that the controls draw.
        n_draws: prompts per image of noise and of random maps, each a forward pass.
        others: images whose prompts serve as control where fewer than 20 images are given; None: the bundled scenes.
        batch_size: prompts at a time.
        progress: wraps the iteration over images.

    Raises:
        InputError: an argument out of its range, a target that is no token, an image that cannot be opened, a language
            model with folded LayerNorm, a soft prompt that is not finite, no other image for `full`.
    """
    lens = UnembeddingLens(model.lm, model.vocabulary.n_used)
    check_k(k, lens)
    if n_draws < 1:
        raise InputError(f"n_draws = {n_draws}: draw at least 1")
    kept = _layers(layers, model.lm.cfg.n_layers)
    watch = Watch.of(model.vocabulary, targets, target_first_token)
    probe = _Probe(model, lens, k, positions, kept, watch, Substitutes(model, seed), n_draws, batch_size)
    names = controls_of(controls)
    notes: tuple[str, ...] = ()

    if isinstance(images_or_prompt, Prompt):
        if len(names) > 1:
            notes = ("controls of whole prompts: noise in the images' places alone",)
        found = list(probe.over_prompts(images_or_prompt, names[:1]))
    else:
        given = [images_or_prompt] if isinstance(images_or_prompt, ImageSource) else images_or_prompt
        found = list(probe.over(progress(given), prompt, names, keep_seen))
        if not found:
            raise InputError("no image given")
        if "other_images" in names:
            spare = []
            if len(found) <= N_OTHERS:
                spare = list(probe.over(bundled_scenes() if others is None else others, prompt, (), 0))
            mean_prompt = probe.of_mean_prompt(prompt, len(found) + len(spare))
            found = list(_beside_others(found, spare, mean_prompt, probe))

    times = Counter(item.result.image for item in found)
    pictures = {
        item.result.image if times[item.result.image] == 1 else f"{item.result.image} [{i}]": item.sha256
        for i, item in enumerate(found)
        if item.sha256
    }
    record = LogitLens(
        k=k,
        layers=kept,
        prompt=None if isinstance(images_or_prompt, Prompt) else prompt,
        images=tuple(item.result for item in found),
        tokens={},
        manifest=replace(model.manifest(seed=seed), images=pictures).noting(notes),
    )
    ids = sorted({int(id) for reading in record.readings() for id in np.unique(reading.token_ids)})
    return replace(record, tokens=dict(zip(map(str, ids), model.vocabulary.strings(ids), strict=True)))


def _layers(layers: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(n_layers + 1))
    for layer in layers:
        if not -n_layers - 1 <= layer <= n_layers:
            raise InputError(f"layer {layer}: the language model has 0 (the input) to {n_layers}")
    if not layers:
        raise InputError("layers: none given; choose some, or leave them out for all")
    return tuple(sorted({layer % (n_layers + 1) for layer in layers}))


class _Read(NamedTuple):
    """One prompt at all kept layers; of each watched token the highest log-probability over the positions."""

    reading: LayerReading
    ranks: Int[np.ndarray, "layers pos targets"]
    logits: Float[np.ndarray, "layers pos targets"]
    logprobs: Float[np.ndarray, "layers pos targets"]
    best: Float[np.ndarray, "layers watched"]


@dataclass(frozen=True)
class _Found:
    """One image's result, what was read of it, and which picture it is."""

    result: ImageLens
    read: _Read
    sha256: str


@dataclass
class _Probe:
    """The settings of one run, and what it adds up."""

    model: Limber
    lens: UnembeddingLens
    k: int
    positions: Positions
    layers: tuple[int, ...]
    watch: Watch
    substitutes: Substitutes
    n_draws: int
    batch_size: int
    total: Tensor | float = 0.0  # of all soft prompts that were read

    def over(
        self, sources: Iterable[ImageSource], text: str, controls: tuple[str, ...], keep_seen: int
    ) -> Iterator[_Found]:
        """Each image's result, without the comparison to the others'."""
        model, sources = self.model, iter(sources)
        index = 0
        while batch := list(islice(sources, self.batch_size)):
            opened = [load_image(source) for source in batch]
            pixels = model.preprocess(opened)
            encodings = model.encode(pixels)
            soft_prompts = model.projection(encodings).float()
            for source, soft_prompt in zip(batch, soft_prompts, strict=True):
                if not soft_prompt.isfinite().all():
                    raise InputError(f"{describe(source)}: its soft prompt is not finite; check encoder and projection")
            self.total = self.total + soft_prompts.sum(0)
            prompt = self.prompts(soft_prompts, text)
            for i, read in enumerate(self.read(prompt)):
                found = []
                for name in controls:
                    if name in ("mean_prompt", "other_images"):  # known once all images are
                        continue
                    stream = generator(self.substitutes.seed, name, index)
                    n_draws = 1 if name in ONCE else self.n_draws
                    drawn = self.substitutes.draw(name, n_draws, stream, pixels[i], encodings[i], soft_prompts[i])
                    reads = [r for part in drawn.split(self.batch_size) for r in self.read(self.prompts(part, text))]
                    found.append(self.control(name, reads))
                seen = model.encoder.visible(pixels[i]) if index < keep_seen else None
                result = self.result(describe(batch[i]), prompt, i, read)
                yield _Found(replace(result, controls=tuple(found), seen=seen), read, image_hash(opened[i]))
                index += 1

    def over_prompts(self, prompt: Prompt, controls: tuple[str, ...]) -> Iterator[_Found]:
        """Each prompt's result, beside the same with noise in place of its images."""
        for i, layout in enumerate(prompt.layouts):
            one = Prompt(prompt.residual[[i]], prompt.attention_mask[[i]], (layout,))
            (read,) = self.read(one)
            found = [self.noise_in(one, index=i)] if controls and layout.images else []
            name = " + ".join(segment.source for segment in layout.images) or "no image"
            yield _Found(replace(self.result(name, one, 0, read), controls=tuple(found)), read, "")

    def noise_in(self, prompt: Prompt, index: int) -> LensControl:
        (layout,) = prompt.layouts
        places = [position for segment in layout.images for position in segment.positions]
        stream = generator(self.substitutes.seed, "noise", index)
        reads = []
        for _ in range(self.n_draws):
            residual = prompt.residual.clone()
            residual[0, places] = noise(residual[0, places].float(), 1, stream)[0].to(residual)
            reads += self.read(replace(prompt, residual=residual))
        return self.control("noise", reads)

    def prompts(self, soft_prompts: Float[Tensor, "batch pos d_model"], text: str) -> Prompt:
        return self.model.embed([[rows, text] for rows in soft_prompts])

    def read(self, prompt: Prompt) -> list[_Read]:
        """Each prompt of the batch."""
        positions = [layout.select(self.positions) for layout in prompt.layouts]
        normalised = capture(self.model, self.lens, prompt, positions)
        device = normalised.device
        targets, watched = self.watch.target_ids.to(device), self.watch.ids.to(device)
        read = read_layers(self.lens, normalised, self.k, targets, watched)
        kept = list(self.layers)
        found = []
        for part in zip(*(part[kept].cpu().split([len(p) for p in positions], dim=1) for part in read), strict=True):
            ids, logprobs, entropy, kl, agrees, ranks, logits, watched_logprobs = (tensor.numpy() for tensor in part)
            found.append(
                _Read(
                    reading=LayerReading(ids.astype(np.int32), logprobs, entropy, kl, agrees),
                    ranks=ranks.astype(np.int32),
                    logits=logits,
                    logprobs=watched_logprobs[:, :, : logits.shape[-1]],
                    best=watched_logprobs.max(axis=1),
                )
            )
        return found

    def of_mean_prompt(self, text: str, n: int) -> LensControl:
        """The mean of the n soft prompts that were read."""
        assert isinstance(self.total, Tensor)
        return self.control("mean_prompt", self.read(self.prompts(self.total[None] / n, text)))

    def control(self, name: str, reads: Sequence[_Read], sources: tuple[str, ...] = ()) -> LensControl:
        n_targets = len(self.watch.words)
        return LensControl(
            name=name,
            description=DESCRIPTIONS[name],
            seed=self.substitutes.seed,
            reading=reads[0].reading,
            top_logprobs=np.stack([read.reading.logprobs[:, :, 0] for read in reads]),
            best_ranks=np.stack([read.ranks.min(axis=1) for read in reads]),
            best_logprobs=np.stack([read.best[:, :n_targets] for read in reads]),
            sources=sources,
        )

    def result(self, name: str, prompt: Prompt, row: int, read: _Read) -> ImageLens:
        layout = prompt.layouts[row]
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

    def _target(self, i: int, read: _Read) -> LensTarget:
        others = read.best[:, self.watch.populations[i]]
        return LensTarget(
            word=self.watch.words[i],
            token=self.watch.tokens[i],
            token_id=int(self.watch.ids[i]),
            ranks=read.ranks[:, :, i],
            logits=read.logits[:, :, i],
            logprobs=read.logprobs[:, :, i],
            p_words=_p_values(read.best[:, i], others),
            n_words=others.shape[1],
        )


def _p_values(
    best: Float[np.ndarray, " layers"], others: Float[np.ndarray, "layers others"]
) -> Float[np.ndarray, " layers"] | None:
    """Of each layer, against others that are better where they are higher."""
    if not others.shape[1]:
        return None
    return np.array([permutation_p(-value, -row) for value, row in zip(best.tolist(), others, strict=True)])


def _beside_others(
    found: list[_Found], spare: list[_Found], mean_prompt: LensControl, probe: _Probe
) -> Iterator[_Found]:
    """Each result with the mean prompt's and that of other images' prompts, the spare ones' too."""
    pool = [*found, *spare]
    pictures = [item.sha256 for item in pool]
    for i, item in enumerate(found):
        others, places = others_of(pictures, i, probe.substitutes.seed)
        reads, sources = [pool[j].read for j in places], tuple(pool[j].result.image for j in places)
        controls = (*item.result.controls, mean_prompt, probe.control("other_images", reads, sources))
        targets = tuple(
            replace(
                target,
                p_images=_p_values(item.read.best[:, t], np.stack([pool[j].read.best[:, t] for j in others], axis=1)),
                n_images=len(others),
            )
            for t, target in enumerate(item.result.targets)
        )
        yield replace(item, result=replace(item.result, controls=controls, targets=targets))
