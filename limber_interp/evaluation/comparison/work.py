"""The work with the models: looking at the images once with every encoder, then saying what there is to say."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.config import LimberConfig
from limber_interp.datasets import Dataset, Rejected
from limber_interp.datasets.questions import QuestionSet
from limber_interp.encodings import Encodings, encode_once
from limber_interp.errors import InputError, nearest
from limber_interp.evaluation.comparison.answering import Asked, task_of, tell_answers
from limber_interp.evaluation.comparison.entries import Contestant
from limber_interp.evaluation.comparison.knowing import Known, know
from limber_interp.evaluation.comparison.pictures import mean_soft_prompt, soft_prompts, usable
from limber_interp.evaluation.comparison.results import Results
from limber_interp.evaluation.comparison.telling import CAPTION, Progress, Speaker, tell_captions
from limber_interp.evaluation.questions import SoftPromptOf, Template, check_fit
from limber_interp.models.limber import Limber, load
from limber_interp.ranks import Ranks
from limber_interp.records import Manifest

CAPTIONED = ("caption", "categories", "properties")  # tasks that need captions
TASKS = (*CAPTIONED, "probe", "vqa")
CACHED = 1024  # soft prompts kept, because images come again as shots


@dataclass(frozen=True)
class Setting:
    """What is the same for all entries, and how the work is done."""

    tasks: tuple[str, ...]
    prompt: str
    max_new_tokens: int
    shots: tuple[int, ...]
    template: Template
    max_questions: int | None
    seed: int
    batch_size: int
    max_rejected: float
    device: str | torch.device
    dtype: str
    progress: Progress

    def check(self) -> None:
        """Raise InputError where a setting is out of its range."""
        if not self.tasks:
            raise InputError(f"no task: choose some of {', '.join(TASKS)}")
        for task in self.tasks:
            if task not in TASKS:
                raise InputError(f"task {task!r} is unknown; nearest: {nearest(task, TASKS)}")
        if not self.shots or min(self.shots) < 0:
            raise InputError(f"shots {', '.join(map(str, self.shots))}: expected numbers from 0 on")
        for name in ("batch_size", "max_new_tokens", "max_questions"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} {value}: expected at least 1")

    @property
    def captions(self) -> bool:
        return any(task in CAPTIONED for task in self.tasks)


@dataclass(frozen=True)
class Sources:
    """Where images and questions come from.

    Attributes:
        datasets: the captioned images, and perhaps images that only questions are about.
        questions: None where none are asked.
        wordless: see `Shown`.
    """

    datasets: tuple[Dataset, ...]
    questions: QuestionSet | None = None
    wordless: Mapping[int, Rejected] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What all entries are shown: the usable images of the data sets, and questions on these.

    Attributes:
        datasets: the captioned images, and perhaps images that only questions are about.
        rows: indices of the captioned images that can be used.
        asked: None where no questions are.
        places: of the images of questions: which data set, which index.
        wordless: of the captioned images those with captions that nothing can be measured against, and why.
    """

    datasets: tuple[Dataset, ...]
    rows: Int[np.ndarray, " images"]
    asked: Asked | None = None
    places: Mapping[Path | bytes, tuple[int, int]] = field(default_factory=dict)
    wordless: Mapping[int, Rejected] = field(default_factory=dict)

    @staticmethod
    def of(sources: "Sources", encodings: Sequence[Encodings], setting: Setting) -> "Shown":
        """What is left when the images have been encoded once."""
        datasets, questions = sources.datasets, sources.questions
        rows = usable(encodings[0], datasets[0].name, sources.wordless)
        if questions is None:
            return Shown(datasets, rows, wordless=sources.wordless)
        places = {
            datasets[which][index].image: (which, index)
            for which, found in enumerate(encodings)
            for index in np.flatnonzero(found.kept).tolist()
        }
        asked = Asked.of(questions, setting.shots, setting.seed, setting.template, places.keys(), setting.max_questions)
        return Shown(datasets, rows, asked, places, sources.wordless)

    def gallery(self, model: Limber, encodings: Sequence[Encodings]) -> SoftPromptOf:
        """From an image that questions are about to its soft prompt."""

        @lru_cache(CACHED)
        def soft_prompt_of(image: Path | bytes) -> Float[Tensor, "prompt_pos d_model"]:
            which, index = self.places[image]
            return soft_prompts(model, encodings[which], np.array([index]))[0]

        return soft_prompt_of


@dataclass(frozen=True)
class Looked:
    """What a config makes of the images before anything is said: encodings, on disk, and the mean soft prompt."""

    manifest: Manifest
    encodings: tuple[Encodings, ...]
    mean: Float[Tensor, "prompt_pos d_model"]


class Work:
    """The share of one process.

    Args:
        out: where encodings go.
    """

    def __init__(self, setting: Setting, out: Path, ranks: Ranks) -> None:
        self.setting = setting
        self.out = out
        self.ranks = ranks
        self._model: Limber | None = None  # the last one: its language model may be the next one's

    def look(self, configs: Sequence[LimberConfig], sources: Sources) -> tuple[Shown, dict[str, Looked]]:
        """Load each config, so that what does not fit shows before any work with the language model, and encode."""
        shown: Shown | None = None
        looked: dict[str, Looked] = {}
        for config in configs:
            model = self._load(config)
            encodings = tuple(self._encode(model, dataset) for dataset in sources.datasets)
            shown = shown or Shown.of(sources, encodings, self.setting)
            for other in looked.values():
                _check_same(other.encodings, encodings)
            mean = mean_soft_prompt(model, encodings[0], shown.rows)
            self._check(model, mean, shown)
            looked[config.name] = Looked(model.manifest(seed=self.setting.seed), encodings, mean)
        assert shown is not None  # there is a config
        return shown, looked

    def tell(self, entries: Sequence[Contestant], looked: Mapping[str, Looked], shown: Shown, results: Results) -> None:
        """Say what is missing in `results`."""
        for config in {entry.config.name: entry.config for entry in entries}.values():
            todo = [entry for entry in entries if entry.config is config and self._missing(entry, shown, results)]
            if todo:
                model = self._load(config)
            for entry in todo:
                self._tell(entry, model, looked[config.name], shown, results)

    def know(self, configs: Sequence[LimberConfig], looked: Mapping[str, Looked], shown: Shown) -> dict[str, Known]:
        """What each config's encodings and soft prompts tell of the images. It is not shared among processes, nor kept
        on disk."""
        examples = [shown.datasets[0][index] for index in shown.rows.tolist()]
        return {
            config.name: know(
                self._load(config), looked[config.name].encodings[0], shown.rows, examples, self.setting.seed
            )
            for config in self.setting.progress(configs, "Probes")
        }

    def _tell(self, entry: Contestant, model: Limber, looked: Looked, shown: Shown, results: Results) -> None:
        setting = self.setting
        speaker = Speaker(entry, model, looked.mean, results, self.ranks, setting.batch_size, setting.progress)
        if setting.captions:
            tell_captions(speaker, looked.encodings[0], shown.rows, setting.prompt, setting.max_new_tokens)
        if shown.asked:
            tell_answers(speaker, shown.asked, shown.gallery(model, looked.encodings))

    def _check(self, model: Limber, mean: Float[Tensor, "prompt_pos d_model"], shown: Shown) -> None:
        """Raise InputError for what would stop the work later on, when much has been said."""
        if not mean.isfinite().all():
            raise InputError(f"{model.config.name}: its soft prompts are not finite; check its projection")
        if self.setting.captions:
            asked = len(mean) + model.embed([self.setting.prompt]).residual.shape[1] + self.setting.max_new_tokens
            if asked > model.lm.cfg.n_ctx:
                raise InputError(
                    f"{model.config.name}: image, prompt and {self.setting.max_new_tokens} new tokens take {asked} "
                    f"positions, and the language model has {model.lm.cfg.n_ctx}; ask for fewer with --max-new-tokens"
                )
        if shown.asked:
            most = shown.asked.shots[max(shown.asked.shots)]
            check_fit(model, shown.asked.questions, most, len(mean), shown.asked.template)

    def _load(self, config: LimberConfig) -> Limber:
        device = self.ranks.device(self.setting.device)
        self._model = load(config, device=device, dtype=self.setting.dtype, beside=self._model)
        return self._model

    def _encode(self, model: Limber, dataset: Dataset) -> Encodings:
        setting = self.setting
        with self.ranks.first_alone():
            return encode_once(
                model.encoder, dataset, self.out / "encodings", setting.max_rejected, progress=setting.progress
            )

    def _missing(self, entry: Contestant, shown: Shown, results: Results) -> bool:
        tasks: list[tuple[str, Iterable[int]]] = []
        if self.setting.captions:
            tasks.append((CAPTION, shown.rows.tolist()))
        if shown.asked:
            tasks += [(task_of(n), range(len(shown.asked.questions))) for n in shown.asked.shots]
        return any(results.missing(entry.name, task, indices) for task, indices in tasks)


def _check_same(some: Sequence[Encodings], others: Sequence[Encodings]) -> None:
    for one, other in zip(some, others, strict=True):
        if not np.array_equal(one.kept, other.kept):
            raise InputError(f"{one.name}: its images have changed while they were encoded; start in another folder")
