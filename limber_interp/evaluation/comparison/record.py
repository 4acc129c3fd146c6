"""The record of a comparison, from what was said."""

from collections.abc import Iterator, Mapping, Sequence

from limber_interp.datasets import Example
from limber_interp.evaluation.comparison.answering import accuracy, measure_answers, task_of
from limber_interp.evaluation.comparison.captions import measure_captions, measure_clip_scores, without_prompt
from limber_interp.evaluation.comparison.entries import Contestant
from limber_interp.evaluation.comparison.knowing import Known, describe_geometry, measure_probes, similarities
from limber_interp.evaluation.comparison.pictures import thumbnails
from limber_interp.evaluation.comparison.results import Results
from limber_interp.evaluation.comparison.scoring import Measured, contrasts, scores
from limber_interp.evaluation.comparison.telling import CAPTION
from limber_interp.evaluation.comparison.words import measure_attributes, measure_words, true_nouns
from limber_interp.evaluation.comparison.work import Looked, Setting, Shown
from limber_interp.evaluation.comparison.yardsticks import Yardsticks
from limber_interp.evaluation.lexicon import Lexicon
from limber_interp.images import describe
from limber_interp.probes.controls import derangement, generator
from limber_interp.records import ComparedImage, ComparedQuestion, Comparison, Entry, Score


def record_of(
    entries: Sequence[Contestant],
    looked: Mapping[str, Looked],
    known: Mapping[str, Known],
    shown: Shown,
    setting: Setting,
    yardsticks: Yardsticks,
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
    measured: list[Measured] = []
    notes = [*notes, *yardsticks.notes]
    nouns: list[tuple[str, ...]] = [()] * len(rows)
    if told:
        measured, found, nouns = _measure_captions(list(told.values()), references, examples, setting, yardsticks)
        notes += found
    answers = {}
    if shown.asked:
        indices = range(len(shown.asked.questions))
        answers = {n: [results.texts(name, task_of(n), indices) for name in names] for n in shown.asked.shots}
        measured += measure_answers(shown.asked, answers, setting.seed)
    measured += measure_probes(known, names) if known else []
    described = list(describe_geometry(known)) if known else []
    notes += dict.fromkeys(line for one in known.values() for line in one.left_out)
    seen = thumbnails(entries[0].config, examples[:keep_seen])
    unusable = ({**shown.wordless, **encodings[0].rejected}, *(found.rejected for found in encodings[1:]))
    rejected = [str(rejected) for found in unusable for _, rejected in sorted(found.items())]
    return Comparison(
        data=shown.datasets[0].name,
        prompt=setting.prompt,
        seed=setting.seed,
        tasks=setting.tasks,
        entries=tuple(Entry(e.name, e.kind, e.description, looked[e.config.name].manifest) for e in entries),
        metrics=(*(one.metric for one in measured), *(one.metric for one in described)),
        scores=(
            *(score for one in measured for score in scores(one, names, setting.seed)),
            *(Score(name, one.metric.name, of) for one in described for name, of in one.estimates.items()),
        ),
        contrasts=tuple(contrast for one in measured for contrast in contrasts(one, names, setting.seed)),
        images=tuple(
            ComparedImage(
                key=example.key,
                image=describe(example.image),
                references=tuple(of_image),
                captions={name: texts[i] for name, texts in told.items()},
                seen=seen[i] if i < len(seen) else None,
                nouns=nouns[i],
            )
            for i, (example, of_image) in enumerate(zip(examples, references, strict=True))
        ),
        per_image={one.metric.name: one.sample.values for one in measured if one.per_image},
        questions=tuple(_questions(shown, names, answers)),
        shots=tuple(sorted(answers)),
        similarities=tuple(similarities(known, setting.seed)) if known else (),
        rejected=tuple(rejected) + (shown.asked.rejected if shown.asked else ()),
        notes=tuple(notes),
    )


def _measure_captions(
    told: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    examples: Sequence[Example],
    setting: Setting,
    yardsticks: Yardsticks,
) -> tuple[list[Measured], list[str], list[tuple[str, ...]]]:
    """All metrics of captions, a line on how they were split into words, and the words for each image's true nouns."""
    partners = derangement(len(references), generator(setting.seed, "other_images", 0))
    measured: list[Measured] = []
    notes: list[str] = []
    nouns: list[tuple[str, ...]] = [()] * len(references)
    if "caption" in setting.tasks:
        measured, note = measure_captions(told, references, partners)
        notes.append(note)
    if yardsticks.clip is not None:
        images = [example.image for example in examples]
        measured += measure_clip_scores(yardsticks.clip, told, references, images, partners)
    if yardsticks.taxonomy is not None:
        texts = (text for texts in (*told, *references) for text in texts)
        lexicon = yardsticks.lexicon or Lexicon.of_captions(texts, yardsticks.taxonomy, yardsticks.tag)
        measured += measure_words(told, references, lexicon, yardsticks.taxonomy, setting.tasks, setting.seed)
        nouns = list(true_nouns(told, references, lexicon))
    if yardsticks.attributes is not None:
        measured.append(measure_attributes(told, references, yardsticks.attributes))
    return measured, notes, nouns


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
