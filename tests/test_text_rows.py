import pytest
import torch

from limber_interp.errors import InputError
from limber_interp.text_rows import TextRows


def test_a_set_without_gaps_copies_nothing():
    matrix, rows = torch.randn(9, 4), TextRows([3, 1, 0, 2])
    assert (len(rows), rows.stop, rows.whole) == (4, 4, True)
    assert rows.pick(matrix).data_ptr() == matrix.data_ptr()
    assert rows.columns(matrix.T).data_ptr() == matrix.data_ptr()
    ids = torch.tensor([2, 0])
    assert rows.at(ids) is ids
    assert rows.places(ids) is ids


def test_a_set_with_gaps_by_hand():
    matrix, rows = torch.arange(12.0).view(6, 2), TextRows([5, 0, 2, 3, 2])
    assert rows.ids.tolist() == [0, 2, 3, 5]
    assert (len(rows), rows.stop, rows.whole) == (4, 6, False)
    assert rows.pick(matrix).tolist() == [[0, 1], [4, 5], [6, 7], [10, 11]]
    assert rows.columns(matrix.T).tolist() == [[0, 4, 6, 10], [1, 5, 7, 11]]
    assert rows.at(torch.tensor([[3, 1]])).tolist() == [[5, 2]]
    assert rows.places(torch.tensor([[5, 2]])).tolist() == [[3, 1]]
    assert [id for id in range(-1, 8) if id in rows] == [0, 2, 3, 5]


@pytest.mark.parametrize("id", [1, 4, 6, 1000, -1])
def test_an_id_outside_has_no_place(id):
    """The last column would stand for it, as an index of -1 does."""
    with pytest.raises(InputError, match=f"token {id} stands for no text"):
        TextRows([0, 2, 3, 5]).places(torch.tensor([2, id]))


def test_a_number_is_the_first_so_many():
    assert TextRows.of(3).ids.tolist() == [0, 1, 2]
    assert TextRows.of(rows := TextRows([1])) is rows
