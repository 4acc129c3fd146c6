import pytest
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.errors import InputError
from limber_interp.evaluation.metrics.tokenizing import java_runs, tokenize

needs_java = pytest.mark.skipif(not java_runs(), reason="Java is not installed")

# Text as people write captions, and its words as Stanford's tokenizer has them
WORDS = {
    "A big dog left of a small cat on the grass.": "a big dog left of a small cat on the grass",
    "The man's dogs' toys, isn't it?": "the man 's dogs toys is n't it",
    "He CAN'T; we won't... I'm sure they'd've": "he ca n't we wo n't i 'm sure they 'd 've",
    "cannot, gonna and 'tis": "can not gon na and 't is",
    "A black-and-white t-shirt -- a “STOP” sign – red/white": "a black-and-white t-shirt a stop sign red/white",
    "At 10:30 p.m. in the U.S., 1,000 of them at $5.50": "at 10:30 p.m. in the u.s. 1,000 of them at $ 5.50",
    "Mr. Smith on St. James Ave. at 5 o'clock": "mr. smith on st. james ave. at 5 o'clock",
    "No. 5 bus, 50% off! No. It's the #1": "no. 5 bus 50 % off no it 's the # 1",
    "B&W photo of bacon & eggs": "b&w photo of bacon & eggs",
    "people.A man,a dog.": "people.a man a dog",
    "A man (left) with [two] cats": "a man -lrb- left -rrb- with -lsb- two -rsb- cats",
    "Wow!! What?!": "wow !! what ?!",
    "a café 😀 in the snow ★": "a café in the snow ★",
    "a pin\u0303ata, a piñata": "a piñata a piñata",  # as two characters or as one
    "cars from the '60s and 1950s, a 747-400": "cars from the '60s and 1950s a 747-400",
    "see https://example.com/a_b.": "see https://example.com/a_b",
    "": "",
    " \t. ": "",
}


@pytest.mark.parametrize("tokenizer", ["python", pytest.param("ptb", marks=needs_java)])
def test_words(tokenizer):
    found, used = tokenize(list(WORDS), tokenizer)
    assert used == tokenizer
    assert dict(zip(WORDS, found, strict=True)) == WORDS


@needs_java
def test_stanfords_lines_stay_apart():
    """Characters that end a line for Java, but were not asked for: a caption's words would go to the next one."""
    texts = ["a\u2028dog", "b\x0bcat", "", "c\r\nd\x85e", "\u2029", "f"]
    assert tokenize(texts, "ptb")[0] == ["a dog", "b cat", "", "c d e", "", "f"] == tokenize(texts, "python")[0]


@given(st.lists(st.text(), max_size=3))
def test_any_text_has_words(texts):
    """A model may say anything: every text becomes one line, and to tokenize it again changes nothing that counts."""
    found, _ = tokenize(texts, "python")
    assert len(found) == len(texts)
    for words in found:
        assert words == " ".join(words.split())
        assert not set(words.split()) & {".", ",", "-", "--", "...", "'", "''", "`", "``", "?", "!", ":", ";"}


@pytest.fixture
def fresh():
    java_runs.cache_clear()
    yield
    java_runs.cache_clear()


@pytest.mark.parametrize("java", [None, "#!/bin/sh\nexit 1\n"], ids=["none", "one that does not start"])
def test_without_java(java, tmp_path, monkeypatch, fresh):
    if java is not None:
        (tmp_path / "java").write_text(java)
        (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert tokenize(["A dog."]) == (["a dog"], "python")
    with pytest.raises(InputError, match="needs Java.*choose 'python'"):
        tokenize(["A dog."], "ptb")


def test_java_that_breaks_down_is_not_believed(tmp_path, monkeypatch, fresh):
    """It starts, and then gives fewer lines than captions."""
    (tmp_path / "java").write_text('#!/bin/sh\n[ "$1" = -version ] && exit 0\necho a dog\necho no memory >&2\n')
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    with pytest.raises(RuntimeError, match="1 lines for 2: no memory"):
        tokenize(["A dog.", "A cat."], "ptb")


def test_an_unknown_tokenizer():
    with pytest.raises(InputError, match="'moses' is unknown; use one of auto, ptb, python"):
        tokenize(["A dog."], "moses")
