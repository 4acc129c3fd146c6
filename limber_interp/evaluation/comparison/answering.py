"""What an entry answers to questions on images, and how right it is."""

import contextlib
import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from limber_interp.datasets import Dataset, Example, Rejected
from limber_interp.datasets.questions import Question, QuestionSet
from limber_interp.errors import InputError
from limber_interp.evaluation.comparison.scoring import Measured, Sample
from limber_interp.evaluation.comparison.telling import Speaker
from limber_interp.evaluation.questions import SoftPromptOf, Template, answers, draw_shots
from limber_interp.evaluation.vqa import vqa_accuracy
from limber_interp.images import describe
from limber_interp.probes.controls import derangement, generator
from limber_interp.records import Metric


def task_of(n_shots: int) -> str:
    """The name of the task, and of its metric."""
    return f"vqa_{n_shots}"


def usable_questions(found: QuestionSet) -> tuple[list[Question], list[str]]:
    """Those that can be asked, and a line on each that cannot."""
    questions, rejected = [], []
    for index in range(len(found)):
        try:
            questions.append(found[index])
        except Rejected as reason:
            rejected.append(f"question {reason}")
    return questions, rejected


@dataclass(frozen=True)
class Images:
    """Images alone, to be encoded."""

    name: str
    images: tuple[Path | bytes, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return Example(self.images[index], ("",), key=describe(self.images[index]))

    def files(self) -> Iterator[Path]:
        return (image for image in self.images if isinstance(image, Path))


def other_images(found: QuestionSet, dataset: Dataset, count: int | None) -> Images:
    """The images that questions are about and the data set has not; the first `count` of them."""
    known = set()
    for index in range(len(dataset)):
        with contextlib.suppress(Rejected):
            known.add(dataset[index].image)
    of_questions = dict.fromkeys(question.image for question in usable_questions(found)[0])
    return Images(found.name, tuple(image for image in of_questions if image not in known)[:count])


@dataclass(frozen=True)
class Asked:
    """The questions of a run, the same for all entries.

    Attributes:
        shots: number of shots -> those of each question.
        rejected: a line on each question that cannot be asked.
    """

    name: str
    questions: tuple[Question, ...]
    shots: Mapping[int, Sequence[Sequence[Question]]]
    template: Template
    rejected: tuple[str, ...]

    @staticmethod
    def of(
        found: QuestionSet,
        n_shots: Sequence[int],
        seed: int,
        template: Template,
        among: Container[Path | bytes],
        count: int | None = None,
    ) -> "Asked":
        """The questions that can be asked, each with its shots.

        Args:
            among: the images that they may be about.
            count: only the first ones.

        Raises:
            InputError: none can be asked, or too few images for the shots.
        """
        usable, rejected = usable_questions(found)
        questions = [question for question in usable if question.image in among][:count]
        if not questions:
            raise InputError(f"{found.name}: no question that can be asked of these images")
        shots = {n: draw_shots(questions, questions, n, seed) for n in sorted(set(n_shots))}
        return Asked(found.name, tuple(questions), shots, template, tuple(rejected))

    @property
    def sha256(self) -> str:
        """Of the questions, in their order, and their images' names."""
        rows = [(q.key, q.question, q.answers, describe(q.image)) for q in self.questions]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def images(self) -> tuple[Path | bytes, ...]:
        """Each once."""
        return tuple(dict.fromkeys(question.image for question in self.questions))


def tell_answers(speaker: Speaker, asked: Asked, soft_prompt_of: SoftPromptOf) -> None:
    """Answer the questions that are not yet; most shots first, for these may not fit."""
    of = {"image": soft_prompt_of, "mean": lambda _: speaker.mean, "nothing": None}[speaker.entry.shown]
    for n_shots, shots in sorted(asked.shots.items(), reverse=True):
        for block in speaker.todo(task_of(n_shots), range(len(asked.questions)), f"answers, {n_shots} shots"):
            questions, shown = [asked.questions[i] for i in block], [shots[i] for i in block]
            told = answers(speaker.model, questions, shown, of, asked.template, batch_size=len(block))
            speaker.write(task_of(n_shots), block, [a.key for a in told], [a.answer for a in told])


def measure_answers(asked: Asked, told: Mapping[int, Sequence[Sequence[str]]], seed: int) -> list[Measured]:
    """VQA's accuracy by number of shots, and within each by the kind of question.

    What is resampled are images, not questions: those on one image are no independent draws.

    Args:
        told: number of shots -> by entry, the answer to each question.
        seed: of the other questions that chance is taken from.
    """
    kinds = np.array([question.kind for question in asked.questions])
    others = _of_same_kind(kinds, seed)
    measured = []
    for n_shots, said in told.items():
        metric = Metric(
            name=task_of(n_shots),
            label=f"VQA, {n_shots} shots",
            task="vqa",
            unit="share",
            direction=1,
            description=f"VQA's accuracy after {n_shots} answered questions on other images",
            chance="the same answers against another question of the same kind",
            headline=n_shots == max(told),
        )
        right = accuracy(said, asked.questions)
        swapped = accuracy(said, [asked.questions[other] for other in others])
        groups = {("kind", kind): _by_image(asked, right, kinds == kind) for kind in np.unique(kinds).tolist() if kind}
        sample = _by_image(asked, right, np.ones(len(kinds), dtype=bool))
        measured.append(Measured(metric, sample, swapped.mean(axis=1), groups, per_image=False))
    return measured


def accuracy(answers: Sequence[Sequence[str]], questions: Sequence[Question]) -> Float[np.ndarray, "entry question"]:
    """VQA's, of each entry's answers."""
    return np.array([[vqa_accuracy(a, q.answers) for a, q in zip(of, questions, strict=True)] for of in answers])


def _by_image(asked: Asked, right: np.ndarray, which: np.ndarray) -> Sample:
    """Means over the questions of an image, weighted by how many there are."""
    place = {image: i for i, image in enumerate(asked.images)}
    image = np.array([place[question.image] for question in asked.questions])[which]
    count = np.bincount(image, minlength=len(place)).astype(float)
    total = np.stack([np.bincount(image, weights=row[which], minlength=len(place)) for row in right])
    return Sample(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0), count)


def _of_same_kind(kinds: np.ndarray, seed: int) -> np.ndarray:
    """For each question another of its kind; a question that is alone in its kind has itself."""
    others = np.arange(len(kinds))
    for kind in np.unique(kinds):
        places = np.flatnonzero(kinds == kind)
        if len(places) > 1:
            others[places] = places[derangement(len(places), generator(seed, "other_questions", 0))]
    return others
