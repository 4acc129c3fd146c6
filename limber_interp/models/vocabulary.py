"""The real vocabulary of a language model: the rows of its embedding that stand for a token."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property

from transformer_lens import HookedTransformer
from transformers import PreTrainedTokenizerBase

from limber_interp.errors import InputError

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
        return self.text([int(id)])

    def strings(self, ids: Iterable[int]) -> list[str]:
        """The text of each token."""
        return [self.decode(id) for id in ids]

    def containing(self, texts: Iterable[str]) -> frozenset[int]:
        """Tokens that hold any of the texts."""
        texts = tuple(texts)
        return frozenset(id for id, text in enumerate(self._texts) if any(part in text for part in texts))

    @cached_property
    def _texts(self) -> list[str]:
        return self.strings(range(self.n_used))

    def text(self, ids: list[int]) -> str:
        """The text of a sequence of tokens."""
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any beginning-of-text token."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def id_of(self, word: str, first_token: bool = False) -> int:
        """The single token of a word: with a leading space, as inside a sentence, or else as written.

        Args:
            first_token: of a word that takes several tokens either way, the first with a leading space.

        Raises:
            InputError: the word takes several tokens either way.
        """
        spaced = f" {word.lstrip()}"
        for text in (spaced, word):
            match self.encode(text):
                case [id] if id < self.n_used:
                    return id
        if first_token:
            return self.encode(spaced)[0]
        pieces = " + ".join(repr(token) for token in self.strings(self.encode(spaced)))
        whole = {text.strip() for text in self._texts}
        near = ", ".join(get_close_matches(word.strip(), whole, cutoff=0.5)) or "none"
        raise InputError(f"{word!r} is not one token of the vocabulary, but {pieces}; nearest that are: {near}")


def vocabulary(lm: HookedTransformer) -> Vocabulary:
    """The vocabulary of a model that `load_hooked_gptj` built."""
    assert lm.tokenizer is not None
    return Vocabulary(lm.tokenizer)
