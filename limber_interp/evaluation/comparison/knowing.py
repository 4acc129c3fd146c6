"""What each encoder knows before the map, and what the map hands on: probes, geometry, and what is like what."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from limber_interp.datasets import Example
from limber_interp.encodings import Encodings
from limber_interp.errors import InputError
from limber_interp.evaluation.comparison.labels import labels_of, nouns_of
from limber_interp.evaluation.comparison.pictures import soft_prompts
from limber_interp.evaluation.comparison.scoring import Described, Measured, Sample
from limber_interp.evaluation.representation import (
    POOLING,
    Geometry,
    Probe,
    geometry,
    mean_by_word,
    pool,
    probe,
    similarity,
    token_embeddings,
)
from limber_interp.models.limber import Limber
from limber_interp.records import Estimate, Metric, Similarity

ENCODING, SOFT_PROMPT = PLACES = ("encoding", "soft prompt")
WORDS = "token embeddings"
NEIGHBOURS = 10
SHUFFLED = "a probe fitted to the labels of other images"
GEOMETRY: dict[str, tuple[str, str, Callable[[Geometry], Estimate]]] = {
    "norm": ("length", "mean length of the vectors", lambda g: g.norm),
    "anisotropy": ("cosine", "mean cosine between vectors of different images", lambda g: g.anisotropy),
    "anisotropy_centred": (
        "cosine",
        "the same with each position's mean over images removed",
        lambda g: g.anisotropy_centred,
    ),
    "effective_rank": (
        "directions",
        "exp of the entropy of the singular values' shares, means removed",
        lambda g: Estimate(g.effective_rank, float("nan"), float("nan"), g.norm.n),
    ),
}


@dataclass(frozen=True)
class Known:
    """Of one config, at each place.

    Attributes:
        features: one vector per image, the mean over positions.
        by_noun: nouns, the mean features of their images at the soft prompt, and their token embeddings.
        left_out: a line on each probe that the data is too small for.
    """

    features: Mapping[str, Float[np.ndarray, "images _"]]
    geometries: Mapping[str, Geometry]
    probes: Mapping[tuple[str, str], Probe]
    by_noun: tuple[Float[np.ndarray, "nouns d_model"], Float[np.ndarray, "nouns d_model"]] | None = None
    left_out: tuple[str, ...] = field(default=())


def know(
    model: Limber, encodings: Encodings, rows: Int[np.ndarray, " images"], examples: Sequence[Example], seed: int
) -> Known:
    """Probe the encodings and the soft prompts of the images at `rows`, whose examples say what is in them."""
    reads = {
        ENCODING: encodings.encoding,
        SOFT_PROMPT: lambda which: soft_prompts(model, encodings, which).cpu().numpy(),
    }
    features = {place: pool(read, rows) for place, read in reads.items()}
    probes, left_out = {}, []
    for what, labels in labels_of(examples).items():
        for place, read in reads.items():
            try:
                of_images = pool(read, rows, POOLING[what]) if what in POOLING else features[place]
                probes[what, place] = probe(of_images, labels, seed, what)
            except InputError as error:
                left_out.append(f"left out: {error}")
                break
    nouns, means = mean_by_word(features[SOFT_PROMPT], nouns_of(examples))
    by_noun = (means, token_embeddings(model, nouns)) if len(nouns) > 3 else None
    geometries = {place: geometry(read, rows, seed) for place, read in reads.items()}
    return Known(features, geometries, probes, by_noun, tuple(left_out))


def measure_probes(known: Mapping[str, Known], entries: Sequence[str]) -> Iterator[Measured]:
    """Accuracies of the probes; entries without a representation of images have none."""
    n_images = len(next(iter(known.values())).features[ENCODING])
    for what, place in dict.fromkeys(key for one in known.values() for key in one.probes):
        found = [known[entry].probes.get((what, place)) if entry in known else None for entry in entries]
        nothing = np.full(n_images, np.nan)
        correct = np.stack([nothing if one is None else one.correct for one in found])
        shuffled = np.array([np.nan if one is None else np.nanmean(one.shuffled) for one in found])
        metric = Metric(
            name=f"probe_{what}_{place.replace(' ', '_')}",
            label=f"{what} in {place}",
            task="probe",
            unit="share",
            direction=1,
            description=f"accuracy of a linear probe for {what} on the {place}, cross-validated",
            chance=SHUFFLED,
            headline=what == "category" and place == SOFT_PROMPT,
        )
        yield Measured(metric, Sample(correct), shuffled)


def describe_geometry(known: Mapping[str, Known]) -> Iterator[Described]:
    """How the vectors lie."""
    for place in PLACES:
        for name, (unit, description, estimate) in GEOMETRY.items():
            metric = Metric(
                name=f"{name}_{place.replace(' ', '_')}",
                label=f"{name.replace('_', ' ')} of {place}",
                task="probe",
                unit=unit,
                direction=0,
                description=description,
                bounds=(-1.0, 1.0) if unit == "cosine" else None,
            )
            yield Described(metric, {entry: estimate(one.geometries[place]) for entry, one in known.items()})


def similarities(known: Mapping[str, Known], seed: int) -> Iterator[Similarity]:
    """Of the configs with each other, at each place; by noun also with the token embeddings."""
    for place in PLACES:
        yield from _similarities({entry: one.features[place] for entry, one in known.items()}, place, seed)
    by_noun = {entry: one.by_noun for entry, one in known.items() if one.by_noun is not None}
    widths = {means.shape[1] for means, _ in by_noun.values()}
    if by_noun and len(widths) == 1:  # one language model
        means = {entry: of for entry, (of, _) in by_noun.items()}
        words = next(iter(by_noun.values()))[1]
        yield from _similarities({**means, WORDS: words}, f"{SOFT_PROMPT}, mean by noun", seed)


def _similarities(features: Mapping[str, np.ndarray], place: str, seed: int) -> Iterator[Similarity]:
    n = len(next(iter(features.values())))
    if n > 3:
        yield similarity(features, "linear CKA", place, seed)
        yield similarity(features, "nearest-neighbour overlap", place, seed, k=min(NEIGHBOURS, n - 1))
