"""The logit lens: what the language model would say at each layer, at the positions of an image.

nostalgebraist 2020, "interpreting GPT: the logit lens" (LessWrong).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limber_interp.arguments import Numbers, integers
from limber_interp.errors import InputError, check_at_least_one
from limber_interp.images import ImageSource, distinct, each
from limber_interp.layout import Positions
from limber_interp.models.limber import Limber
from limber_interp.models.prompt import ImagePrompt, Prompt, Text
from limber_interp.probes.batches import Batch, batches
from limber_interp.probes.controls import Substitutes, controls_of, generator, noise
from limber_interp.probes.lens import UnembeddingLens, check_k
from limber_interp.probes.others import Spare, named_others, others_of, told
from limber_interp.probes.prompt_lens import PromptLens, Read, p_values
from limber_interp.probes.targets import Watch
from limber_interp.records import ImageLens, LensControl, LogitLens

N_DRAWS = 20  # of noise and of random maps: as many as 5 % and 95 % quantiles need


@torch.no_grad()
def logit_lens(
    model: Limber,
    images_or_prompt: ImageSource | Iterable[ImageSource] | Prompt,
    k: int = 5,
    positions: Positions = "image",
    layers: int | Sequence[int] | Numbers | None = None,
    targets: str | Sequence[str] = (),
    controls: str | bool = "full",
    seed: int = 0,
    *,
    prompt: str = "A picture of",
    target_first_token: bool = False,
    n_draws: int = N_DRAWS,
    others: ImageSource | Sequence[ImageSource] | None = None,
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
        others: images, or folders of them, whose prompts serve as control beside the other images given. None: where
            fewer than 20 images are given the bundled emoji scenes, which say little of any other kind of picture, so
            that a warning is logged and noted in the manifest.
        batch_size: prompts at a time.
        progress: wraps the iteration over images.

    Raises:
        InputError: an argument out of its range, a target that is no token, an image that cannot be opened, a language
            model with folded LayerNorm, numbers that are not finite (where they became so is said), no other image for
            `full`.
    """
    lens = UnembeddingLens(model.lm, model.vocabulary.rows)
    check_k(k, lens)
    if n_draws < 1:
        raise InputError(f"n_draws = {n_draws}: draw at least 1")
    check_at_least_one(batch_size=batch_size)
    kept = chosen_layers(layers, model.lm.cfg.n_layers)
    watch = Watch.of(model.vocabulary, targets, target_first_token)
    prompt_lens = PromptLens(model, lens, k, positions, kept, watch)
    probe = _Probe(prompt_lens, Substitutes(model, seed), n_draws, batch_size)
    names = controls_of(controls)
    named = named_others(others, controls, isinstance(images_or_prompt, Prompt))
    manifest = model.manifest(seed=seed)
    notes: tuple[str, ...] = ()

    if isinstance(images_or_prompt, Prompt):
        if len(names) > 1:
            notes = ("controls of whole prompts: noise in the images' places alone",)
        found = list(probe.over_prompts(images_or_prompt, names[:1]))
    else:
        found = list(probe.over(progress(each(images_or_prompt)), prompt, names, keep_seen))
        if not found:
            raise InputError("no image given")
        if "other_images" in names:
            beside = Spare.beside([item.sha256 for item in found], named)
            spare = list(probe.over(beside.sources, prompt, (), 0))
            mean_prompt = probe.of_mean_prompt(prompt, beside.counted(len(found)))
            manifest = beside.noted_in(manifest, [item.sha256 for item in found], [item.sha256 for item in spare])
            found = list(_beside_others(found, spare, beside, mean_prompt, probe))

    names_of_images = distinct([item.result.image for item in found])
    pictures = {name: item.sha256 for name, item in zip(names_of_images, found, strict=True) if item.sha256}
    record = LogitLens(
        k=k,
        layers=kept,
        prompt=None if isinstance(images_or_prompt, Prompt) else prompt,
        images=tuple(item.result for item in found),
        tokens={},
        manifest=replace(manifest, images=pictures).noting(notes),
    )
    ids = sorted({int(id) for reading in record.readings() for id in np.unique(reading.token_ids)})
    return replace(record, tokens=dict(zip(map(str, ids), model.vocabulary.strings(ids), strict=True)))


def chosen_layers(layers: int | Sequence[int] | Numbers | None, n_layers: int) -> tuple[int, ...]:
    """Layers as counted from 0, each once and in their order; None: all.

    Raises:
        InputError: the language model has no such layer, or none is given.
    """
    if layers is None:
        return tuple(range(n_layers + 1))
    layers = integers(layers, "layers")
    for layer in layers:
        if not -n_layers - 1 <= layer <= n_layers:
            raise InputError(f"layer {layer}: the language model has 0 (the input) to {n_layers}")
    if not layers:
        raise InputError("layers: none given; choose some, or leave them out for all")
    return tuple(sorted({layer % (n_layers + 1) for layer in layers}))


@dataclass(frozen=True)
class _Found:
    """One image's result, what was read of it, and which picture it is."""

    result: ImageLens
    read: Read
    sha256: str


@dataclass
class _Probe:
    """The settings of one run, and what it adds up."""

    lens: PromptLens
    substitutes: Substitutes
    n_draws: int
    batch_size: int
    total: Tensor | float = 0.0  # of all soft prompts that were read

    def over(
        self, sources: Iterable[ImageSource], text: str, controls: tuple[str, ...], keep_seen: int
    ) -> Iterator[_Found]:
        """Each image's result, without the comparison to the others'."""
        encoder = self.lens.model.encoder
        index = 0
        for batch in batches(self.lens.model, sources, self.batch_size):
            soft_prompts = batch.soft_prompts
            self.total = self.total + soft_prompts.sum(0)
            prompt = self.prompts(batch.image_prompts, text)
            for i, read in enumerate(self.lens.read(prompt)):
                seen = encoder.visible(batch.pixels[i]) if index < keep_seen else None
                result = self.lens.result(batch.names[i], prompt.layouts[i], read)
                found = self._controls(controls, batch, i, index, text)
                yield _Found(replace(result, controls=found, seen=seen), read, batch.hashes[i])
                index += 1

    def _controls(self, names: tuple[str, ...], batch: Batch, i: int, index: int, text: str) -> tuple[LensControl, ...]:
        """Of the i-th image of the batch, those that need that image alone."""
        seed, of_image = self.substitutes.seed, (batch.pixels[i], batch.encodings[i], batch.soft_prompts[i])
        found = []
        for name in names:
            if name in ("mean_prompt", "other_images"):  # known once all images are
                continue
            n_draws = 1 if name == "random_encoder" else self.n_draws
            drawn = self.substitutes.draw(name, n_draws, generator(seed, name, index), *of_image)
            reads = [read for part in drawn.split(self.batch_size) for read in self.lens.read(self.prompts(part, text))]
            found.append(self.lens.control(name, seed, reads))
        return tuple(found)

    def over_prompts(self, prompt: Prompt, controls: tuple[str, ...]) -> Iterator[_Found]:
        """Each prompt's result, beside the same with noise in place of its images."""
        for i, layout in enumerate(prompt.layouts):
            one = Prompt(prompt.residual[[i]], prompt.attention_mask[[i]], (layout,))
            (read,) = self.lens.read(one)
            found = [self.noise_in(one, index=i)] if controls and layout.images else []
            name = " + ".join(segment.source for segment in layout.images) or "no image"
            yield _Found(replace(self.lens.result(name, layout, read), controls=tuple(found)), read, "")

    def noise_in(self, prompt: Prompt, index: int) -> LensControl:
        (layout,) = prompt.layouts
        places = [position for segment in layout.images for position in segment.positions]
        stream = generator(self.substitutes.seed, "noise", index)
        reads = []
        for _ in range(self.n_draws):
            residual = prompt.residual.clone()
            residual[0, places] = noise(residual[0, places].float(), 1, stream)[0].to(residual)
            reads += self.lens.read(replace(prompt, residual=residual))
        return self.lens.control("noise", self.substitutes.seed, reads)

    def prompts(self, images: Iterable[ImagePrompt] | Float[Tensor, "batch pos d_model"], text: str) -> Prompt:
        return self.lens.model.embed([[image, Text(text)] for image in images])

    def of_mean_prompt(self, text: str, pool: dict[str, int]) -> LensControl:
        """The mean of all soft prompts that were read, of so many images from where."""
        assert isinstance(self.total, Tensor)
        reads = self.lens.read(self.prompts(self.total[None] / sum(pool.values()), text))
        control = self.lens.control("mean_prompt", self.substitutes.seed, reads)
        return replace(control, description=told("mean_prompt", pool), pool=pool)


def _beside_others(
    found: list[_Found], spare: list[_Found], beside: Spare, mean_prompt: LensControl, probe: _Probe
) -> Iterator[_Found]:
    """Each result with the mean prompt's and that of other images' prompts, the spare ones' too."""
    pool = [*found, *spare]
    pictures = [item.sha256 for item in pool]
    for i, item in enumerate(found):
        others, places = others_of(pictures, i, probe.substitutes.seed)
        reads, sources = [pool[j].read for j in places], tuple(pool[j].result.image for j in places)
        control = probe.lens.control("other_images", probe.substitutes.seed, reads, sources)
        counts = beside.counted_among(others, len(found))
        control = replace(control, description=told("other_images", counts), pool=counts)
        controls = (*item.result.controls, mean_prompt, control)
        targets = tuple(
            replace(
                target,
                p_images=p_values(item.read.best[:, t], np.stack([pool[j].read.best[:, t] for j in others], axis=1)),
                n_images=len(others),
            )
            for t, target in enumerate(item.result.targets)
        )
        yield replace(item, result=replace(item.result, controls=controls, targets=targets))
