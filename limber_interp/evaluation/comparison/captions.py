"""How well captions agree with the references, as numbers per image."""

import contextlib
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from jaxtyping import Int

from limber_interp.datasets import Dataset, Rejected
from limber_interp.evaluation.comparison.scoring import Measured, Sample
from limber_interp.evaluation.lexicon import tokens
from limber_interp.evaluation.metrics.clip_score import WEIGHT, ClipScorer, clip_score, ref_clip_score
from limber_interp.evaluation.metrics.text import caption_metrics
from limber_interp.evaluation.metrics.tokenizing import tokenize
from limber_interp.images import ImageSource
from limber_interp.records import Metric

OTHER = "the same captions against another image's references"
OTHER_IMAGE = "the same captions with another image"
POINTS = (0.0, 10.0)
AGREEMENT = (
    Metric(
        "cider_d", "CIDEr-D", "caption", "points of 10", 1, "n-grams shared with the references", OTHER, True, POINTS
    ),
    Metric("bleu_4", "BLEU-4", "caption", "share", 1, "n-gram precision of single captions, mean", OTHER),
    Metric("rouge_l", "ROUGE-L", "caption", "share", 1, "longest common subsequence, F-score", OTHER),
)

CLIP_SCORE = Metric(
    "clip_score", "CLIPScore", "caption", "of 2.5", 1, "2.5 x cosine to the image", OTHER_IMAGE, True, (0.0, WEIGHT)
)
REF_CLIP_SCORE = Metric(
    "ref_clip_score",
    "RefCLIPScore",
    "caption",
    "of 1.43",
    1,
    "harmonic mean of CLIPScore and cosine to the nearest reference",
    f"{OTHER_IMAGE} and its references",
    bounds=(0.0, 2 * WEIGHT / (WEIGHT + 1)),
)


def without_prompt(references: Sequence[Sequence[str]], prompt: str) -> list[list[str]]:
    """The references as a caption continues the prompt: without it, where all of them begin with it."""
    texts = [[text.strip() for text in of_image] for of_image in references]
    if prompt.strip() and all(text.startswith(prompt.strip()) for of_image in texts for text in of_image):
        return [[text.removeprefix(prompt.strip()).strip() for text in of_image] for of_image in texts]
    return texts


def without_words(dataset: Dataset, prompt: str) -> dict[int, Rejected]:
    """The examples whose captions have no word beside the prompt, `…` or `!!!`: there is nothing to measure against.

    Asked before the work, by the tokenizer that measures it.
    """
    found: dict[int, tuple[str, list[str]]] = {}  # not the examples: in shards they hold their image
    for index in range(len(dataset)):
        with contextlib.suppress(Rejected):
            example = dataset[index]
            found[index] = example.key, list(example.captions)
    texts = [text.strip().removeprefix(prompt.strip()) for _, captions in found.values() for text in captions]
    # The tokenizer takes a run of marks for a word, and lacks letters that no caption is written in
    has_words = (bool(split and tokens(text)) for text, split in zip(texts, tokenize(texts)[0], strict=True))
    left_out = {}
    for index, (key, captions) in found.items():
        if not any(list(islice(has_words, len(captions)))):
            left_out[index] = Rejected(key, f"no word in its captions {captions}")
    return left_out


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
        for metric in AGREEMENT
    ]
    return measured, f"captions were split into words by the {tokenizer} tokenizer"


def measure_clip_scores(
    scorer: ClipScorer,
    told: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    images: Sequence[ImageSource],
    partners: Int[np.ndarray, " images"],
) -> list[Measured]:
    """CLIPScore and RefCLIPScore of each entry's captions; arguments as in `measure_captions`."""
    # One without a word is most like a caption that says nothing
    with_words = [[text for text in of_image if tokens(text)] or list(of_image) for of_image in references]
    seen, asked = scorer.images(images), scorer.references(with_words)
    others, asked_others = seen[torch.from_numpy(partners)], [asked[partner] for partner in partners]
    said = [scorer.texts(captions) for captions in told]
    plain = [(clip_score(seen, of), clip_score(others, of)) for of in said]
    ref = [(ref_clip_score(seen, of, asked), ref_clip_score(others, of, asked_others)) for of in said]
    return [
        Measured(
            metric,
            Sample(np.stack([own.double().numpy() for own, _ in found])),
            np.array([chance.mean().item() for _, chance in found]),
        )
        for metric, found in ((CLIP_SCORE, plain), (REF_CLIP_SCORE, ref))
    ]
