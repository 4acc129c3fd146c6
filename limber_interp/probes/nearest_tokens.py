"""The vocabulary tokens nearest to a soft prompt: what the language model is handed, before it does anything."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.errors import InputError, check_at_least_one
from limber_interp.images import ImageSource, distinct, each
from limber_interp.models.limber import Limber
from limber_interp.probes.batches import batches
from limber_interp.probes.controls import DESCRIPTIONS, Substitutes, controls_of, generator
from limber_interp.probes.lens import EmbeddingLens, check_k, check_unprocessed, read
from limber_interp.probes.others import Spare, named_others, others_of, told
from limber_interp.probes.targets import Watch, permutation_p
from limber_interp.records import Control, ImageTokens, NearestTokens

N_SCORES = 100  # as many scores of a control as a 95 % quantile needs
ROWS_AT_ONCE = 512  # soft-prompt vectors of a control in memory


@torch.no_grad()
def nearest_tokens(
    model: Limber,
    images: ImageSource | Iterable[ImageSource],
    k: int = 5,
    metric: str = "cosine",
    matrix: str = "W_E",
    targets: str | Sequence[str] = (),
    controls: str | bool = "full",
    seed: int = 0,
    *,
    n_draws: int | None = None,
    others: ImageSource | Sequence[ImageSource] | None = None,
    batch_size: int = 8,
    keep_seen: int = 100,
    progress: Callable[[Iterable[ImageSource]], Iterable[ImageSource]] = iter,
) -> NearestTokens:
    """For each position of each image's soft prompt, the k nearest rows of W_E or W_U.

    Images are encoded in batches and read a block of positions at a time; of an image only its k best tokens per
    position, the controls' best scores and the pixels that the encoder sees (of the first `keep_seen`) stay in memory.

    It misleads: a soft prompt is far from every token, in norm and in direction, and something is always nearest. A
    token counts only beside the controls. That no noun is near does not mean that the model cannot find it: the
    translation can happen inside of the model (Schwettmann et al. 2023, arXiv 2308.01544). With W_U the scores are
    no logits: there is no LayerNorm and no bias.

    Args:
        metric: `cosine`, `dot`, `euclidean` or `centred_cosine`; see `EmbeddingLens`.
        targets: words to follow, each a single token with or without a leading space: rank at each position, and
            p-values of the best rank against words (`targets.matched_words`) and against the other images. An image
            that shows the target too counts as another one, which only makes that p-value larger.
        controls: `none`, `fast` (noise, random map) or `full` (a random encoder, the mean prompt and other images'
            prompts too); see `probes.controls`. Targets are compared to other images with `full` alone.
        seed: of everything that the controls draw.
        n_draws: soft prompts per image of noise and of random maps; None: as many as make 100 positions.
        others: images, or folders of them, whose prompts serve as control beside the other images given. None: where
            fewer than 20 images are given the bundled emoji scenes, which say little of any other kind of picture, so
            that a warning is logged and noted in the manifest. Scores are kept of up to 19 drawn at random from all of
            these; p-values are against all.
        progress: wraps the iteration over images.

    Raises:
        InputError: an argument out of its range, a target that is no token, an image that cannot be opened, a language
            model with folded LayerNorm, numbers that are not finite, no other image for `full`.
    """
    check_unprocessed(model.lm)
    if matrix not in ("W_E", "W_U"):
        raise InputError(f"matrix {matrix!r} is unknown; use W_E or W_U")
    if n_draws is not None and n_draws < 1:
        raise InputError(f"n_draws = {n_draws}: draw at least 1")
    check_at_least_one(batch_size=batch_size)
    names = controls_of(controls)
    named = named_others(others, controls)
    used = model.vocabulary.rows
    lens = EmbeddingLens(model.lm.W_E if matrix == "W_E" else model.lm.W_U.T, metric, used)
    check_k(k, lens)
    probe = _Probe(model, lens, k, Watch.of(model.vocabulary, targets), names, Substitutes(model, seed), n_draws)

    found = list(probe.over(progress(each(images)), batch_size, keep_seen))
    if not found:
        raise InputError("no image given")
    manifest = model.manifest(seed=seed)
    if "other_images" in names:
        beside = Spare.beside([item.sha256 for item in found], named)
        probe = replace(probe, controls=())
        spare = list(probe.over(beside.sources, batch_size, 0))
        mean_prompt = probe.of_mean_prompt(beside.counted(len(found)))
        manifest = beside.noted_in(manifest, [item.sha256 for item in found], [item.sha256 for item in spare])
        found = list(_beside_others(found, spare, beside, mean_prompt, k, seed))

    results = tuple(item.result for item in found)
    ids = sorted({int(id) for result in results for id in np.unique(result.token_ids)})
    lengths = torch.cat([block.float().norm(dim=-1) for block in used.pick(model.lm.W_E).split(4096)])
    pictures = distinct([result.image for result in results])
    return NearestTokens(
        metric=metric,
        matrix=matrix,
        k=k,
        images=results,
        tokens=dict(zip(map(str, ids), model.vocabulary.strings(ids), strict=True)),
        token_norms=_quantiles(lengths.cpu().numpy()),
        manifest=replace(manifest, images=dict(zip(pictures, (item.sha256 for item in found), strict=True))),
    )


@dataclass(frozen=True)
class _Found:
    """One image's result, and what the other images' results need of it: the best ranks of the targets."""

    result: ImageTokens
    sha256: str
    best_ranks: np.ndarray


@dataclass
class _Probe:
    """The settings of one run, and what it adds up."""

    model: Limber
    lens: EmbeddingLens
    k: int
    watch: Watch
    controls: tuple[str, ...]
    substitutes: Substitutes
    n_draws: int | None
    total: Tensor | float = 0.0  # of all soft prompts that were read

    def over(self, sources: Iterable[ImageSource], batch_size: int, keep_seen: int) -> Iterator[_Found]:
        """Each image's result, without the comparison to the others'."""
        model = self.model
        index = 0
        for batch in batches(model, sources, batch_size):
            soft_prompts = batch.soft_prompts
            self.total = self.total + soft_prompts.sum(0)
            reading = read(self.lens, soft_prompts.flatten(0, 1), self.k, self.watch.ids.to(model.device))
            ids, scores, ranks = (part.unflatten(0, soft_prompts.shape[:2]).cpu().numpy() for part in reading)
            for i, name in enumerate(batch.names):
                yield _Found(
                    ImageTokens(
                        image=name,
                        grid=model.encoder.grid if soft_prompts.shape[1] == model.encoder.n_positions else None,
                        token_ids=ids[i].astype(np.int32),
                        scores=scores[i],
                        norms=soft_prompts[i].norm(dim=-1).cpu().numpy(),
                        controls=self._controls(batch.pixels[i], batch.encodings[i], soft_prompts[i], index),
                        targets=self.watch.read(ranks[i]),
                        seen=model.encoder.visible(batch.pixels[i]) if index < keep_seen else None,
                    ),
                    batch.hashes[i],
                    ranks[i, :, : len(self.watch.words)].min(axis=0),
                )
                index += 1

    def of_mean_prompt(self, pool: dict[str, int]) -> Control:
        """The mean of all soft prompts that were read, of so many images from where."""
        assert isinstance(self.total, Tensor)
        reading = read(self.lens, self.total / sum(pool.values()), 1, self.watch.target_ids.to(self.model.device))
        scores = reading.scores.T.cpu().numpy()
        control = self._control("mean_prompt", scores, reading.ranks.amin(0, keepdim=True).cpu().numpy())
        return replace(control, description=told("mean_prompt", pool), pool=pool)

    def _control(
        self, name: str, scores: Float[np.ndarray, "draws pos"], best_ranks: Int[np.ndarray, "draws targets"]
    ) -> Control:
        hits = (best_ranks <= self.k).mean(axis=0).tolist()
        named = dict(zip(self.watch.words, hits, strict=True))
        return Control(name, DESCRIPTIONS[name], self.substitutes.seed, scores, named)

    def _controls(
        self,
        pixels: Float[Tensor, "3 height width"],
        encoding: Float[Tensor, "image_pos d_encoder"],
        soft_prompt: Float[Tensor, "pos d_model"],
        index: int,
    ) -> tuple[Control, ...]:
        found = []
        for name in self.controls:
            if name in ("mean_prompt", "other_images"):  # known once all images are
                continue
            n_draws = 1 if name == "random_encoder" else self.n_draws or math.ceil(N_SCORES / len(soft_prompt))
            stream = generator(self.substitutes.seed, name, index)
            scores, best_ranks = [], []
            at_once = max(1, ROWS_AT_ONCE // len(soft_prompt))
            for start in range(0, n_draws, at_once):
                n = min(at_once, n_draws - start)
                drawn = self.substitutes.draw(name, n, stream, pixels, encoding, soft_prompt)
                reading = read(self.lens, drawn.flatten(0, 1), 1, self.watch.target_ids.to(drawn.device))
                scores.append(reading.scores.view(n, -1).cpu().numpy())
                best_ranks.append(reading.ranks.unflatten(0, (n, -1)).amin(1).cpu().numpy())
            found.append(self._control(name, np.concatenate(scores), np.concatenate(best_ranks)))
        return tuple(found)


def _beside_others(
    found: list[_Found], spare: list[_Found], beside: Spare, mean_prompt: Control, k: int, seed: int
) -> Iterator[_Found]:
    """Each result with the control `other_images`: what was found at all other images and at the spare ones."""
    pool = [*found, *spare]
    pictures = [item.sha256 for item in pool]
    best_ranks = np.stack([item.best_ranks for item in pool])
    for i, item in enumerate(found):
        others, places = others_of(pictures, i, seed)
        drawn = [pool[j].result for j in places]
        counts = beside.counted_among(others, len(found))
        targets = item.result.targets
        hits = (best_ranks[others] <= k).mean(axis=0).tolist()
        control = Control(
            name="other_images",
            description=told("other_images", counts),
            seed=seed,
            scores=np.stack([result.scores[:, 0] for result in drawn]),
            hits=dict(zip((target.word for target in targets), hits, strict=True)),
            sources=tuple(result.image for result in drawn),
            pool=counts,
        )
        compared = tuple(
            replace(t, p_images=permutation_p(float(t.best_rank), best_ranks[others, column]), n_images=len(others))
            for column, t in enumerate(targets)
        )
        controls = (*item.result.controls, mean_prompt, control)
        yield replace(item, result=replace(item.result, controls=controls, targets=compared))


def _quantiles(values: np.ndarray) -> dict[str, float]:
    named = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
    return {name: float(np.quantile(values, q)) for name, q in named.items()}
