import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limber_interp.errors import InputError
from limber_interp.probes import lens as lens_module
from limber_interp.probes.lens import METRICS, EmbeddingLens, best, read


def by_definition(hidden: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """All scores in float64, one pair at a time."""
    hidden, rows = hidden.astype(np.float64), rows.astype(np.float64)
    if metric == "centred_cosine":
        hidden, rows = hidden - rows.mean(0), rows - rows.mean(0)

    def score(h: np.ndarray, w: np.ndarray) -> float:
        match metric:
            case "dot":
                return h @ w
            case "euclidean":
                return -np.sqrt(((h - w) ** 2).sum())
        return h @ w / max(np.sqrt(h @ h) * np.sqrt(w @ w), 1e-300)

    return np.array([[score(h, w) for w in rows] for h in hidden])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_nearest_rows_and_ranks_by_brute_force(metric, dtype, scale, monkeypatch):
    monkeypatch.setattr(lens_module, "BLOCK", 200)  # 3 positions at a time, and a remainder
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(60, 16, generator=generator) + 0.5).to(dtype)  # off the origin, as embeddings are
    hidden = scale * torch.randn(10, 16, generator=generator)
    watched = torch.tensor([3, 59, 0])
    reading = read(EmbeddingLens(rows, metric), hidden, 7, watched)

    expected = by_definition(hidden.numpy(), rows.numpy(), metric)
    order = np.argsort(-expected, axis=-1, kind="stable")
    np.testing.assert_array_equal(reading.ids, order[:, :7])
    np.testing.assert_allclose(reading.scores, np.take_along_axis(expected, order[:, :7], -1), rtol=2e-5, atol=2e-6)
    assert reading.scores.dtype == torch.float32
    ranks = np.argsort(order, axis=-1) + 1
    np.testing.assert_array_equal(reading.ranks, ranks[:, watched.numpy()])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_go_to_the_lower_id(data):
    """Few different rows, many times: any tie at any place, also at the k-th."""
    n_rows, metric = data.draw(st.integers(1, 40)), data.draw(st.sampled_from(METRICS))
    k = data.draw(st.integers(1, n_rows))
    kinds = torch.tensor([[3.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    rows = kinds[data.draw(st.lists(st.integers(0, 3), min_size=n_rows, max_size=n_rows))]
    reading = read(EmbeddingLens(rows, metric), torch.tensor([[1.0, 1.0, 1.0, 1.0], [0, 0, 0, 0]]), k)
    for ids, scores in zip(reading.ids.tolist(), reading.scores.tolist(), strict=True):
        pairs = list(zip([-score for score in scores], ids, strict=True))
        assert pairs == sorted(pairs)
        assert len(set(ids)) == k
        left_out = set(range(n_rows)) - set(ids)
        last = rows[ids[-1]]
        assert all(id > ids[-1] for id in left_out if torch.equal(rows[id], last))


@pytest.mark.parametrize("n_rows", [4 * 4 * lens_module.CHUNK, 5 * 4 * lens_module.CHUNK + 17])
@pytest.mark.parametrize("kinds", [10**6, 40, 1])
def test_the_largest_scores_of_many_are_found_chunk_by_chunk(n_rows, kinds):
    """Rows enough for the search in two stages, with a remainder beside whole chunks, few ties, many, and nothing else:
    the ids are those of a stable sort of all.
    """
    scores = torch.randint(kinds, (20, n_rows), generator=torch.Generator().manual_seed(0)).float()
    expected = scores.sort(dim=-1, descending=True, stable=True).indices[:, :3]
    torch.testing.assert_close(best(scores, 3).sort(-1).values, expected.sort(-1).values, rtol=0, atol=0)
    scores[:, -1] = kinds  # alone the largest, in the last place
    assert (best(scores, 1) == n_rows - 1).all()


@pytest.mark.parametrize("metric", METRICS)
def test_unused_rows_never_appear(metric):
    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))
    hidden = 5 * rows[20:]  # each has an unused row as its nearest
    reading = read(EmbeddingLens(rows, metric, used=20), hidden, 20, torch.arange(20))
    assert reading.ids.max() == 19
    assert reading.ranks.max() == 20
    alone = read(EmbeddingLens(rows[:20].clone(), metric), hidden, 20)
    torch.testing.assert_close(reading.scores, alone.scores, rtol=0, atol=0)


def test_a_row_is_at_distance_zero_from_itself():
    """|h|² - 2 h·w + |w|² leaves a distance of about 0.1 here, in float32."""
    rows = 100 + torch.randn(50, 64, generator=torch.Generator().manual_seed(2))
    reading = read(EmbeddingLens(rows, "euclidean"), rows, 1)
    assert reading.ids[:, 0].tolist() == list(range(50))
    assert reading.scores.abs().max() == 0


def test_zero_vectors_have_cosine_zero():
    rows = torch.tensor([[0.0, 0.0], [-1.0, 0.0]])
    reading = read(EmbeddingLens(rows, "cosine"), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), 2)
    assert reading.ids.tolist() == [[0, 1], [0, 1]]
    assert reading.scores.tolist() == [[0, -1], [0, 0]]


def test_the_matrix_is_neither_copied_nor_changed():
    rows = torch.randn(9, 4)
    before = rows.clone()
    for metric in METRICS:
        lens = EmbeddingLens(rows, metric, 8)
        assert lens.rows.data_ptr() == rows.data_ptr()
        read(lens, torch.randn(3, 4), 2, torch.tensor([1]))
    assert torch.equal(rows, before)


@pytest.mark.parametrize("k", [0, 10, -1])
def test_k_out_of_range(k):
    with pytest.raises(InputError, match=rf"k = {k}: choose 1 to 9"):
        read(EmbeddingLens(torch.randn(9, 4), "dot"), torch.randn(3, 4), k)
