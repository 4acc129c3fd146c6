"""Few-shot question answering: answered questions on other images are shown first, in the same prompt."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from limber_interp.datasets.questions import Question
from limber_interp.errors import InputError, check_at_least_one
from limber_interp.evaluation.vqa import vqa_accuracy
from limber_interp.images import describe
from limber_interp.models.limber import Limber
from limber_interp.models.prompt import Text
from limber_interp.records import Answer

Shots = Sequence[Question]
MAX_NEW_TOKENS = 10
SoftPromptOf = Callable[[Path | bytes], Tensor]  # image -> (prompt_pos, d_model)


@dataclass(frozen=True)
class Template:
    """How questions are put: `before`, then an image and a question in turn, each with its answer but the last.

    The texts start with a space, as words inside a text do. To a byte-pair vocabulary `Q` and ` Q` are two tokens, and
    a language model that has read one of them alone may not know the other.

    Attributes:
        question: after an image; `{question}` stands for it.
        answer: after the question of a shot; `{answer}` stands for what most people answered.
        before: an instruction, before all else.
        stops: an answer ends before the first of these, or at the end of text. The full stop that ends the shots'
            answers also cuts `3.5` and `St. Paul`.

    Raises:
        InputError: `question` or `answer` has no place for it.
    """

    question: str = " Q: {question} A:"
    answer: str = " {answer}."
    before: str = ""
    stops: tuple[str, ...] = (".", "\n")

    def __post_init__(self) -> None:
        for name in ("question", "answer"):
            if f"{{{name}}}" not in getattr(self, name):
                raise InputError(f"template {getattr(self, name)!r}: no {{{name}}} in it")

    def asked(self, question: Question) -> str:
        return self.question.replace("{question}", question.question)

    def shown(self, shot: Question) -> str:
        (answer, _), *_ = Counter(shot.answers).most_common(1)  # the first given, of equally many
        return self.asked(shot) + self.answer.replace("{answer}", answer)

    def cut(self, text: str) -> str:
        ends = [text.find(stop) for stop in self.stops if stop in text]
        return text[: min(ends, default=len(text))].strip()


DEFAULT_TEMPLATE = Template()


def draw_shots(
    questions: Sequence[Question], pool: Sequence[Question], n_shots: int, seed: int
) -> list[tuple[Question, ...]]:
    """Shots for each question: images drawn from the pool, and one question on each.

    No shot is on the question's own image or on another shot's. They depend on the seed, the question's key and the
    pool alone, so that every encoder and the blind control get the same; and those of fewer shots are the first of
    those of more.

    Args:
        pool: a set of its own, or `questions`. The same image under two names counts as two.

    Raises:
        InputError: too few images in the pool.
    """
    by_image: dict[str | bytes, list[Question]] = defaultdict(list)
    for question in pool:
        by_image[_image_id(question)].append(question)
    images = list(by_image)
    drawn = []
    for question in questions:
        own = _image_id(question)
        if len(by_image) - (own in by_image) < n_shots:
            raise InputError(f"{n_shots} shots need as many other images; the pool has {len(images)} in all")
        digest = hashlib.sha256(f"{seed} {question.key}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        shots: dict[str | bytes, Question] = {}
        while len(shots) < n_shots:
            image = images[generator.integers(len(images))]
            shot = by_image[image][generator.integers(len(by_image[image]))]
            if image != own:
                shots.setdefault(image, shot)
        drawn.append(tuple(shots.values()))
    return drawn


def prompt(
    question: Question,
    shots: Shots,
    soft_prompt_of: SoftPromptOf | None,
    template: Template = DEFAULT_TEMPLATE,
) -> list[str | Tensor]:
    """The parts that `Limber.embed` lays one after the other; without images where `soft_prompt_of` is None."""

    def image(question: Question) -> list[Tensor]:
        return [] if soft_prompt_of is None else [soft_prompt_of(question.image)]

    parts: list[str | Tensor] = [Text(template.before)] if template.before else []
    for shot in shots:
        parts += [*image(shot), Text(template.shown(shot))]
    return [*parts, *image(question), Text(template.asked(question))]


def answers(
    model: Limber,
    questions: Sequence[Question],
    shots: Sequence[Shots],
    soft_prompt_of: SoftPromptOf | None,
    template: Template = DEFAULT_TEMPLATE,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 32,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Answer]:
    """Answer each question after its shots, greedily, and score the answer.

    A language model answers many questions without looking: hold the accuracy against the blind control's with the same
    shots. Shots teach it the form of an answer, but one that never read several images in a text may take an answer
    from a shot's image: more shots can be worse.

    Args:
        shots: of each question, as `draw_shots` gives them; as many for each.
        soft_prompt_of: an image's soft prompt (prompt_pos, d_model), the same number of positions for all; it is asked
            for as often as an image is shown, so let it remember. None: the blind control, the same text alone.
        progress: wraps the iteration over batches.

    Raises:
        InputError: no question, a batch size below 1, or prompts longer than the language model takes (before any is
            answered; how many shots fit is said); logits that are not finite.
    """
    check_at_least_one(batch_size=batch_size)
    if not questions:
        raise InputError("no question given")
    n_image = 0 if soft_prompt_of is None else len(soft_prompt_of(questions[0].image))
    check_fit(model, questions, shots, n_image, template, max_new_tokens)
    stops = model.vocabulary.containing(template.stops)
    found = []
    for start in progress(range(0, len(questions), batch_size)):
        batch = list(zip(questions, shots, strict=True))[start : start + batch_size]
        prompts = [prompt(question, shown, soft_prompt_of, template) for question, shown in batch]
        continuations = model.generate(prompts, max_new_tokens, stops=stops)
        for (question, shown), ids in zip(batch, continuations, strict=True):
            answer = template.cut(model.vocabulary.text(ids))
            found.append(
                Answer(
                    key=question.key,
                    kind=question.kind,
                    question=question.question,
                    answers=question.answers,
                    image=describe(question.image),
                    answer=answer,
                    accuracy=vqa_accuracy(answer, question.answers),
                    n_shots=len(shown),
                    shots=tuple(shot.key for shot in shown),
                    blind=soft_prompt_of is None,
                )
            )
    return found


def check_fit(
    model: Limber,
    questions: Sequence[Question],
    shots: Sequence[Shots],
    n_image: int,
    template: Template = DEFAULT_TEMPLATE,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> None:
    """Whether each question has room in the language model, with its shots and its answer.

    Args:
        n_image: positions of an image's soft prompt; 0 for the blind control.

    Raises:
        InputError: one has not; how many shots fit is said.
    """

    @cache
    def length(text: str) -> int:
        return len(model.vocabulary.encode(text))

    n_ctx, n_shots = model.lm.cfg.n_ctx, max(map(len, shots), default=0)
    longest = np.zeros(n_shots + 1, dtype=int)  # by the number of shots
    for question, shown in zip(questions, shots, strict=True):
        asked = n_image + length(template.asked(question)) + length(template.before)
        added = [n_image + length(template.shown(shot)) for shot in shown]
        longest[: len(shown) + 1] = np.maximum(longest[: len(shown) + 1], asked + np.cumsum([0, *added]))
    if longest[-1] + max_new_tokens > n_ctx:
        n_fitting = int((longest + max_new_tokens <= n_ctx).sum()) - 1
        fitting = f"{n_fitting} shots fit" if n_fitting >= 0 else "not even a question without shots fits"
        raise InputError(
            f"{n_shots} shots with {n_image} positions per image: the longest prompt takes {longest[-1]} positions and "
            f"its answer {max_new_tokens}, but the language model has {n_ctx}; {fitting}"
        )


def _image_id(question: Question) -> str | bytes:
    return question.image if isinstance(question.image, bytes) else os.path.abspath(question.image)
