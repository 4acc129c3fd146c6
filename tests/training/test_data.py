from itertools import islice

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.models.limber import Limber
from limber_interp.training.data import IGNORED, caption_tokens, order, share


@given(count=st.integers(1, 20), batch_size=st.integers(1, 20), seed=st.integers(0, 5))
def test_every_epoch_sees_everything_once(count: int, batch_size: int, seed: int) -> None:
    epochs = 3
    batches = list(islice(order(count, batch_size, seed), -(-count * epochs // batch_size)))
    assert all(len(batch) == batch_size for batch in batches)
    seen = np.concatenate(batches)[: count * epochs].reshape(epochs, count)
    assert (np.sort(seen, axis=1) == np.arange(count)).all()
    again = list(islice(order(count, batch_size, seed), len(batches)))
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(again))


@given(count=st.integers(0, 40), world_size=st.integers(1, 9))
def test_the_shares_of_the_ranks_are_disjoint_and_cover_the_batch(count: int, world_size: int) -> None:
    batch = np.random.default_rng(count).permutation(count)
    shares = [share(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 1


def test_labels_are_the_caption_and_one_end_of_text(tiny: Limber) -> None:
    ids, labels = caption_tokens(tiny.vocabulary, ["A dog.", "A picture of a dog."], limit=100)
    short = len(tiny.vocabulary.encode("A dog."))
    assert tiny.vocabulary.text(ids[0, :short].tolist()) == "A dog."
    assert labels[0, short] == tiny.vocabulary.eos
    assert (labels[0, short + 1 :] == IGNORED).all()
    assert (labels[0, short + 1 :]).numel() > 0
    assert torch.equal(ids[1], labels[1])
    assert labels[1, -1] == tiny.vocabulary.eos


def test_a_caption_of_one_token_has_two_labels(tiny: Limber) -> None:
    _, labels = caption_tokens(tiny.vocabulary, [" dog"], limit=100)
    assert labels.tolist() == [[tiny.vocabulary.id_of("dog"), tiny.vocabulary.eos]]


def test_a_string_is_one_caption(tiny):
    ids, _ = caption_tokens(tiny.vocabulary, "A dog.", limit=100)
    torch.testing.assert_close(ids, caption_tokens(tiny.vocabulary, ["A dog."], limit=100)[0])


def test_a_caption_beyond_the_context_is_cut_and_has_no_end(tiny: Limber) -> None:
    _, labels = caption_tokens(tiny.vocabulary, ["A picture of a dog on the grass."], limit=4)
    assert labels.shape == (1, 4)
    assert tiny.vocabulary.eos not in labels
