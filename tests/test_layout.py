import pytest
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.errors import InputError
from limber_interp.layout import Layout, Segment

# [2 x 3 patches of a.png][" like" " a"][one pooled position of b.png][" dog"]
PARTS = [
    ("image", 6, (2, 3), "a.png"),
    ("text", 2, None, " like a"),
    ("image", 1, None, "b.png"),
    ("text", 1, None, " dog"),
]


def test_positions():
    layout = Layout.of(PARTS)
    assert layout.n_pos == 10
    assert layout.n_padding == 0
    assert layout.image_positions() == range(0, 6)
    assert layout.image_positions(1) == range(8, 9)
    assert layout.text_positions() == [6, 7, 9]
    assert [segment.source for segment in layout.images] == ["a.png", "b.png"]


@pytest.mark.parametrize("n_padding", [0, 3])
def test_selecting_by_what_stands_there(n_padding: int):
    layout = Layout.of(PARTS).padded(10 + n_padding)
    for which, expected in {
        "image": [0, 1, 2, 3, 4, 5, 8],
        "text": [6, 7, 9],
        "last": [9],
        "all": list(range(10)),
        ((1, 2), 0, -1, -10): [5, 0, 9, 0],
    }.items():
        assert [position - n_padding for position in layout.select(which)] == expected


def test_patches_are_in_reading_order():
    layout = Layout.of(PARTS)
    assert [layout.patch(row, col) for row in range(2) for col in range(3)] == [0, 1, 2, 3, 4, 5]


@given(st.integers(0, 50))
def test_left_padding_shifts_every_position(n_padding: int):
    layout = Layout.of(PARTS)
    padded = layout.padded(layout.n_pos + n_padding)
    assert padded.n_padding == n_padding
    assert padded.n_pos == layout.n_pos + n_padding
    assert padded.patch(1, 2) == layout.patch(1, 2) + n_padding
    assert padded.text_positions() == [position + n_padding for position in layout.text_positions()]
    every = [*padded.image_positions(0), *padded.image_positions(1), *padded.text_positions()]
    assert sorted(every) == list(range(n_padding, padded.n_pos))


def test_a_prompt_without_anything():
    assert Layout(()).n_pos == 0
    assert Layout(()).padded(3) == Layout((), n_padding=3)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda layout: layout.image_positions(2), "image 2 of a prompt that holds 2"),
        (lambda layout: layout.image_positions(-1), "image -1 of a prompt that holds 2"),
        (lambda layout: layout.patch(2, 0), r"patch \(2, 0\) lies outside the 2 x 3 grid of 'a.png'"),
        (lambda layout: layout.patch(0, -1), r"patch \(0, -1\) lies outside"),
        (lambda layout: layout.patch(0, 0, i=1), "'b.png' has no patches: its encoder pools them"),
        (lambda layout: layout.select("texts"), "positions 'texts' are unknown; use image, text, last, all"),
        (lambda layout: layout.select([layout.n_pos]), "position 10 of a prompt of 10: count from 0, or from -1"),
        (lambda layout: layout.select([-11]), "position -11 of a prompt of 10"),
        (lambda layout: layout.select([]), r"the prompt has none of \[\]"),
        (lambda layout: Layout.of(PARTS[:1]).select("text"), "the prompt has none of 'text'"),
    ],
)
def test_asking_for_what_is_not_there(ask, message: str):
    with pytest.raises(InputError, match=message):
        ask(Layout.of(PARTS))


def test_a_layout_cannot_lie():
    with pytest.raises(ValueError, match="grid"):
        Segment("image", 0, 5, (2, 3))
    with pytest.raises(ValueError, match="grid"):
        Segment("text", 0, 6, (2, 3))
    with pytest.raises(ValueError, match="from 3 to 2"):
        Segment("text", 3, 2)
    with pytest.raises(ValueError, match="should start at 2"):
        Layout((Segment("text", 0, 2), Segment("text", 3, 4)))
    with pytest.raises(ValueError, match="n_padding|should start|from"):
        Layout.of(PARTS).padded(5)
