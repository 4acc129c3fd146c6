"""Categories against properties: which nouns, modifiers and relations captions tell rightly."""

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

import numpy as np
from jaxtyping import Float

from limber_interp.evaluation.attributes import AnimalAttributes, overlap_in_error
from limber_interp.evaluation.comparison.captions import OTHER
from limber_interp.evaluation.comparison.scoring import Measured, Sample
from limber_interp.evaluation.lexical import Counts, Side, by_category, count, per_image, similarity
from limber_interp.evaluation.lexicon import Lexicon
from limber_interp.evaluation.taxonomy import Taxonomy
from limber_interp.records import Metric

MOST_FREQUENT = 50  # words of each kind, as in the paper
TASK_OF = {"nouns": "categories", "modifiers": "properties", "relations": "properties"}
OF_IMAGE = Callable[[Counts], Float[np.ndarray, " image"]]


def measure_words(
    told: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    lexicon: Lexicon,
    taxonomy: Taxonomy,
    tasks: Sequence[str],
    seed: int,
) -> list[Measured]:
    """Recall and precision of words by kind, and how near the told nouns are to the true ones (Wu-Palmer).

    Args:
        told: by entry, a caption per image.
        tasks: `categories` (nouns), `properties` (modifiers and relations), or both.
        seed: of the other images whose references are the chance level.
    """
    counted = [count(lexicon, captions, references) for captions in told]
    measured = []
    for kind, task in TASK_OF.items():
        if task not in tasks:
            continue
        counts = [of_entry[kind].most_frequent(MOST_FREQUENT) for of_entry in counted]
        noun = kind.removesuffix("s")
        for name, described, headline in (
            ("recall", f"share of the true {kind} that are told", True),
            ("precision", f"share of the told {kind} that are true", False),
        ):
            described += f"; over the {MOST_FREQUENT} most frequent"
            metric = Metric(f"{noun}_{name}", f"{noun} {name}", task, "share", 1, described, OTHER, headline)
            measured.append(_measured(metric, counts, seed, attrgetter(name)))
    if "categories" in tasks:
        measured += _similarities([of_entry["nouns"] for of_entry in counted], taxonomy, seed)
    return measured


def true_nouns(
    told: Sequence[Sequence[str]], references: Sequence[Sequence[str]], lexicon: Lexicon
) -> Iterator[tuple[str, ...]]:
    """Of each image the words for its true nouns, as they are written in captions or references: `dog`, `dogs`.

    Args:
        told: by entry, a caption per image.
    """
    for i, captions in enumerate(references):
        true = {entry for caption in captions for entry in lexicon.find(caption) if entry.kind == "nouns"}
        said = [*captions, *(of_entry[i] for of_entry in told)]
        yield tuple(sorted({word for text in said for word, entry in lexicon.phrases(text) if entry in true}))


def _similarities(counts: Sequence[Counts], taxonomy: Taxonomy, seed: int) -> list[Measured]:
    wrong = "of nouns told in error to the nearest true one"
    every = "of true nouns to the nearest told one"
    metrics: tuple[tuple[Metric, Side], ...] = (
        (Metric("wu_palmer", "Wu-Palmer", "categories", "similarity", 1, every, OTHER, True), "true"),
        (Metric("wu_palmer_wrong", "Wu-Palmer of errors", "categories", "similarity", 1, wrong, OTHER), "wrong"),
    )
    found = []
    for metric, side in metrics:
        values = [similarity(c, taxonomy, side) for c in counts]
        chance = [per_image(similarity(c.shuffled(seed), taxonomy, side)) for c in counts]
        groups = [by_category(v, c) for v, c in zip(values, counts, strict=True)]
        found.append(
            Measured(
                metric,
                Sample(np.stack([per_image(v) for v in values])),
                np.array([_mean(c) for c in chance]),
                {("category", name): Sample(np.stack([g[name] for g in groups])) for name in sorted(groups[0])},
            )
        )
    return found


def _measured(metric: Metric, counts: Sequence[Counts], seed: int, of_image: OF_IMAGE) -> Measured:
    categories = counts[0].groups if len(counts[0].groups) > 1 else {}
    return Measured(
        metric,
        Sample(np.stack([of_image(c) for c in counts])),
        np.array([_mean(of_image(c.shuffled(seed))) for c in counts]),
        {
            ("category", name): Sample(np.stack([of_image(c.by_category()[name]) for c in counts]))
            for name in sorted(categories)
        },
    )


def measure_attributes(
    told: Sequence[Sequence[str]], references: Sequence[Sequence[str]], attributes: AnimalAttributes
) -> Measured:
    """What animals that are named in error have in common with the true ones."""
    lexicon = attributes.lexicon()
    found = [overlap_in_error(attributes, count(lexicon, captions, references)["nouns"]) for captions in told]
    metric = Metric(
        "attribute_overlap",
        "attributes of animals in error",
        "properties",
        "share",
        1,
        "attributes shared by an animal named in error and the true one, of those that either has",
        "a wrong animal drawn at random",
    )
    return Measured(
        metric, Sample(np.stack([overlap for overlap, _ in found])), np.array([_mean(chance) for _, chance in found])
    )


def _mean(values: Float[np.ndarray, " image"]) -> float:
    """Of those that there are."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
