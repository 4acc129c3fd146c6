import numpy as np
import torch
from torch import nn

from limber_interp.training.whitening import NORM, Whitened, statistics


def _encodings() -> np.ndarray:
    """Correlated, off centre, of very different scales; with a direction in which nothing ever varies."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(500, 3, 4)) * [5.0, 1.0, 1.0, 0.0] @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    return (mixed + np.array([3, 0, -2, 1])).astype(np.float16)


def _vectors() -> torch.Tensor:
    return torch.from_numpy(_encodings()).float().flatten(0, 1)


def test_whitened_inputs_are_centred_uncorrelated_and_of_one_norm() -> None:
    encodings = np.random.default_rng(0).normal(size=(4000, 2, 3)).astype(np.float16) * [2, 1, 0.5] + 1
    mean, whitener = statistics(torch.from_numpy(encodings).float().flatten(0, 1))
    x = (torch.from_numpy(encodings).float().flatten(0, 1) - mean) @ whitener / NORM
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    # Up to the floor, 1e-3 of the mean eigenvalue (1.75), which takes 0.7 % off the smallest (0.25).
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(3) / 3, atol=3e-3, rtol=0)
    torch.testing.assert_close(x.pow(2).sum(1).mean(), torch.tensor(1.0), atol=6e-3, rtol=0)


def test_a_direction_without_variance_is_not_blown_up() -> None:
    mean, whitener = statistics(_vectors())
    x = (torch.from_numpy(_encodings()).float() - mean) @ whitener
    assert x.isfinite().all()
    assert x.abs().max() < 5 * NORM


def test_the_folded_layer_does_the_same_to_raw_encodings() -> None:
    torch.manual_seed(0)
    layer = Whitened(nn.Linear(4, 7), *statistics(_vectors()))
    raw = torch.from_numpy(_encodings()).float()
    weight, bias = layer.folded()
    torch.testing.assert_close(raw @ weight.T + bias, layer(raw), atol=1e-4, rtol=1e-4)


def test_it_starts_as_the_layer_that_it_is_given() -> None:
    torch.manual_seed(0)
    given, raw = nn.Linear(4, 7), torch.from_numpy(_encodings()).float()
    layer = Whitened(nn.Linear(4, 7), *statistics(_vectors()))
    layer.start_from(given.weight, given.bias)
    torch.testing.assert_close(layer(raw), given(raw), atol=1e-3, rtol=1e-4)
