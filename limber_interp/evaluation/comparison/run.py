"""Encoders side by side, from configs and data to a record: resumable, in one process or many."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from limber_interp.config import LimberConfig
from limber_interp.datasets import Dataset, fingerprint, open_dataset, open_questions
from limber_interp.errors import InputError
from limber_interp.evaluation.comparison.answering import other_images
from limber_interp.evaluation.comparison.entries import Contestant, contestants, load_configs
from limber_interp.evaluation.comparison.pictures import First
from limber_interp.evaluation.comparison.record import record_of
from limber_interp.evaluation.comparison.results import Results
from limber_interp.evaluation.comparison.telling import Progress, silent
from limber_interp.evaluation.comparison.work import TASKS, Looked, Setting, Shown, Work
from limber_interp.evaluation.comparison.yardsticks import Yardsticks
from limber_interp.evaluation.questions import DEFAULT_TEMPLATE, Template
from limber_interp.ranks import Ranks
from limber_interp.records import Comparison
from limber_interp.resources import weights_dir


def compare(
    configs: Sequence[str | Path | LimberConfig],
    data: str | Path | None = None,
    tasks: Sequence[str] = TASKS,
    *,
    out: str | Path,
    prompt: str = "A picture of",
    max_new_tokens: int = 20,
    images: str | Path | None = None,
    max_images: int | None = None,
    max_rejected: float = 0.01,
    questions: str | Path | None = None,
    annotations: str | Path | None = None,
    max_questions: int | None = None,
    shots: Sequence[int] = (0, 1, 2, 4),
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
        data: captioned images as `open_dataset` takes them; None: the bundled scenes.
        out: a folder for this comparison alone.
        images: the folder of the images, for COCO captions, VQA's questions and tables.
        max_images: only the first ones.
        max_rejected: the share of images that may be unusable.
        questions, annotations: as `open_questions` takes them, on any images; None: those of `data`, on the images that
            are captioned.
        max_questions: only the first ones.
        words, wordnet, attributes, clip: see `Yardsticks.open`.
        keep_seen: of so many images the record keeps a small picture.
        seed: of shots, chance levels and intervals. A random encoder keeps its config's.
        lm: language model in the place of the configs'.

    Returns:
        The record; None in all processes but the first.

    Raises:
        InputError: a setting out of its range, a config whose parts do not fit, fewer than two usable images, no
            captions or answers to hold what is said against, or another run's results in `out`.
    """
    setting = Setting(
        tuple(tasks), prompt, max_new_tokens, tuple(shots), template, max_questions, seed, batch_size, max_rejected,
        device, dtype, progress,
    )  # fmt: skip
    setting.check()
    if max_images is not None and max_images < 2:
        raise InputError(f"max_images {max_images}: a comparison takes two or more")
    found, notes = load_configs(configs, lm)
    yardsticks = Yardsticks.open(tasks, found[0].lm_name, words, wordnet, attributes, clip)
    data = data or weights_dir() / "emoji" / "scenes"
    datasets: tuple[Dataset, ...] = (open_dataset(data, images),)
    if max_images is not None:
        datasets = (First(datasets[0], max_images),)
    asking = None
    if "vqa" in tasks:
        asking = open_questions(data) if questions is None else open_questions(questions, images, annotations)
        if questions is not None and len(others := other_images(asking, datasets[0], max_images)):
            datasets = (*datasets, others)
    ranks = Ranks.of_environment()
    with ranks.met():
        work = Work(setting, Path(out), ranks)
        shown, looked = work.look(found, datasets, asking)
        entries = contestants(found)
        with ranks.first_alone():
            results = Results(out, _settings(entries, looked, shown, setting), ranks.rank)
        work.tell(entries, looked, shown, results)
        ranks.wait()
        if not ranks.first:
            return None
        results.gather()
    known = work.know(found, looked, shown) if "probe" in tasks else {}
    return record_of(entries, looked, known, shown, setting, yardsticks, results, notes, keep_seen)


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
