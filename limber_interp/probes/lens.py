"""Lenses: what scores a hidden state against a vocabulary, read a block of positions at a time, so that the scores of
all never exist.

`EmbeddingLens` compares with the rows of a token matrix; `UnembeddingLens` gives the logits that the model would.
`read` keeps the k best tokens of any lens, and the ranks of watched ones.
"""

from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer

from limber_interp.errors import InputError
from limber_interp.models.vocabulary import Vocabulary
from limber_interp.text_rows import TextRows

Metric = Literal["cosine", "dot", "euclidean", "centred_cosine"]
METRICS: tuple[Metric, ...] = get_args(Metric)

# Scores in memory at a time (64 MiB): 333 positions of GPT-J's vocabulary. Larger blocks were no faster.
BLOCK = 2**24
CHUNK = 64  # scores of which the search for the largest ones sees the maximum first


@runtime_checkable
class Lens(Protocol):
    """Hidden states `(n, d_model)` in, scores `(n, n_used)` out.

    Attributes:
        n_used: how many things it scores: tokens of the vocabulary, or rows of a bank.
        tokens: which ones: in the order of their ids.
    """

    n_used: int
    tokens: TextRows

    def __call__(self, hidden: Float[Tensor, "n d_model"]) -> Float[Tensor, "n n_used"]:
        """Scores in float32 by which to rank, larger for nearer; their scale is the lens's own."""

    def pairs(self, hidden: Float[Tensor, "n d_model"], places: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The values to report, of few tokens each, named by their places among the scores."""


class EmbeddingLens:
    """Similarity of hidden states to the rows of a token matrix that are `used`, W_E or the transpose of W_U.

    - `cosine`: the angle alone. Soft prompts are often many times longer than token embeddings; only this metric and
      the centred one do not care.
    - `dot`: the logit that the row would give without LayerNorm and bias. Long rows win, for every hidden state.
    - `euclidean`: minus the distance, so that here too a larger score is nearer. For a hidden state much longer than
      every row the distances differ little and rank nearly as the dot product does, less half the row's squared norm.
    - `centred_cosine`: the cosine after the mean of the used rows is subtracted from both sides, rows and hidden states
      alike. Embeddings lie in a narrow cone around their mean (Ethayarajh 2019, arXiv 1909.00512), so that all cosines
      are high and rank by what every token shares; removing the mean removes that share (Mu & Viswanath 2018,
      arXiv 1702.01417, who then also remove the top directions). It is the vocabulary's mean on both sides, because a
      mean of prompts would make the result of one image depend on the others. It misleads where hidden states are far
      off that cone: what all soft prompts share then stays in, and the same few hub tokens win at every position.

    Computed in float32 whatever the matrix is stored in; a matrix in half precision is copied once, and so are used
    rows with gaps between them.
    """

    def __init__(
        self, matrix: Float[Tensor, "rows d_model"], metric: str = "cosine", used: TextRows | int | None = None
    ) -> None:
        """
        Args:
            used: ids of the rows to compare with; a number n for the first n, None for all.
        """
        if metric not in METRICS:
            raise InputError(f"metric {metric!r} is unknown; use one of {', '.join(METRICS)}")
        self.metric = metric
        self.tokens = TextRows.of(len(matrix) if used is None else used)
        self.rows = self.tokens.pick(matrix).detach().float()
        self.n_used = len(self.rows)
        self._centre = self.rows.mean(0) if metric == "centred_cosine" else None
        self._norms = torch.cat([self._centred(block).norm(dim=-1) for block in self.rows.split(4096)])
        if not (finite := self._norms.isfinite()).all():
            row = int(finite.int().argmin())
            raise InputError(f"token matrix: row {row} is not finite; check the language model's weights")

    def __call__(self, hidden: Float[Tensor, "n d_model"]) -> Float[Tensor, "n n_used"]:
        """Scores that rank as the metric does; only `pairs` gives its values.

        One matrix product, and then arithmetic on its result instead of on a scaled or centred copy of the matrix:
        what is the same for all rows, as the norm of the hidden state, is left out where it changes no order.
        """
        hidden = self._centred(hidden)
        scores = hidden @ self.rows.T
        match self.metric:
            case "cosine":
                scores.div_(_positive(self._norms))
            case "euclidean":  # |h - w|^2 = |h|^2 - 2 (h.w - |w|^2 / 2)
                scores.sub_(self._norms.square() / 2)
            case "centred_cosine":
                assert self._centre is not None
                scores.sub_((hidden @ self._centre)[:, None]).div_(_positive(self._norms))
        return scores

    def pairs(self, hidden: Float[Tensor, "n d_model"], places: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The metric between each hidden state and its own k rows, from its definition.

        Nothing cancels here, as it does in a distance that is computed through a matrix product. The cosine with a
        vector of length 0 is 0.
        """
        hidden = self._centred(hidden)

        def score(column: Tensor) -> Tensor:
            rows = self._centred(self.rows[column])
            match self.metric:
                case "dot":
                    return (hidden * rows).sum(-1)
                case "euclidean":
                    return -(hidden - rows).norm(dim=-1)
            return (hidden * rows).sum(-1) / _positive(hidden.norm(dim=-1) * rows.norm(dim=-1))

        return torch.stack([score(column) for column in places.unbind(-1)], dim=-1)

    def _centred(self, vectors: Tensor) -> Tensor:
        return vectors if self._centre is None else vectors - self._centre


class UnembeddingLens:
    """The model's own end, put to any hidden state: `ln_final`, then W_U and its bias, over the used rows.

    At the last layer these are the model's logits. Earlier layers were never trained to be read so: their directions
    may have other meanings or other scales (Belrose et al. 2023, arXiv 2303.08112, who train a translator per layer),
    so that a word that is not seen at a layer may be there all the same.

    The products are in float32 whatever the model is stored in; a matrix in half precision is copied once, and so are
    used rows with gaps between them.

    Args:
        used: ids of the rows to give logits of; a number n for the first n.

    Raises:
        InputError: the model's LayerNorms are folded into its weights, so that these are not the checkpoint's.
    """

    def __init__(self, lm: HookedTransformer, used: TextRows | int) -> None:
        check_unprocessed(lm)
        self.tokens = TextRows.of(used)
        self.n_used = len(self.tokens)
        self._ln_final = lm.ln_final
        self._rows = self.tokens.pick(lm.W_U.T).detach().float()
        self.bias = self.tokens.pick(lm.b_U).detach().float()

    def normalised(self, residual: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """`ln_final` of a residual, with the mean and variance of that residual itself; hooks on it take effect."""
        return self._ln_final(residual)

    def products(self, normalised: Float[Tensor, "n d_model"], out: Float[Tensor, "n n_used"]) -> None:
        """Write the logits of what `normalised` gave into `out`, without the bias.

        A result that is written over and over costs no fresh memory, and the bias is best added where a part of the
        result is in the processor's cache anyway.
        """
        torch.mm(normalised.float(), self._rows.T, out=out)

    def __call__(self, hidden: Float[Tensor, "n d_model"]) -> Float[Tensor, "n n_used"]:
        return torch.addmm(self.bias, self.normalised(hidden).float(), self._rows.T)

    def pairs(self, hidden: Float[Tensor, "n d_model"], places: Int[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The logits of each hidden state's own k tokens."""
        normalised = self.normalised(hidden).float()
        columns = ((normalised * self._rows[column]).sum(-1) + self.bias[column] for column in places.unbind(-1))
        return torch.stack(list(columns), dim=-1)


def check_unprocessed(lm: HookedTransformer) -> None:
    """Raise InputError if LayerNorms are folded into the weights: then norms and residuals are not the checkpoint's."""
    if lm.cfg.normalization_type != "LN":
        raise InputError("language model with folded LayerNorm: its norms are not the checkpoint's; load it raw")


class Reading(NamedTuple):
    """What `read` keeps.

    Attributes:
        ids: the k best tokens, best first; of tokens with the same score, the one with the lower id comes first.
        scores: their scores.
        ranks: of each watched token, 1 for the best: one more than the number of tokens with a higher score.
    """

    ids: Int[Tensor, "n k"]
    scores: Float[Tensor, "n k"]
    ranks: Int[Tensor, "n watched"]


@torch.no_grad()
def read(
    lens: Lens, hidden: Float[Tensor, "n d_model"], k: int, watched: Int[Tensor, " watched"] | None = None
) -> Reading:
    """The k best tokens of each hidden state, and the ranks of the watched ones, in blocks of positions.

    Raises:
        InputError: k is not between 1 and the number of used tokens, a watched token is none of these, or scores are
            not finite.
    """
    check_k(k, lens)
    followed = None if watched is None else lens.tokens.places(watched)
    blocks = []
    for block in hidden.float().split(max(1, BLOCK // lens.n_used)):
        scores = lens(block)
        places = best(scores, k).sort(dim=-1).values
        exact, order = lens.pairs(block, places).sort(dim=-1, descending=True, stable=True)
        if not exact.isfinite().all():
            raise InputError("a lens's scores are not finite; check what it was given and the language model's weights")
        blocks.append(Reading(lens.tokens.at(places.gather(-1, order)), exact, _ranks(scores, followed)))
    return Reading(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def check_k(k: int, lens: Lens | Vocabulary) -> None:
    """Raise InputError if there are not k tokens to keep."""
    if not 1 <= k <= lens.n_used:
        raise InputError(f"k = {k}: choose 1 to {lens.n_used}, the number of tokens in the vocabulary")


def best(scores: Float[Tensor, "n n_used"], k: int) -> Int[Tensor, "n k"]:
    """Places of the k largest of each row; of those that tie for the last one, the lowest.

    `topk` takes any of them, not the same on every device. One place more shows whether there was a tie.
    """
    values, ids = _largest(scores, min(k + 1, scores.shape[-1]))
    if values.shape[-1] > k:
        tied = (values[:, k - 1] == values[:, k]).nonzero().squeeze(-1)
        for row in tied.tolist():  # one at a time: sorting is slow, needs memory, and is rarely needed
            ids[row, :k] = scores[row].sort(descending=True, stable=True).indices[:k]
    return ids[:, :k]


def _largest(scores: Float[Tensor, "n n_used"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """`topk` in two stages: the k chunks of each row that have the largest maxima hold its k largest scores.

    For if one of these lay in another chunk, the maxima of k chunks would be at least as large as it. Where scores tie
    for the last place, other ids of the same scores may be taken than `topk` takes. The maxima are found at the speed
    of the memory, and `topk` sees few numbers.
    """
    n_used = scores.shape[-1]
    n_whole = n_used // CHUNK
    if n_whole < 4 * k:  # too few to leave much out
        return scores.topk(k, dim=-1)
    maxima = scores[:, : n_whole * CHUNK].unflatten(-1, (n_whole, CHUNK)).amax(dim=-1)
    chunks = maxima.topk(k, dim=-1).indices
    ids = (chunks[..., None] * CHUNK + torch.arange(CHUNK, device=scores.device)).flatten(1)
    rest = torch.arange(n_whole * CHUNK, n_used, device=scores.device).expand(len(scores), -1)
    ids = torch.cat([ids, rest], dim=-1)
    values, places = scores.gather(-1, ids).topk(k, dim=-1)
    return values, ids.gather(-1, places)


def _ranks(scores: Float[Tensor, "n n_used"], watched: Int[Tensor, " watched"] | None) -> Int[Tensor, "n watched"]:
    if watched is None or len(watched) == 0:
        return torch.empty(len(scores), 0, dtype=torch.int64, device=scores.device)
    if scores.device.type == "cpu":  # numpy sorts several times faster than torch does there
        ascending = torch.from_numpy(np.sort(scores.numpy(), axis=-1))
    else:
        ascending = scores.sort(dim=-1).values
    not_higher = torch.searchsorted(ascending, scores[:, watched].contiguous(), right=True)
    return 1 + scores.shape[-1] - not_higher


def _positive(norms: Tensor) -> Tensor:
    return norms.clamp_min(torch.finfo(torch.float32).tiny)
