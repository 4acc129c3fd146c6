import pickle
import struct
import zlib

import numpy as np
import pytest

from limber_interp.errors import LINE, InputError, check_at_least_one, reading


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("not so\nand more of it"), "not so"),
        (KeyError("weight"), "KeyError 'weight'"),
        (IndexError(), "IndexError"),
        (AssertionError(), "AssertionError"),
        (struct.error("unpack requires 4 bytes"), "unpack requires 4 bytes"),
        (zlib.error("invalid block type"), "invalid block type"),
        (pickle.UnpicklingError("stack underflow"), "stack underflow"),
        (MemoryError(), "it takes more memory than there is"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (type("PanicException", (BaseException,), {})("index out of bounds"), "index out of bounds"),
    ],
)
def test_whatever_is_raised_over_a_file_is_one_line_that_names_it(error: BaseException, said: str) -> None:
    with pytest.raises(InputError) as caught, reading("a.bin", "no weights", "fetch it again"):
        raise error
    assert str(caught.value) == f"a.bin: no weights: {said}; fetch it again"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [InputError("b.bin: is missing"), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_broken_file_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("a.bin", "no weights"):
        raise error
    assert caught.value is error


def test_a_message_that_quotes_a_whole_file_is_cut_in_the_middle() -> None:
    """What is wrong, and what to do, stand at its ends."""
    line = str(InputError(f"a.txt: found {'9' * 100_000}, expected a number"))
    assert line.startswith("a.txt: found 999")
    assert line.endswith("999, expected a number")
    assert len(line) < LINE + 10
    assert str(InputError("a" * LINE)) == "a" * LINE


def test_a_number_of_things():
    check_at_least_one(batch_size=1, n_samples=None, block_size=np.int64(3))
    for count in (0, -1, np.int64(-2)):
        with pytest.raises(InputError, match=f"^batch_size {count}: expected at least 1$"):
            check_at_least_one(n_samples=2, batch_size=count)
    for count in (2.5, "many", np.nan):
        with pytest.raises(InputError, match=f"^batch_size {count!r}: expected a whole number, at least 1$"):
            check_at_least_one(batch_size=count)
