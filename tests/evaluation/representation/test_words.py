import numpy as np
import torch

from limber_interp.evaluation.representation import mean_by_word, token_embeddings
from limber_interp.models.limber import Limber


def test_means_by_hand():
    features = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [9.0, 9.0]])
    names, means = mean_by_word(features, [["dog"], ["dog", "cat"], ["cat", "cat"], ["boat"]])
    assert names == ("cat", "dog"), "there is one boat only"
    np.testing.assert_array_equal(means, [[4, 3], [2, 1]])
    assert mean_by_word(features, [[], [], [], []])[1].shape == (0, 2)


def test_token_embeddings_are_rows_of_W_E(tiny: Limber):
    (dog,) = tiny.vocabulary.encode(" dog")
    several = tiny.vocabulary.encode(" dogboat")
    assert len(several) > 1
    found = torch.from_numpy(token_embeddings(tiny, ["dog", "dogboat"]))
    torch.testing.assert_close(found, torch.stack([tiny.lm.W_E[dog], tiny.lm.W_E[several].mean(dim=0)]))
