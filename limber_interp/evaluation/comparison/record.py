"""The record of a comparison, from what was said."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from limber_interp.datasets import Example
from limber_interp.evaluation.comparison.answering import accuracy, measure_answers, task_of
from limber_interp.evaluation.comparison.captions import measure_captions, without_prompt
from limber_interp.evaluation.comparison.entries import Contestant
from limber_interp.evaluation.comparison.pictures import thumbnails
from limber_interp.evaluation.comparison.results import Results
from limber_interp.evaluation.comparison.scoring import Measured, contrasts, scores
from limber_interp.evaluation.comparison.telling import CAPTION
from limber_interp.evaluation.comparison.work import Looked, Setting, Shown
from limber_interp.images import describe
from limber_interp.probes.controls import derangement, generator
from limber_interp.records import ComparedImage, ComparedQuestion, Comparison, Entry

logger = logging.getLogger(__name__)


def record_of(
    entries: Sequence[Contestant],
    looked: Mapping[str, Looked],
    shown: Shown,
    setting: Setting,
    results: Results,
    notes: Sequence[str],
    keep_seen: int,
) -> Comparison:
    """Measure what was said, and put all together."""
    names = [entry.name for entry in entries]
    encodings = looked[entries[0].config.name].encodings
    rows = shown.rows.tolist()
    examples = [shown.datasets[0][index] for index in rows]
    references = without_prompt([example.captions for example in examples], setting.prompt)
    told = {name: results.texts(name, CAPTION, rows) for name in names} if setting.captions else {}
    notes = list(notes)
    measured: list[Measured] = []
    if told:
        measured += _measure_captions(list(told.values()), references, examples, setting, notes)
    answers = {}
    if shown.asked:
        indices = range(len(shown.asked.questions))
        answers = {n: [results.texts(name, task_of(n), indices) for name in names] for n in shown.asked.shots}
        measured += measure_answers(shown.asked, answers, setting.seed)
    seen = thumbnails(entries[0].config, examples[:keep_seen])
    rejected = [str(rejected) for found in encodings for _, rejected in sorted(found.rejected.items())]
    return Comparison(
        data=shown.datasets[0].name,
        prompt=setting.prompt,
        seed=setting.seed,
        tasks=setting.tasks,
        entries=tuple(Entry(e.name, e.kind, e.description, looked[e.config.name].manifest) for e in entries),
        metrics=tuple(one.metric for one in measured),
        scores=tuple(score for one in measured for score in scores(one, names, setting.seed)),
        contrasts=tuple(contrast for one in measured for contrast in contrasts(one, names, setting.seed)),
        images=tuple(
            ComparedImage(
                key=example.key,
                image=describe(example.image),
                references=tuple(of_image),
                captions={name: texts[i] for name, texts in told.items()},
                seen=seen[i] if i < len(seen) else None,
            )
            for i, (example, of_image) in enumerate(zip(examples, references, strict=True))
        ),
        per_image={one.metric.name: one.sample.values for one in measured if one.per_image},
        questions=tuple(_questions(shown, names, answers)),
        shots=tuple(sorted(answers)),
        rejected=tuple(rejected) + (shown.asked.rejected if shown.asked else ()),
        notes=tuple(notes),
    )


def _measure_captions(
    told: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    examples: Sequence[Example],
    setting: Setting,
    notes: list[str],
) -> list[Measured]:
    partners = derangement(len(references), generator(setting.seed, "other_images", 0))
    measured: list[Measured] = []
    if "caption" in setting.tasks:
        found, note = measure_captions(told, references, partners)
        measured += found
        notes.append(note)
    return measured


def _questions(
    shown: Shown, names: Sequence[str], answers: Mapping[int, Sequence[Sequence[str]]]
) -> Iterator[ComparedQuestion]:
    if shown.asked is None:
        return
    right = {n: accuracy(of, shown.asked.questions) for n, of in answers.items()}
    for i, question in enumerate(shown.asked.questions):
        yield ComparedQuestion(
            key=question.key,
            image=describe(question.image),
            question=question.question,
            kind=question.kind,
            references=question.answers,
            answers={name: {str(n): answers[n][row][i] for n in answers} for row, name in enumerate(names)},
            accuracy={name: {str(n): float(right[n][row][i]) for n in answers} for row, name in enumerate(names)},
        )
