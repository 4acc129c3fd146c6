"""The real vocabulary of a language model: the tokens of its embedding that stand for text."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property

from transformer_lens import HookedTransformer
from transformers import PreTrainedTokenizerBase

from limber_interp.arguments import several
from limber_interp.errors import InputError
from limber_interp.text_rows import TextRows, text_rows


class Vocabulary:
    """The tokens that stand for text, and the end of text. No other row has a place in a neighbour, rank or softmax.

    Attributes:
        rows: their ids, which most often are `0 … n - 1`; see `text_rows` for what is left out.
        eos: the id of the end of text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, n_rows: int | None = None) -> None:
        """
        Args:
            n_rows: of the embedding. None: as many as the tokenizer asks for.

        Raises:
            InputError: a token that stands for text has no row.
        """
        self.tokenizer = tokenizer
        self.rows: TextRows = text_rows(tokenizer, n_rows)
        self.eos: int = tokenizer.eos_token_id

    @property
    def n_used(self) -> int:
        """How many tokens there are. Their ids are below it only where `rows.whole`."""
        return len(self.rows)

    def decode(self, id: int) -> str:
        """The text of one token, with its leading space where it has one."""
        return self.text([int(id)])

    def strings(self, ids: Iterable[int]) -> list[str]:
        """The text of each token."""
        return [self.decode(id) for id in ids]

    def containing(self, texts: str | Iterable[str]) -> frozenset[int]:
        """Tokens that hold any of the texts; a string is one."""
        texts = several(texts)
        return frozenset(id for id in self.rows.ids.tolist() if any(part in self.texts[id] for part in texts))

    @cached_property
    def texts(self) -> list[str]:
        """The text of each id, "" of those that stand for none."""
        return [self.decode(id) if id in self.rows else "" for id in range(self.rows.stop)]

    def text(self, ids: list[int]) -> str:
        """The text of a sequence of tokens."""
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any beginning-of-text token.

        Raises:
            InputError: the text holds the name of a token that stands for no text, such as `<|extratoken_1|>`, or is no
                valid Unicode.
        """
        ids = self._ids(text)
        if strange := [id for id in ids if id not in self.rows]:
            name = self.tokenizer.convert_ids_to_tokens(strange[0])
            raise InputError(f"text {_cut(text)}: holds {name!r}, which stands for no text here; remove it")
        return ids

    def _ids(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = f"{text[error.start]!r} at character {error.start + 1}"
            raise InputError(f"text {_cut(text)}: no valid Unicode: {found} is half a character; mend it") from None
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def id_of(self, word: str, first_token: bool = False) -> int:
        """The single token of a word: with a leading space, as inside a sentence, or else as written.

        What is only white space is taken as written.

        Args:
            first_token: of a word that takes several tokens either way, the first with a leading space.

        Raises:
            InputError: the word takes several tokens either way, or none.
        """
        blank = not word.strip()
        spaced = word if blank else f" {word.lstrip()}"
        for text in (spaced, word):
            match self._ids(text):
                case [id] if id in self.rows:
                    return id
        ids = self._ids(spaced)
        if blank:
            raise InputError(f"{word!r} is no word: it is {'only white space' if word else 'empty'}; name a word")
        if first_token and ids[0] in self.rows:
            return ids[0]
        pieces = " + ".join(repr(token) for token in self.strings(ids))
        whole = {text.strip() for text in self.texts}
        near = ", ".join(get_close_matches(word.strip(), whole, cutoff=0.5)) or "none"
        raise InputError(f"{word!r} is not one token of the vocabulary, but {pieces}; nearest that are: {near}")


def _cut(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def vocabulary(lm: HookedTransformer) -> Vocabulary:
    """The vocabulary of a model that `load_hooked_gptj` built."""
    assert lm.tokenizer is not None
    return Vocabulary(lm.tokenizer, len(lm.W_E))
