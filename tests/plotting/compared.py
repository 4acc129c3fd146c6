"""A record of random numbers and words, for the figure and the page to show."""

import numpy as np

from limber_interp.records import (
    ComparedImage,
    ComparedQuestion,
    Comparison,
    Contrast,
    Difference,
    Entry,
    Estimate,
    Manifest,
    Metric,
    Score,
)

ENTRIES = {"clip": "trained", "nfrn": "trained", "nfrn_random": "random", "blind": "control"}
NOUNS = ("dog", "cat", "bus", "owl")
SHOTS = (0, 2)
OTHER, SWAPPED = "against another image's references", "against another question"


def comparison_of(
    entries: dict[str, str] = ENTRIES,
    n_metrics: int = 2,
    categories: tuple[str, ...] = ("animal", "vehicle"),
    n_images: int = 8,
    n_questions: int = 2,
    pixels: int = 24,
    pictures: int | None = None,
) -> Comparison:
    """Of so many metrics the first is CIDEr-D, of which each third image has none; the others are shares of what is
    told. Answers come on top. Of the first image all entries say the same.

    Args:
        categories: of all metrics but the first.
        n_questions: on each image.
        pictures: images of which pixels are kept; None: all.
    """
    random = np.random.default_rng(0)
    names = list(entries)
    metrics = [Metric("cider_d", "CIDEr-D", "caption", "points of 10", 1, "n-grams", OTHER, headline=True)]
    for i in range(1, n_metrics):
        metrics.append(Metric(f"recall_{i}", f"recall {i}", "categories", "share", 1, "told", OTHER, headline=True))
    per_image = {m.name: random.integers(0, 3, (len(names), n_images)) / 2 for m in metrics}
    per_image["cider_d"] *= 10 * random.random((len(names), n_images))
    per_image["cider_d"][:, 2::3] = np.nan
    scores = [Score(n, m, _estimate(row), 0.1) for m, of in per_image.items() for n, row in zip(names, of, strict=True)]
    for metric in metrics[1:]:
        for group in categories:
            scores += [Score(n, metric.name, _estimate(random.random(4)), by="category", group=group) for n in names]
    vqa = [
        Metric(f"vqa_{n}", f"VQA, {n} shots", "vqa", "share", 1, "accuracy", SWAPPED, headline=n == max(SHOTS))
        for n in (SHOTS if n_questions else ())
    ]
    scores += [Score(n, metric.name, _estimate(random.random(6)), 0.2) for metric in vqa for n in names]
    contrasts = [
        Contrast(metric.name, first, second, Difference(_estimate(random.normal(0, 1, 6)), 0.01), 0.03)
        for metric in (*metrics, *vqa)
        for i, first in enumerate(names)
        for second in names[i + 1 :]
    ]
    images = []
    for i in range(n_images):
        own = NOUNS[i % len(NOUNS)]
        told = {name: f"a big {random.choice(NOUNS[: 2 if i else 1])} on the grass." for name in names}
        seen = random.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)
        kept = pictures is None or i < pictures
        references = (f"a big {own} on the grass.", f"there is a {own}.")
        images.append(ComparedImage(f"0/{i:03}", f"folder/{i:03}.png", references, told, seen if kept else None))
    questions = []
    for image in images:
        for q in range(n_questions):
            answers = {n: {str(s): str(random.choice(NOUNS)) for s in SHOTS} for n in names}
            right = {n: {str(s): float(random.choice([0.0, 0.3, 1.0])) for s in SHOTS} for n in names}
            key = f"{image.key}#{q}"
            questions.append(ComparedQuestion(key, image.image, f"What {q}?", "what", ("it",), answers, right))
    manifest = Manifest({"name": "clip"}, {"lm": "0123456789abcdef" * 4}, "float32", "cpu", 7, {"resize": "<b>96</b>"})
    return Comparison(
        data="somewhere/scenes",
        prompt="A picture of",
        seed=7,
        tasks=("caption", "categories", "vqa"),
        entries=tuple(Entry(name, kind, f"what {name} is", manifest) for name, kind in entries.items()),  # type: ignore[arg-type]
        metrics=(*metrics, *vqa),
        scores=tuple(scores),
        contrasts=tuple(contrasts),
        images=tuple(images),
        per_image=per_image,
        questions=tuple(questions),
        shots=SHOTS if n_questions else (),
        notes=("a note",),
    )


def _estimate(values: np.ndarray) -> Estimate:
    """Nearly a bootstrap's."""
    there = values[~np.isnan(values)]
    spread = 2 * float(there.std()) / len(there) ** 0.5
    return Estimate(float(there.mean()), float(there.mean()) - spread, float(there.mean()) + spread, len(there))
