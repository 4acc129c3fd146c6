"""What the language model answers to a question on an image."""

from dataclasses import dataclass

from limber_interp.records.base import Record


@dataclass(frozen=True)
class Answer(Record):
    """One answer.

    Attributes:
        key, kind, question, answers: of the question, as its set has them.
        image: where it is; questions that share it are no independent draws, so that intervals are over images.
        answer: what the model said, cut where it ends.
        accuracy: VQA's, in [0, 1]; see `evaluation.vqa.vqa_accuracy`.
        n_shots: answered questions shown before; `shots` are their keys, in the order shown.
        blind: the same text without any image.
    """

    key: str
    kind: str
    question: str
    answers: tuple[str, ...]
    image: str
    answer: str
    accuracy: float
    n_shots: int
    shots: tuple[str, ...]
    blind: bool
