"""Encoders side by side: how good each entry's captions, answers and representations are, how sure that is, and which
differences are more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from limber_interp.records.base import Manifest, Record
from limber_interp.records.estimates import SHARE, Bounds, Difference, Estimate

DECIMALS = 5  # of numbers in JSON


@dataclass(frozen=True)
class Entry(Record):
    """One row of the comparison.

    Attributes:
        name: of the config, or of the control.
        kind: `trained` or `random` encoder; `control`: no image is looked at.
        description: what stands in the prompt where an image would, as a caption has to say it.
        manifest: what produced its results; a control's is that of the config whose parts it uses.
    """

    name: str
    kind: Literal["trained", "random", "control"]
    description: str
    manifest: Manifest


@dataclass(frozen=True)
class Metric(Record):
    """What a number is.

    Attributes:
        name: by which scores refer to it, such as `cider_d`.
        label: as a column or an axis shows it, such as `CIDEr-D`.
        task: `caption`, `categories`, `properties`, `probe` or `vqa`.
        unit: of its numbers, as an axis says it: `share`, `points`, `cosine`, …
        direction: 1 where more is better, -1 where less is; 0 where it describes and does not rate (anisotropy).
        description: what it computes, in one line.
        chance: what `Score.chance` of this metric is, in one line; empty where there is none.
        headline: whether it stands in the first table.
        bounds: the lowest and the highest value that it can have; None where it has no such ends.
    """

    name: str
    label: str
    task: str
    unit: str
    direction: Literal[-1, 0, 1]
    description: str
    chance: str = ""
    headline: bool = False
    bounds: Bounds | None = SHARE


@dataclass(frozen=True)
class Score(Record):
    """One entry by one metric, over all that was measured or over a group of it.

    Attributes:
        estimate: with its 95 % bootstrap interval over images (over questions, for answers).
        chance: the same number where the entry cannot know (see `Metric.chance`); NaN where there is none.
        by: what the groups are, such as `category` or `kind`; empty for all.
        group: which of them, such as `animal` or `where`; empty for all.
    """

    entry: str
    metric: str
    estimate: Estimate
    chance: float = float("nan")
    by: str = ""
    group: str = ""

    def as_dict(self) -> dict[str, Any]:
        values = super().as_dict()
        estimate = values.pop("estimate")
        return {**values, **estimate}


@dataclass(frozen=True)
class Contrast(Record):
    """`first` against `second` by one metric, over the same images.

    Attributes:
        difference: first minus second, with its 95 % interval and p.
        p_corrected: p by Holm's procedure over the pairs of this metric.
    """

    metric: str
    first: str
    second: str
    difference: Difference
    p_corrected: float

    def as_dict(self) -> dict[str, Any]:
        values = super().as_dict()
        difference = values.pop("difference")
        return {**values, **difference.pop("estimate"), **difference}


@dataclass(frozen=True)
class Similarity(Record):
    """How alike the entries represent the same images, before any language model reads them.

    Attributes:
        measure: such as `linear CKA` or `nearest-neighbour overlap`.
        place: `encoding` or `soft prompt`.
        names: of rows and columns: entries, and perhaps `token embeddings` of what is in the images.
        values: symmetric; NaN where there is none.
        chance: the same with the images of one shuffled; NaN where it was not run.
    """

    measure: str
    place: str
    names: tuple[str, ...]
    values: Float[np.ndarray, "name name"]
    chance: Float[np.ndarray, "name name"]


@dataclass(frozen=True)
class ComparedImage(Record):
    """One image, and what each entry says of it.

    Attributes:
        key: its name within the data set.
        image: its path, as far as it has one.
        references: its captions in the data set.
        captions: entry -> the caption; empty where captions were not asked for.
        seen: as the first entry's encoder sees it, made smaller; None where it was not kept.
        nouns: words for what is truly there, as captions and references write them; empty where words were not asked
            for.
    """

    key: str
    image: str
    references: tuple[str, ...]
    captions: Mapping[str, str]
    seen: UInt8[np.ndarray, "height width 3"] | None = None
    nouns: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "image": self.image,
            "references": list(self.references),
            "captions": dict(self.captions),
            "nouns": list(self.nouns),
        }


@dataclass(frozen=True)
class ComparedQuestion(Record):
    """One question, and what each entry answers.

    Attributes:
        key: of the question within its data set.
        image: path or key of the image that it is about.
        kind: such as `where`; empty where the data set knows none.
        references: the answers that count as right.
        answers: entry -> number of shots (as text) -> the answer.
        accuracy: of the same, 0 to 1.
    """

    key: str
    image: str
    question: str
    kind: str
    references: tuple[str, ...]
    answers: Mapping[str, Mapping[str, str]]
    accuracy: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Comparison(Record):
    """Entries compared over the same images, prompts and seeds.

    A small one, made by hand: two encoders and no image at all, one metric, two images.

        manifest = Manifest(config={}, hashes={}, dtype="float32", device="cpu", seed=0, preprocessing={})
        cider = Metric("cider_d", "CIDEr-D", "caption", "points", 1, "consensus of n-grams with the references",
                       chance="the same captions against another image's references", headline=True)
        record = Comparison(
            data="scenes", prompt="A picture of", seed=0, tasks=("caption",),
            entries=(
                Entry("clip", "trained", "CLIP", manifest),
                Entry("clip_random", "random", "CLIP with random weights", manifest),
                Entry("blind", "control", "no image", manifest),
            ),
            metrics=(cider,),
            scores=(
                Score("clip", "cider_d", Estimate(0.8, low=0.6, high=1.0, n=2), chance=0.1),
                Score("clip", "cider_d", Estimate(0.9, 0.9, 0.9, n=1), by="category", group="animal"),
                Score("clip_random", "cider_d", Estimate(0.2, 0.1, 0.3, n=2), chance=0.1),
                Score("blind", "cider_d", Estimate(0.1, 0.0, 0.2, n=2), chance=0.1),
            ),
            contrasts=(
                Contrast("cider_d", "clip", "blind", Difference(Estimate(0.7, 0.5, 0.9, n=2), p=0.01), 0.03),
                …
            ),
            images=(
                ComparedImage("0/000", "scenes/000.png", ("a dog on the grass.",),
                              {"clip": "a dog on the grass.", "clip_random": "a cat.", "blind": "a dog."}, seen),
                …
            ),
            per_image={"cider_d": np.array([[0.9, 0.7], [0.3, 0.1], [0.1, 0.1]])},  # entry x image
        )
        record.score("clip", "cider_d").estimate.value                    # 0.8
        record.score("clip", "cider_d", "category", "animal").estimate.n  # 1
        record.headlines                                                  # (cider,)
        record.best("cider_d")                                            # "clip"

    Attributes:
        data: name of the data set.
        images: those that could be used, the same for all entries.
        per_image: metric -> its value for each entry (in their order) and image; NaN where an image has none. Only of
            metrics that have one for each image.
        questions: empty where none were asked.
        shots: numbers of worked examples before a question.
        similarities: between what entries make of the images.
        rejected: what of the data could not be used, and why, a line each.
        notes: what a reader of the numbers has to know; of single entries it stands in their manifests.
    """

    data: str
    prompt: str
    seed: int
    tasks: tuple[str, ...]
    entries: tuple[Entry, ...]
    metrics: tuple[Metric, ...]
    scores: tuple[Score, ...]
    contrasts: tuple[Contrast, ...]
    images: tuple[ComparedImage, ...]
    per_image: Mapping[str, Float[np.ndarray, "entry image"]] = field(default_factory=dict)
    questions: tuple[ComparedQuestion, ...] = ()
    shots: tuple[int, ...] = ()
    similarities: tuple[Similarity, ...] = ()
    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        entries, metrics = ({one.name for one in named} for named in (self.entries, self.metrics))
        named = {score.entry for score in self.scores} | {n for one in self.contrasts for n in (one.first, one.second)}
        named |= {name for image in self.images for name in image.captions}
        named |= {name for question in self.questions for name in (*question.answers, *question.accuracy)}
        if strangers := named - entries:
            raise ValueError(f"{min(strangers)!r} is no entry of it")
        measured = {score.metric for score in self.scores} | {contrast.metric for contrast in self.contrasts}
        measured |= self.per_image.keys()
        if strangers := measured - metrics:
            raise ValueError(f"{min(strangers)!r} is no metric of it")
        for name, values in self.per_image.items():
            if values.shape != (len(self.entries), len(self.images)):
                raise ValueError(f"{name}: values of shape {values.shape}, expected one per entry and image")
        for similarity in self.similarities:
            if len(similarity.names) != len(similarity.values):
                raise ValueError(
                    f"{similarity.measure}: {len(similarity.names)} names of {len(similarity.values)} rows"
                )

    @property
    def headlines(self) -> tuple[Metric, ...]:
        """The metrics of the first table, in its order."""
        return tuple(metric for metric in self.metrics if metric.headline)

    def metric(self, name: str) -> Metric:
        """The metric of a name. KeyError if it was not measured."""
        return {metric.name: metric for metric in self.metrics}[name]

    def score(self, entry: str, metric: str, by: str = "", group: str = "") -> Score | None:
        """An entry's score, over all or in a group; None where there is none."""
        wanted = (entry, metric, by, group)
        return next((s for s in self.scores if (s.entry, s.metric, s.by, s.group) == wanted), None)

    def groups(self, metric: str, by: str) -> tuple[str, ...]:
        """The groups that a metric was measured in, as they first occur."""
        return tuple(dict.fromkeys(s.group for s in self.scores if s.metric == metric and s.by == by))

    def best(self, metric: str) -> str | None:
        """The entry with the best estimate over all; None where the metric does not rate, or nothing was measured."""
        direction = self.metric(metric).direction
        rated = [s for s in self.scores if s.metric == metric and not s.by and np.isfinite(s.estimate.value)]
        if direction == 0 or not rated:
            return None
        return max(rated, key=lambda score: direction * score.estimate.value).entry

    def significant(self, level: float = 0.05) -> tuple[Contrast, ...]:
        """The differences whose corrected p is below a level."""
        return tuple(contrast for contrast in self.contrasts if contrast.p_corrected < level)

    def as_dict(self) -> dict[str, Any]:
        """Numbers rounded to 5 decimals; without pixels."""
        values = _rounded({"command": "compare_encoders", **super().as_dict()})
        by_image = values.pop("per_image")
        names = [entry.name for entry in self.entries]
        for i, image in enumerate(values["images"]):
            image["scores"] = {
                name: {metric: rows[row][i] for metric, rows in by_image.items()} for row, name in enumerate(names)
            }
        return values


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
