"""The real vocabulary of a language model: the rows of its embedding that stand for a token."""

import re

from transformer_lens import HookedTransformer
from transformers import PreTrainedTokenizerBase

from limber_interp.errors import InputError, nearest

# Names of rows without a meaning. GPT-J's tokenizer lists 143 of them (`<|extratoken_1|>` …), so that len(tokenizer)
# equals the 50,400 rows of the embedding; its text never held one, and rows 50,257 and up were never trained.
FILLER = re.compile(r"<\|extratoken_\d+\|>")


class Vocabulary:
    """Tokens `0 … n_used - 1`. Rows from `n_used` on are padding, and have no place in a neighbour, rank or softmax."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        ids = tokenizer.get_vocab()
        self.n_used = 1 + max(id for token, id in ids.items() if not FILLER.fullmatch(token))
        self.eos: int = tokenizer.eos_token_id

    def decode(self, id: int) -> str:
        """The text of one token, with its leading space where it has one."""
        return self.tokenizer.decode([int(id)], clean_up_tokenization_spaces=False)

    def strings(self, ids: list[int]) -> list[str]:
        """The text of each token."""
        return [self.decode(id) for id in ids]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any beginning-of-text token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def id_of(self, word: str) -> int:
        """The single token of a word: with a leading space, as inside a sentence, or else as written.

        Raises:
            InputError: the word takes several tokens either way.
        """
        for text in (f" {word.lstrip()}", word):
            if len(ids := self.encode(text)) == 1:
                return ids[0]
        known = {self.decode(id).strip() for id in range(self.n_used)} - {""}
        pieces = " + ".join(repr(token) for token in self.strings(self.encode(f" {word.lstrip()}")))
        raise InputError(
            f"{word!r} is not one token of the vocabulary ({pieces or 'empty'}); nearest: {_few(word, known)}"
        )


def vocabulary(lm: HookedTransformer) -> Vocabulary:
    """The vocabulary of a model that `load_hooked_gptj` built."""
    assert lm.tokenizer is not None
    return Vocabulary(lm.tokenizer)


def _few(word: str, known: set[str]) -> str:
    near = nearest(word, known)
    return near if near.count(",") < 5 else "none"
