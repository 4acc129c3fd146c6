"""Encoders side by side, from configs and data to a record: resumable, in one process or many."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from limber_interp.arguments import integers, several
from limber_interp.config import LimberConfig
from limber_interp.datasets import Dataset, QuestionSet, fingerprint, open_dataset, open_questions
from limber_interp.errors import InputError
from limber_interp.evaluation.comparison.answering import other_images
from limber_interp.evaluation.comparison.captions import without_words
from limber_interp.evaluation.comparison.entries import Contestant, contestants, load_configs
from limber_interp.evaluation.comparison.pictures import First
from limber_interp.evaluation.comparison.record import record_of
from limber_interp.evaluation.comparison.results import Results
from limber_interp.evaluation.comparison.telling import Progress, silent
from limber_interp.evaluation.comparison.work import TASKS, Looked, Setting, Shown, Sources, Work
from limber_interp.evaluation.comparison.yardsticks import Yardsticks
from limber_interp.evaluation.questions import DEFAULT_TEMPLATE, Template
from limber_interp.models.limber import check_files
from limber_interp.ranks import Ranks
from limber_interp.records import Comparison
from limber_interp.resources import weights_dir

logger = logging.getLogger(__name__)


def compare(
    configs: str | Path | LimberConfig | Sequence[str | Path | LimberConfig],
    data: str | Path | None = None,
    tasks: str | Sequence[str] | None = None,
    *,
    out: str | Path,
    prompt: str = "A picture of",
    max_new_tokens: int = 20,
    images: str | Path | None = None,
    max_images: int | None = None,
    max_rejected: float = 0.01,
    questions: str | Path | None = None,
    annotations: str | Path | None = None,
    question_images: str | Path | None = None,
    max_questions: int | None = None,
    shots: int | Sequence[int] = (0, 1, 2, 4),
    template: Template = DEFAULT_TEMPLATE,
    words: str | Path | None = None,
    wordnet: str | Path | None = None,
    attributes: str | Path | None = None,
    clip: str | Path | None = None,
    keep_seen: int = 500,
    seed: int = 0,
    lm: str | None = None,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    batch_size: int = 32,
    progress: Progress = silent,
) -> Comparison | None:
    """Compare encoders through one language model: the same images, prompts and seeds for each.

    Beside the configs stand the ones in `configs/` with random encoders and the same language model, an entry that sees
    no image, and one that sees the mean image. What is said of each image is in `out` as soon as it is said: run again,
    the work goes on where it stopped. Started by `torchrun` or `accelerate launch`, the processes share the images.

    Each image is encoded once per encoder, into `out/encodings`. Encodings are float16 there, a relative error of
    2^-11: a caption differs from that of the image itself where two tokens are all but equally probable. Of 500 scenes
    of the embedded suite these are 0 to 4, by encoder.

    A difference between two entries is one between two *chains*, an encoder and the projection trained for it: a
    projection that was trained longer or better shows as well.

    Args:
        data: captioned images as `open_dataset` takes them; None: the bundled scenes. Images whose captions have no
            word (`…`) are left out like those that cannot be opened.
        tasks: some of `TASKS`; None: all that the data can serve, and WordNet, if it is asked for words. The others are
            named in the log and in the record's notes. Tasks may be added by a later run into the same folder.
        out: a folder for this comparison alone.
        images: the folder of the images of `data`, for COCO captions and tables.
        max_images: only the first ones.
        max_rejected: the share of images that may be unusable.
        questions, annotations: as `open_questions` takes them, on any images; None: those of `data`, on the images that
            are captioned.
        question_images: the folder of the images of `questions`, for VQA's.
        max_questions: only the first ones.
        words, wordnet, attributes, clip: see `Yardsticks.open`.
        keep_seen: of so many images the record keeps a small picture.
        seed: of shots, chance levels and intervals. A random encoder keeps its config's.
        lm: language model in the place of the configs'.

    Returns:
        The record; None in all processes but the first.

    Raises:
        InputError: a setting out of its range, a config whose parts do not fit, fewer than two usable images, no
            captions or answers to hold what is said against, or another run's results in `out`. All of it before
            anything is said.
    """
    configs = several(configs, (str, Path, LimberConfig))
    setting = Setting(
        TASKS if tasks is None else several(tasks), prompt, max_new_tokens, integers(shots, "shots"), template,
        max_questions, seed, batch_size, max_rejected, device, dtype, progress,
    )  # fmt: skip
    setting.check()
    if max_images is not None and max_images < 2:
        raise InputError(f"max_images {max_images}: a comparison takes two or more")
    for option, given in (("question_images", question_images), ("annotations", annotations)):
        if given is not None and questions is None:
            raise InputError(f"{option} {given}: of VQA's questions, and none are named; name them with --questions")
    found, notes = load_configs(configs, lm)
    for config in found:  # all of them, before the first one's language model is loaded
        check_files(config)
    data = data or weights_dir() / "emoji" / "scenes"
    dataset: Dataset = open_dataset(data, images)
    if max_images is not None:
        dataset = First(dataset, max_images)
    asking, no_questions = None, {}
    if "vqa" in setting.tasks:
        try:
            asking = _questions(data, questions, question_images, annotations)
        except InputError as error:
            if tasks is not None or questions is not None:
                raise
            no_questions = {"vqa": str(error)}
    yardsticks = Yardsticks.open(
        setting.tasks, found[0].lm_name, words, wordnet, attributes, clip, by_default=tasks is None
    )
    left_out = {**yardsticks.left_out, **no_questions}
    setting = replace(setting, tasks=tuple(task for task in setting.tasks if task not in left_out))
    for task, reason in left_out.items():
        notes.append(f"the task {task} is left out: {reason}")
        logger.warning(notes[-1])
    sources = _sources(dataset, asking, questions is not None, max_images, setting)
    ranks = Ranks.of_environment()
    with ranks.met():
        work = Work(setting, Path(out), ranks)
        shown, looked = work.look(found, sources)
        entries = contestants(found)
        with ranks.first_alone():
            results = Results(out, _settings(entries, looked, shown, setting), ranks.rank)
        work.tell(entries, looked, shown, results)
        ranks.wait()
        if not ranks.first:
            return None
        results.gather()
    known = work.know(found, looked, shown) if "probe" in setting.tasks else {}
    return record_of(entries, looked, known, shown, setting, yardsticks, results, notes, keep_seen)


def _questions(
    data: str | Path, questions: str | Path | None, images: str | Path | None, annotations: str | Path | None
) -> QuestionSet:
    """Those named, or those of the data."""
    if questions is not None:
        return open_questions(questions, images, annotations)
    if not (Path(data) / "image_data").is_dir():
        raise InputError(f"{data}: captions have no questions beside them; name some with --questions")
    return open_questions(data)


def _sources(
    dataset: Dataset, questions: QuestionSet | None, elsewhere: bool, max_images: int | None, setting: Setting
) -> Sources:
    """The data, looked through for what nothing can be measured against, before any image is opened."""
    wordless = without_words(dataset, setting.prompt) if "caption" in setting.tasks else {}
    if len(wordless) > setting.max_rejected * len(dataset):
        raise InputError(
            f"{dataset.name}: {len(wordless)} of {len(dataset)} examples cannot be used, more than --max-rejected "
            f"{100 * setting.max_rejected:g}%; the first: {wordless[min(wordless)]}; mend or remove them"
        )
    if questions is not None and elsewhere and len(others := other_images(questions, dataset, max_images)):
        return Sources((dataset, others), questions, wordless)
    return Sources((dataset,), questions, wordless)


def _settings(
    entries: Sequence[Contestant], looked: Mapping[str, Looked], shown: Shown, setting: Setting
) -> dict[str, Any]:
    """Whatever changes what is said; of a task that is not asked for None."""
    dataset, asked = shown.datasets[0], shown.asked
    return {
        "data": {"name": dataset.name, "images": len(dataset), "sha256": fingerprint(dataset)},
        "caption": {"prompt": setting.prompt, "max_new_tokens": setting.max_new_tokens} if setting.captions else None,
        "vqa": asked
        and {"data": asked.name, "questions": asked.sha256, "seed": setting.seed, **asdict(asked.template)},
        "entries": {
            entry.name: {
                "shown": entry.shown,
                "config": entry.config.name,
                "dtype": looked[entry.config.name].manifest.dtype,
                **looked[entry.config.name].manifest.hashes,
            }
            for entry in entries
        },
    }
