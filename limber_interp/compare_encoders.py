"""Compare encoders through one language model: the same images, prompts and seeds for each, with intervals."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from limber_interp.cli import FIGURE_SUFFIXES, OutputOptions, Report, parts_of, progress, result_table, run, share_of
from limber_interp.config import DEFAULT_CONFIG, MOST_SEEDS, config_names, load_config
from limber_interp.errors import InputError
from limber_interp.extras import not_installed
from limber_interp.options import PLACE, READ, WRITTEN, at_least
from limber_interp.overwriting import NamedPath
from limber_interp.records import Comparison, Record, Score, check_writable
from limber_interp.text import printable

EMBEDDED = "emoji_"  # how the names of the embedded configs begin


@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions):
    """Compare encoders through one language model: the same images, prompts and seeds for each, with intervals.

    Random encoders of the same language model, a run without any image and one with the mean image are always among
    them. Run again with the same --out, the work goes on where it stopped. Under `torchrun` or `accelerate launch` the
    processes share the images.
    """

    configs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[CONFIG ...]"), READ] = ()
    """Names in configs/, or YAML files; none: the embedded ones."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER"), PLACE]
    """For this comparison alone: encodings, what is said of each image (results.jsonl), the record (comparison.npz)."""
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH"), READ] = None
    """Captioned images: LIMBER's folder, COCO or NoCaps captions .json, .tar, .csv; by default the bundled scenes."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """Of --data, where it is COCO captions or a table and the images are not beside it."""
    questions: Annotated[Path | None, tyro.conf.arg(metavar="PATH"), READ] = None
    """VQA v2's questions .json, or LIMBER's folder with questions; by default those of --data."""
    annotations: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), READ] = None
    """VQA v2's answers, where they are not beside the questions."""
    question_images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """Of --questions, where the images of VQA's are not beside them."""
    max_questions: Annotated[int | None, tyro.conf.arg(metavar="INT"), at_least(1)] = None
    """The first ones only: each is answered by every entry, with every number of shots."""
    tasks: Annotated[str | None, tyro.conf.arg(metavar="TASK,TASK")] = None
    """Some of caption, categories, properties, probe, vqa; by default all that the data can serve: the others are
    named."""
    shots: Annotated[str, tyro.conf.arg(metavar="N,N")] = "0,1,2,4"
    """Answered questions on other images, before each question."""
    prompt: str = "A picture of"
    """Text after the image, which a caption continues."""
    max_new_tokens: Annotated[int, tyro.conf.arg(metavar="INT"), at_least(1)] = 20
    """Of a caption."""
    max_images: Annotated[int | None, tyro.conf.arg(metavar="INT"), at_least(2)] = None
    """The first ones only."""
    max_rejected: Annotated[str, tyro.conf.arg(metavar="SHARE")] = "1%"
    """Stop where more of the images than this cannot be used."""
    words: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), READ] = None
    """Nouns, modifiers and relations in groups, as JSON; by default the embedded suite's, or WordNet's."""
    wordnet: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """nltk's data, where it is not installed."""
    attributes: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), READ] = None
    """Animals with Attributes 2, for the attributes of animals named in error."""
    clip: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|NAME:WEIGHTS"), READ] = None
    """CLIP for CLIPScore, such as ViT-B-32-quickgelu:openai, which is downloaded; the embedded suite has its own."""
    lm: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|HUB-ID"), READ] = None
    """Language model (GPT-J), instead of the configs'."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="INT"), at_least(1)] = 32
    """Prompts that are continued at once."""
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the language model; auto: what suits the device."""
    seed: Annotated[int, tyro.conf.arg(metavar="INT"), at_least(0, MOST_SEEDS)] = 0
    """Of shots, chance levels and intervals."""
    figure: Annotated[Path | None, tyro.conf.arg(metavar="PATH"), WRITTEN] = None
    """Draw entries by metrics with their intervals; the ending chooses the format (.png, .pdf, .svg)."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="PATH"), WRITTEN] = None
    """Write an .html page with the images and what each entry says of them, to search, filter and sort."""

    def chosen(self) -> tuple[str, ...]:
        """The configs to compare."""
        if self.configs:
            return self.configs
        embedded = [name for name in config_names() if name.startswith(EMBEDDED)]
        return tuple(sorted(embedded, key=lambda name: name != DEFAULT_CONFIG))  # the mean image is the first one's

    def chosen_tasks(self) -> tuple[str, ...] | None:
        """None: those that the data can serve."""
        return None if self.tasks is None else tuple(task.strip() for task in self.tasks.split(",") if task.strip())

    def chosen_shots(self) -> tuple[int, ...]:
        try:
            return tuple(int(n) for n in self.shots.split(","))
        except ValueError:
            raise InputError(f"--shots {self.shots!r}: use numbers and commas, such as 0,1,4") from None

    def inputs(self) -> Iterator[NamedPath]:
        yield from super().inputs()
        for config in self.chosen():
            yield from parts_of(load_config(config))

    def outputs(self) -> Iterator[NamedPath]:
        yield from super().outputs()
        for name in ("results.jsonl", "comparison.npz"):
            yield NamedPath("--out", self.out / name)

    def check_outputs(self) -> None:
        super().check_outputs()
        if self.figure is not None:
            check_writable(self.figure, FIGURE_SUFFIXES)
        if self.html is not None:
            check_writable(self.html, (".html", ".htm"))
        self.chosen_shots()
        share_of("--max-rejected", self.max_rejected)
        for config in self.chosen():
            load_config(config)


@dataclass(frozen=True)
class Elsewhere(Record):
    """The first process has the comparison."""


def compare_encoders(options: Options) -> Report:
    try:
        from limber_interp.evaluation.comparison import compare
    except ModuleNotFoundError as error:
        raise not_installed(error.name or "a library", "compare") from error

    record = compare(
        options.chosen(),
        options.data,
        options.chosen_tasks(),
        out=options.out,
        prompt=options.prompt,
        max_new_tokens=options.max_new_tokens,
        images=options.images,
        max_images=options.max_images,
        max_rejected=share_of("--max-rejected", options.max_rejected),
        questions=options.questions,
        annotations=options.annotations,
        question_images=options.question_images,
        max_questions=options.max_questions,
        shots=options.chosen_shots(),
        words=options.words,
        wordnet=options.wordnet,
        attributes=options.attributes,
        clip=options.clip,
        seed=options.seed,
        lm=options.lm,
        device=options.device,
        dtype=options.dtype,
        batch_size=options.batch_size,
        progress=progress,
    )
    if record is None:
        return Report(Elsewhere(), (), silent=True)
    record.save(options.out / "comparison.npz")
    if options.figure is not None:
        from limber_interp.plotting.comparison import figure

        figure(record, options.figure)
    if options.html is not None:
        from limber_interp.plotting.comparison_page import page

        page(record, options.html)
    return Report(record, tuple(tables(record)), skipped=record.rejected)


def tables(record: Comparison) -> Iterator[Table]:
    """What to show: the headline metrics of each entry, and the differences that are more than chance."""
    yield _headlines(record)
    yield _differences(record)


def _headlines(record: Comparison) -> Table:
    metrics = record.headlines or record.metrics
    n_images = len(record.images)
    table = result_table(f"{printable(record.data)}: {n_images} images, estimates with 95 % intervals")
    table.add_column("entry")
    for metric in metrics:
        table.add_column(f"{metric.label}{' ↓' if metric.direction < 0 else ''}", justify="right")
    for entry in record.entries:
        cells = []
        for metric in metrics:
            score = record.score(entry.name, metric.name)
            star = "*" if record.best(metric.name) == entry.name else ""
            cells.append("-" if score is None else f"{star}{_cell(score)}")
        table.add_row(printable(entry.name), *cells)
    chances = {metric.chance: metric.label for metric in reversed(metrics) if metric.chance}
    lines = ["* best. After | the chance level", *(f"{label}: {chance}" for chance, label in reversed(chances.items()))]
    table.caption = "\n".join(lines)
    return table


def _cell(score: Score) -> str:
    estimate = score.estimate
    value = f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
    return value if score.chance != score.chance else f"{value} | {score.chance:.2f}"  # NaN is not itself


def _differences(record: Comparison) -> Table:
    """Of each headline metric and entry, whom it is better than by more than chance, and by how much."""
    table = result_table("better than, over the same images: p below 0.05 after Holm's correction over the pairs")
    for heading in ("metric", "entry", "better than"):
        table.add_column(heading, overflow="fold")
    n_found = 0
    for metric in record.headlines:
        beaten: dict[str, list[str]] = {entry.name: [] for entry in record.entries}
        for contrast in record.significant():
            if contrast.metric == metric.name:
                by = contrast.difference.estimate.value
                first, second = contrast.first, contrast.second
                better, worse = (first, second) if by * metric.direction > 0 else (second, first)
                beaten[better].append(f"{printable(worse)} ({abs(by):.2f})")
                n_found += 1
        for name, others in beaten.items():
            if others:
                table.add_row(metric.label, printable(name), ", ".join(others))
    n_asked = sum(contrast.metric in {metric.name for metric in record.headlines} for contrast in record.contrasts)
    lines = [f"{n_found} of {n_asked} differences; in brackets how large they are, their intervals in the JSON"]
    table.caption = "\n".join([*lines, *record.notes])
    return table


def main(args: Sequence[str] | None = None) -> int:
    return run("compare_encoders", Options, compare_encoders, args)


if __name__ == "__main__":
    sys.exit(main())
