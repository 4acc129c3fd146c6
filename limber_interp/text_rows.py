"""Which rows of a language model's token matrices stand for text, and picking these alone.

A GPT-J has more rows than its tokenizer has words, and a tokenizer may name rows that no text was ever trained on, at
any place. Such a row has no place in a neighbour, rank, softmax or sample.
"""

import re
from collections.abc import Iterable
from functools import cached_property

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from limber_interp.errors import InputError

# Names of rows without a meaning. GPT-J's tokenizer lists 143 of them (`<|extratoken_1|>` …), so that len(tokenizer)
# equals the 50,400 rows of the embedding; its text never held one, and rows 50,257 and up were never trained.
FILLER = re.compile(r"<\|extratoken_\d+\|>")
# Names that somebody added to a tokenizer as a sign and not as a word: <|image|>, <image>, </s>, [PAD]
MARKER = re.compile(r"<\|.+\|>|</?\w+>|\[[A-Z]+\]")


class TextRows:
    """A set of token ids, ascending, and what it picks of tensors that have a place for every id.

    In a result a token is always named by its id. Its *place* in the set (0 for the lowest id) is the same number where
    the set is `0 … n - 1`, as of nearly every model; then whatever is picked is a view of what it is picked from, and
    nothing is copied.

    Attributes:
        ids: ascending, on the CPU.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids: Int[Tensor, " n"] = torch.tensor(sorted(set(ids)), dtype=torch.int64, device="cpu")
        self.stop: int = int(self.ids[-1]) + 1 if len(self.ids) else 0
        """One more than the highest id."""
        self.whole: bool = self.stop == len(self.ids)
        """Whether the set is `0 … n - 1`."""
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, rows: "TextRows | int") -> "TextRows":
        """A set as it is; of a number n the ids `0 … n - 1`."""
        return rows if isinstance(rows, TextRows) else cls(range(rows))

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: object) -> bool:
        return id in self._members

    def pick(self, matrix: Shaped[Tensor, "row ..."]) -> Shaped[Tensor, "n ..."]:
        """Of a tensor whose first axis is ids, such as W_E."""
        return matrix[: self.stop] if self.whole else matrix[self._tensors(matrix.device)[0]]

    def columns(self, scores: Shaped[Tensor, "*any column"]) -> Shaped[Tensor, "*any n"]:
        """Of a tensor whose last axis is ids, such as logits."""
        return scores[..., : self.stop] if self.whole else scores[..., self._tensors(scores.device)[0]]

    def at(self, places: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
        """The ids at places in the set."""
        return places if self.whole else self._tensors(places.device)[0][places]

    def places(self, ids: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
        """The places of ids in the set.

        Raises:
            InputError: one is not in it. Where the set is `0 … n - 1` nothing is looked up, and what the places are
                used for fails.
        """
        if self.whole:
            return ids
        inside = (ids >= 0) & (ids < self.stop)
        places = torch.where(inside, self._tensors(ids.device)[1][ids.clamp(0, self.stop - 1)], -1)
        if (places < 0).any():
            raise InputError(f"token {int(ids[places < 0][0])} stands for no text in this vocabulary")
        return places

    @cached_property
    def _members(self) -> frozenset[int]:
        return frozenset(self.ids.tolist())

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The ids, and of each id its place or -1, kept on every device that asks."""
        if device not in self._on:
            places = torch.full((self.stop,), -1, dtype=torch.int64, device="cpu")
            places[self.ids] = torch.arange(len(self.ids), device="cpu")
            self._on[device] = self.ids.to(device), places.to(device)
        return self._on[device]


def text_rows(tokenizer: PreTrainedTokenizerBase, n_rows: int | None = None) -> TextRows:
    """The ids that stand for text in a tokenizer: all that it names, but for

    - fillers, `<|extratoken_N|>`;
    - special tokens, and added ones whose name is a sign (`MARKER`), such as `[PAD]` and LIMBER's `<|image|>`. Text is
      never tokenised into these, and a frozen model was not trained to say them. A model that was (a chat model that
      says `<|im_end|>`) can say no other of them than its end of text;
    - except the end of text, which the model does say.

    A word that was added to the tokenizer counts, trained or not: nothing in a tokenizer tells the two apart.

    Args:
        n_rows: of the embedding. None: as many as the tokenizer asks for.

    Raises:
        InputError: a token that stands for text has no row.
    """
    added = tokenizer.added_tokens_decoder
    signs = {id for id, token in added.items() if token.special or MARKER.fullmatch(token.content)}
    signs |= set(tokenizer.all_special_ids)
    named = {id: name for name, id in tokenizer.get_vocab().items() if not FILLER.fullmatch(name)}
    rows = TextRows(id for id in named if id not in signs or id == tokenizer.eos_token_id)
    if n_rows is not None and rows.stop > n_rows:
        without = [id for id in rows.ids.tolist() if id >= n_rows]
        raise InputError(
            f"the tokenizer has {len(without)} token{'s' * (len(without) > 1)} without a row in the embedding, such as "
            f"{named[without[-1]]!r} ({without[-1]}): it has {n_rows} rows; resize it to the tokenizer, "
            "or take the tokenizer that it was trained with"
        )
    return rows
