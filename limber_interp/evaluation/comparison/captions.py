"""How well captions agree with the references, as numbers per image."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from limber_interp.evaluation.comparison.scoring import Measured, Sample
from limber_interp.evaluation.metrics.text import caption_metrics
from limber_interp.records import Metric

OTHER = "the same captions against another image's references"
METRICS = (
    Metric("cider_d", "CIDEr-D", "caption", "points of 10", 1, "n-grams shared with the references", OTHER, True),
    Metric("bleu_4", "BLEU-4", "caption", "share", 1, "n-gram precision of single captions, mean", OTHER),
    Metric("rouge_l", "ROUGE-L", "caption", "share", 1, "longest common subsequence, F-score", OTHER),
)


def without_prompt(references: Sequence[Sequence[str]], prompt: str) -> list[list[str]]:
    """The references as a caption continues the prompt: without it, where all of them begin with it."""
    texts = [[text.strip() for text in of_image] for of_image in references]
    if prompt.strip() and all(text.startswith(prompt.strip()) for of_image in texts for text in of_image):
        return [[text.removeprefix(prompt.strip()).strip() for text in of_image] for of_image in texts]
    return texts


def measure_captions(
    told: Sequence[Sequence[str]], references: Sequence[Sequence[str]], partners: Int[np.ndarray, " images"]
) -> tuple[list[Measured], str]:
    """CIDEr-D, BLEU-4 and ROUGE-L of each entry's captions.

    Args:
        told: by entry, a caption per image.
        partners: for each image another one, whose references are the chance level.

    Returns:
        The metrics, and a line on how the captions were tokenised.
    """
    others = [references[partner] for partner in partners]
    found = [(caption_metrics(captions, references), caption_metrics(captions, others)) for captions in told]
    tokenizer = found[0][0].tokenizer
    measured = [
        Measured(
            metric,
            Sample(np.stack([own.values[metric.name] for own, _ in found])),
            np.array([chance.values[metric.name].mean() for _, chance in found]),
        )
        for metric in METRICS
    ]
    return measured, f"captions were split into words by the {tokenizer} tokenizer"
