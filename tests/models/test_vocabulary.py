import pytest
from transformers import PreTrainedTokenizerFast

from limber_interp.errors import InputError
from limber_interp.models.hooked_gptj import load_hooked_gptj
from limber_interp.models.vocabulary import Vocabulary, vocabulary


@pytest.fixture(scope="module")
def words(world) -> Vocabulary:
    return vocabulary(load_hooked_gptj(world.lm))


def test_padding_rows_are_not_used(world, words):
    lm = load_hooked_gptj(world.lm)
    assert words.n_used == 320
    assert len(lm.tokenizer) == 321  # and a name for one of the rows without a token, to pad with
    assert lm.W_E.shape[0] == 333


def test_filler_tokens_are_not_used(world):
    """GPT-J's tokenizer names its untrained rows <|extratoken_1|> to <|extratoken_143|>, so that len(tokenizer) is the
    number of rows, and the 143 would count as tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(world.lm)
    tokenizer.add_tokens([f"<|extratoken_{i}|>" for i in range(1, 14)])
    assert len(tokenizer) == 333
    words = Vocabulary(tokenizer)
    assert words.n_used == 320
    with pytest.raises(InputError, match="is not one token"):
        words.id_of("<|extratoken_3|>")


def test_a_word_is_looked_up_with_its_space_first(words):
    for word in ("dog", " dog"):
        assert words.decode(words.id_of(word)) == " dog"
    assert words.decode(words.id_of("A")) == "A"  # there is no ' A' in these few sentences


def test_what_is_only_white_space_is_followed_as_itself_or_not_at_all(words):
    """`""`, and a line end, were taken for the space that stands before a word."""
    for text in ("\n", "\t", " "):
        assert words.decode(words.id_of(text)) == text
    for text in ("", "\t\n", "\u2003"):
        with pytest.raises(InputError, match="is no word: it is .*; name a word"):
            words.id_of(text, first_token=True)


def test_a_text_that_is_no_unicode_is_refused(words):
    """A lone surrogate, as half an emoji in JSON, was a TypeError of the tokenizer that named no text."""
    with pytest.raises(InputError, match=r"text 'a dog \\ud83d': no valid Unicode: '\\ud83d' at character 7 is half"):
        words.encode("a dog \ud83d")
    with pytest.raises(InputError, match="no valid Unicode"):
        words.id_of("\ud83d")


def test_tokens_that_hold_a_text(words):
    whole = words.containing([".", "\n"])
    assert whole == words.containing((".",)) | words.containing("\n")
    assert {words.decode(id) for id in words.containing("og.")} <= {"og.", "dog.", " dog."}
    assert all("." in words.decode(id) or "\n" in words.decode(id) for id in whole)


def test_a_word_of_several_tokens(words):
    with pytest.raises(
        InputError, match=r"'doghouse' is not one token .* but ' dog' \+ 'h' .* nearest that are: .*dog"
    ):
        words.id_of("doghouse")


def test_text_and_tokens(words):
    ids = words.encode("A picture of a dog")
    assert words.eos not in ids
    assert words.text(ids) == "".join(words.strings(ids)) == "A picture of a dog"
