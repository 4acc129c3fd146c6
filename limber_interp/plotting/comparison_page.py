"""Encoders compared as one HTML page: each image with what every entry says of it, side by side."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from limber_interp.errors import InputError
from limber_interp.plotting.comparison import colours
from limber_interp.plotting.html import data_uri, lines, packed, write_page
from limber_interp.records import ComparedImage, Comparison, Estimate, Metric
from limber_interp.text import printable

SCRIPTS = ("data.js", "scores.js", "cards.js", "main.js")
THUMBNAIL = 96  # pixels of the longer side at most: of 500 photographs about 2 MB


def page(record: Comparison, path: str | Path) -> None:
    """Write a record as one page that needs nothing else: no network, no server, no folder beside it.

    Above stand the scores with their intervals. Below is each image with the entries' captions and answers beside the
    references, its true nouns marked where the record has them; to be searched by word, filtered by disagreement
    (entries differ, only one is right, all are wrong, one beats another) and sorted by how far two entries are apart.

    Whoever sorts by a difference sees the images at its ends, and not how large it is: that is the paired difference
    over all images, which stands above the list.

    Raises:
        InputError: the record holds no image, or the path cannot be written.
    """
    if not record.images:
        raise InputError("a comparison without images cannot be looked through")
    write_page(path, "comparison", SCRIPTS, _page(record))


def _page(record: Comparison) -> dict[str, Any]:
    """What the scripts read. There an entry, an image and a number of shots is its place in its list."""
    places = {entry.name: i for i, entry in enumerate(record.entries)}
    contrasts: dict[str, list[list[float | None]]] = {metric.name: [] for metric in record.metrics}
    for contrast in record.contrasts:
        pair = [places[contrast.first], places[contrast.second]]
        contrasts[contrast.metric].append(
            [*pair, *_numbers(contrast.difference.estimate), _number(contrast.p_corrected)]
        )
    images = {image.image: i for i, image in enumerate(record.images)}
    images |= {image.key: i for i, image in enumerate(record.images) if image.key not in images}
    for question in record.questions:  # they may be on images of their own
        images.setdefault(question.image, len(set(images.values())))
    own = [name for name, i in images.items() if i >= len(record.images)]
    return {
        "data": printable(Path(record.data).name),
        "prompt": printable(record.prompt),
        "seed": record.seed,
        "entries": [
            {"name": printable(e.name), "kind": e.kind, "description": printable(e.description), "colour": colour}
            for e, colour in zip(record.entries, colours(record), strict=True)
        ],
        "metrics": [_metric(record, metric) for metric in record.metrics],
        "contrasts": contrasts,
        "per_image": {name: packed(values.astype(np.float32)) for name, values in record.per_image.items()},
        "images": [
            *(_image(record, image) for image in record.images),
            *({"key": printable(Path(name).name), "seen": None, "references": [], "captions": []} for name in own),
        ],
        "shots": list(record.shots),
        "questions": [
            {
                "image": images[question.image],
                "question": printable(question.question),
                "kind": printable(question.kind),
                "references": [printable(reference) for reference in dict.fromkeys(question.references)],
            }
            for question in record.questions
        ],
        **_answers(record),
        "manifest": _manifest(record),
    }


def _metric(record: Comparison, metric: Metric) -> dict[str, Any]:
    scores = [record.score(entry.name, metric.name) for entry in record.entries]
    return {
        "name": metric.name,
        "label": printable(metric.label),
        "task": metric.task,
        "unit": printable(metric.unit),
        "direction": metric.direction,
        "description": printable(metric.description),
        "chance": printable(metric.chance),
        "headline": metric.headline,
        # value, low, high, n and chance level of each entry
        "scores": [s and [*_numbers(s.estimate), s.estimate.n, _number(s.chance)] for s in scores],
    }


def _image(record: Comparison, image: ComparedImage) -> dict[str, Any]:
    return {
        "key": printable(image.key),
        "seen": None if image.seen is None else data_uri(image.seen, "JPEG", most=THUMBNAIL),
        "references": [printable(reference) for reference in image.references],
        "captions": [printable(image.captions[e.name]) for e in record.entries] if image.captions else [],
        "nouns": [printable(noun) for noun in image.nouns],
    }


def _answers(record: Comparison) -> dict[str, Any]:
    """Of each question, entry and number of shots: the answer, as a place in `texts`, and its accuracy."""
    shots = [str(n) for n in record.shots]
    told = [q.answers.get(e.name, {}).get(n, "") for q in record.questions for e in record.entries for n in shots]
    places = {text: i for i, text in enumerate(dict.fromkeys(told))}
    return {
        "texts": [printable(text) for text in places],
        "answers": packed(np.array([places[text] for text in told], dtype=np.int64)),
        "accuracy": packed(_accuracy(record, shots)),
    }


def _accuracy(record: Comparison, shots: list[str]) -> Float[np.ndarray, "question entry shots"]:
    """NaN where an entry was not asked."""
    nothing = float("nan")
    found = [
        [[q.accuracy.get(e.name, {}).get(n, nothing) for n in shots] for e in record.entries] for q in record.questions
    ]
    return np.array(found, dtype=np.float32).reshape(len(record.questions), len(record.entries), len(shots))


def _manifest(record: Comparison) -> dict[str, Any]:
    """What is the same for all entries once, and each entry's own."""
    first = record.entries[0].manifest
    entries = {
        entry.name: {"shown": entry.description, **{name: value and value[:12] for name, value in hashes.items()}}
        for entry in record.entries
        for hashes in (entry.manifest.hashes,)
    }
    own = {f"{entry.name}: {note}": None for entry in record.entries for note in entry.manifest.notes}
    rejected = {f"left out: {line}": None for line in record.rejected}
    computed = {"dtype": first.dtype, "device": first.device, "seed": record.seed, "tasks": ", ".join(record.tasks)}
    return {
        "notes": [printable(note) for note in (*record.notes, *own, *rejected)],
        **{printable(name): lines(values) for name, values in entries.items()},
        "computed": lines(computed),
        "versions": lines(first.versions),
    }


def _numbers(estimate: Estimate) -> list[float | None]:
    return [_number(value) for value in (estimate.value, estimate.low, estimate.high)]


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value
