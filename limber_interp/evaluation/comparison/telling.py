"""What an entry says of the images: in batches, each written down as soon as it is there."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from limber_interp.encodings import Encodings
from limber_interp.evaluation.comparison.entries import Contestant
from limber_interp.evaluation.comparison.pictures import soft_prompts
from limber_interp.evaluation.comparison.results import Results, Said
from limber_interp.models.limber import Limber, PromptPart
from limber_interp.models.prompt import Text
from limber_interp.ranks import Ranks

Progress: TypeAlias = Callable[[Iterable[Any], str], Iterable[Any]]  # wraps an iteration, with a line on what it is
CAPTION = "caption"


def silent(items: Iterable[Any], _: str) -> Iterable[Any]:
    """No progress is shown."""
    return items


def blocks(count: int, size: int, ranks: Ranks) -> Iterator[range]:
    """A process's share of `count` things in batches: every `world_size`th batch.

    A batch holds the same things whatever the number of processes, and so gives the same numbers to the last bit.
    """
    for start in range(ranks.rank * size, count, ranks.world_size * size):
        yield range(start, min(start + size, count))


@dataclass(frozen=True)
class Speaker:
    """An entry with all that it needs to say something.

    Attributes:
        mean: what is shown where the mean image is.
        results: where it is written down.
    """

    entry: Contestant
    model: Limber
    mean: Float[Tensor, "prompt_pos d_model"]
    results: Results
    ranks: Ranks
    batch_size: int
    progress: Progress

    def todo(self, task: str, indices: Sequence[int], what: str) -> Iterable[range]:
        """The batches, as places in `indices`, of which something is missing."""
        blocks_ = blocks(len(indices), self.batch_size, self.ranks)
        missing = [b for b in blocks_ if self.results.missing(self.entry.name, task, (indices[i] for i in b))]
        return self.progress(missing, f"{self.entry.name}: {what}")

    def write(self, task: str, indices: Iterable[int], keys: Iterable[str], texts: Iterable[str]) -> None:
        self.results.append(
            Said(self.entry.name, task, index, key, text) for index, key, text in zip(indices, keys, texts, strict=True)
        )


def tell_captions(
    speaker: Speaker, encodings: Encodings, rows: Int[np.ndarray, " images"], prompt: str, max_new_tokens: int
) -> None:
    """Caption the images that are not yet: greedy, with a cache of keys and values.

    Args:
        rows: indices of the images.
    """
    model, text = speaker.model, Text(prompt)

    def say(prompts: Sequence[Sequence[PromptPart]]) -> list[str]:
        return [model.vocabulary.text(ids).strip() for ids in model.generate(prompts, max_new_tokens)]

    for block in speaker.todo(CAPTION, rows.tolist(), "captions"):
        batch = rows[block]
        match speaker.entry.shown:
            case "image":
                texts = say([[soft_prompt, text] for soft_prompt in soft_prompts(model, encodings, batch)])
            case "mean":
                texts = say([[speaker.mean, text]]) * len(batch)
            case "nothing":
                texts = say([[text]]) * len(batch)
        speaker.write(CAPTION, batch.tolist(), [encodings.keys[index] for index in batch.tolist()], texts)
