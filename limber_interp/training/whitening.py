"""Whitening of encodings: a change of coordinates before the one linear layer, folded into it when it is saved."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Root mean squared norm of a whitened vector. With torch's initial weights a soft prompt then starts about as long as
# the embeddings of the embedded model's words; 1 and 12 learnt more slowly (experiments/LOG.md).
NORM = 4.0
FLOOR = 1e-3  # of the mean eigenvalue: directions below it are noise, and are not blown up to the others' size


class Whitened(nn.Module):
    """A linear layer that sees its inputs with mean 0, uncorrelated, and of root mean squared norm `NORM`.

    Adam moves each weight at one speed, so on raw features, whose variance lies in a few directions, it learns these
    first and the others hardly at all. The composition is still one linear layer, which `folded` returns.

    Args:
        linear: the layer to train, on whitened inputs.
        mean, whitener: see `statistics`.
    """

    def __init__(
        self, linear: nn.Linear, mean: Float[Tensor, " d_encoder"], whitener: Float[Tensor, "d_encoder d_encoder"]
    ) -> None:
        super().__init__()
        self.linear = linear
        self.mean: Tensor
        self.whitener: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("whitener", whitener)

    def forward(self, encoding: Float[Tensor, "*batch d_encoder"]) -> Float[Tensor, "*batch d_out"]:
        return self.linear((encoding - self.mean) @ self.whitener)

    @torch.no_grad()
    def start_from(self, weight: Float[Tensor, "d_out d_encoder"], bias: Float[Tensor, " d_out"]) -> None:
        """Become the function of one layer on raw encodings: `folded` then returns that weight and bias."""
        self.linear.bias.copy_(bias + weight @ self.mean)
        inverse = torch.linalg.inv(self.whitener.double())  # the floor of its eigenvalues keeps it well conditioned
        self.linear.weight.copy_((weight.double() @ inverse.T).to(weight.dtype))

    @torch.no_grad()
    def folded(self) -> tuple[Float[Tensor, "d_out d_encoder"], Float[Tensor, " d_out"]]:
        """Weight and bias of the one layer that does the same to raw encodings."""
        weight = self.linear.weight @ self.whitener.T
        return weight, self.linear.bias - weight @ self.mean


def statistics(
    vectors: Float[Tensor, "vectors d_encoder"],
) -> tuple[Float[Tensor, " d_encoder"], Float[Tensor, "d_encoder d_encoder"]]:
    """Mean and symmetric (ZCA) whitening matrix of a sample of an encoder's vectors.

    The matrix is `NORM` Σ^(-1/2) / √d_encoder with the eigenvalues of Σ raised by `FLOOR` times their mean, in float64.
    """
    mean = vectors.mean(0)
    centred = vectors - mean
    covariance = (centred.T @ centred / len(vectors)).double()
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    raised = eigenvalues.clamp(min=0) + FLOOR * eigenvalues.mean()
    whitener = NORM * eigenvectors @ torch.diag(raised.rsqrt()) @ eigenvectors.T / len(raised) ** 0.5
    return mean, whitener.float()
