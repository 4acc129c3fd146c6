"""The projection without gradients: a regression of caption embeddings on encodings, solved in closed form."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limber_interp.errors import InputError, check_at_least_one
from limber_interp.models.limber import Limber

Method: TypeAlias = Literal["least-squares", "ridge", "procrustes"]

RANK = 1e-10  # of the largest eigenvalue: directions below it are rounding, and least squares leaves them out
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # ridge's λ, as shares of the mean eigenvalue


@runtime_checkable
class Blocks(Protocol):
    """An array of encodings, of which slices of images alone are taken: it may lie on the disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, images: slice, /) -> np.ndarray: ...


class Fit(NamedTuple):
    """`weight` and `bias` of the projection's layer, in float32.

    `strength` is ridge's λ as a share of the encodings' mean eigenvalue (0 for the others). `r2` is the share of the
    squared distance of the caption vectors from their mean that a fit to nine tenths of the images explains in the
    others, before `match_norm`: with several positions it is low even where captions are good.
    """

    weight: Float[Tensor, "d_out d_encoder"]
    bias: Float[Tensor, " d_out"]
    strength: float
    r2: float


def fit(
    model: Limber,
    captions: Sequence[Sequence[str]],
    encodings: Blocks,
    method: Method,
    seed: int = 0,
    match_norm: bool = True,
    block_size: int = 256,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Fit:
    """Map encodings (image, image_pos, d_encoder) into the language model's embedding space, W x + b.

    The vector x at every image position is asked for the same y: the mean of the `W_E` rows of the tokens in the
    image's captions, each token counted once and weighted by log(images / images whose captions hold it), so that words
    of every caption count for nothing. Of a pooled encoder, each of the `n_tokens` rows is asked for that y, so they
    are all alike. With x and y centred,

    - `least-squares`: W minimises Σ |W x − y|²; of several, the smallest.
    - `ridge`: the same with + λ |W|². λ is that of `STRENGTHS` times the mean eigenvalue of the encodings' covariance
      which predicts best for a tenth of the images, drawn by `seed`; then all are fitted with it.
    - `procrustes`: W = s Q, where Q is (semi-)orthogonal and maximises Σ y·Q x: Q = V Uᵀ with U diag(σ) Vᵀ the singular
      value decomposition of Σ x yᵀ (Schönemann 1966), and s = Σ σ / Σ |Q x|² minimises Σ |s Q x − y|². In a space as
      wide as the encoder's, or wider, |Q x| = |x|, and no other Q does better. One factor for all of x or all of y
      changes nothing in Q; the coordinates are not scaled one by one.

    After Paischer et al., "Linear Alignment of Vision-language Models for Image Captioning" (arXiv 2307.05591; SITTA in
    its first version), min over W of Σ |W x − y|², with and without WᵀW = I. It differs: there a pair is a pooled image
    and *one* token of its caption, stop words left out, which has the same least-squares solution as their mean if all
    captions are equally long; and what is mapped retrieves tokens or captions that are given to the language model *as
    text*. Here it is itself the soft prompt, so its length matters, and means and regression both shorten it:
    `match_norm` multiplies W once more, so that the prompts lie about their mean as far as single tokens' rows do.

    Cost: one pass over the encodings, in blocks; sums of x xᵀ and x yᵀ in float64 are kept, never all vectors, and then
    an eigen- or singular value decomposition (ridge: one for each strength).

    It misleads: every patch is asked to say the whole caption, so where a thing is, and how often, is lost (a patch of
    grass far from the dog is asked for the dog); a background's word counts like a noun as rare; nothing asks whether
    the language model understands a mean of words; and `procrustes` fills directions without a counterpart arbitrarily.

    Raises:
        InputError: as many encodings as dimensions or fewer, for `least-squares`, which then fits anything; captions
            that hold the same tokens for all images; encodings that are all the same; these or embeddings that are not
            finite.
    """
    check_at_least_one(block_size=block_size)
    if len(captions) != encodings.shape[0]:
        raise InputError(f"closed form: found {len(captions)} images with captions and {encodings.shape[0]} encodings")
    if of_one := [i for i, told in enumerate(captions) if isinstance(told, str)]:
        raise InputError(f"closed form: image {of_one[0]} has one text for its captions, expected a list of them")
    count, d_encoder = encodings.shape[0] * encodings.shape[1], encodings.shape[2]
    if method == "least-squares" and count <= d_encoder:
        raise InputError(
            f"least-squares: found {count} vectors of {d_encoder} dimensions, which any captions would fit; "
            "give more images, or take ridge"
        )
    targets = _Targets(model, captions)
    images = np.flatnonzero(targets.told)
    if len(images) < 2:
        raise InputError("closed form: fewer than two images have words that others have not; give more captions")
    tested = np.zeros(encodings.shape[0], dtype=bool)
    tested[np.random.default_rng(seed).permutation(images)[: max(1, len(images) // 10)]] = True
    some, others = (Moments.none(d_encoder, model.lm.cfg.d_model) for _ in range(2))
    for start in progress(range(0, encodings.shape[0], block_size)):
        block = slice(start, start + block_size)
        x, y = torch.from_numpy(encodings[block].astype(np.float64)), targets(block)
        for moments, chosen in ((some, targets.told[block] & ~tested[block]), (others, tested[block])):
            moments.add(x[chosen], y[chosen])
    everything = some + others
    if not everything.xx.isfinite().all():
        raise InputError("closed form: an encoding is NaN or infinite; check the encoder's weights")
    if not everything.xy.isfinite().all():
        raise InputError("closed form: a token's embedding is NaN or infinite; check the language model's weights")
    if not everything.cov_xx.trace() > 0:
        raise InputError("closed form: all encodings are the same; give images that differ")

    strengths = STRENGTHS if method == "ridge" else (0.0,)
    errors = [squared_error(*solve(some, method, strength), others) for strength in strengths]
    best = int(np.argmin(errors))
    score = 1 - errors[best] / squared_error(torch.zeros_like(some.xy.T), some.mean_y, others)
    weight, bias = solve(everything, method, strengths[best])
    if match_norm:
        spread = (weight @ everything.cov_xx @ weight.T).trace()
        if not spread > 0:
            raise InputError("closed form: the captions do not vary with the encodings; give more images")
        weight = weight * (targets.spread(everything.mean_y) / spread).sqrt()
        bias = everything.mean_y - weight @ everything.mean_x
    n_tokens = model.projection.n_tokens
    return Fit(weight.float().repeat(n_tokens, 1), bias.float().repeat(n_tokens), strengths[best], score)


@dataclass
class Moments:
    """Sums over pairs (x, y), in float64: all that the closed forms need to know of them."""

    count: int
    x: Float[Tensor, " d_in"]
    y: Float[Tensor, " d_out"]
    xx: Float[Tensor, "d_in d_in"]
    xy: Float[Tensor, "d_in d_out"]
    yy: Float[Tensor, ""]

    @classmethod
    def none(cls, d_in: int, d_out: int) -> "Moments":
        shapes = ((d_in,), (d_out,), (d_in, d_in), (d_in, d_out), ())
        return cls(0, *(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    def add(self, x: Float[Tensor, "image image_pos d_in"], y: Float[Tensor, "image d_out"]) -> None:
        """Add the pairs of every position's x with its image's y."""
        n_pos, x, y = x.shape[1], x.double(), y.double()
        self.count += len(x) * n_pos
        self.x += x.sum((0, 1))
        self.y += n_pos * y.sum(0)
        self.xx += x.flatten(0, 1).T @ x.flatten(0, 1)
        self.xy += x.sum(1).T @ y
        self.yy += n_pos * y.square().sum()

    def __add__(self, other: "Moments") -> "Moments":
        return replace(self, **{name: value + getattr(other, name) for name, value in vars(self).items()})

    @property
    def mean_x(self) -> Float[Tensor, " d_in"]:
        return self.x / self.count

    @property
    def mean_y(self) -> Float[Tensor, " d_out"]:
        return self.y / self.count

    @property
    def cov_xx(self) -> Float[Tensor, "d_in d_in"]:
        return self.xx / self.count - torch.outer(self.mean_x, self.mean_x)

    @property
    def cov_xy(self) -> Float[Tensor, "d_in d_out"]:
        return self.xy / self.count - torch.outer(self.mean_x, self.mean_y)


def solve(
    moments: Moments, method: Method, strength: float = 0.0
) -> tuple[Float[Tensor, "d_out d_in"], Float[Tensor, " d_out"]]:
    """Weight and bias by `method`, see `fit`; `strength` is ridge's, as a share of the mean eigenvalue."""
    cov_xx, cov_xy = moments.cov_xx, moments.cov_xy
    if method == "procrustes":
        u, sigma, vt = torch.linalg.svd(cov_xy, full_matrices=False)
        q = (u @ vt).T
        weight = sigma.sum() / (q @ cov_xx @ q.T).trace() * q
    else:
        eigenvalues, eigenvectors = torch.linalg.eigh(cov_xx)
        # A mean far from 0 takes digits from the covariance: what is left of them is no direction to divide by.
        kept = eigenvalues > RANK * eigenvalues.max()
        inverse = torch.where(kept, 1 / (eigenvalues + strength * eigenvalues.mean()), 0.0)
        weight = ((eigenvectors * inverse) @ (eigenvectors.T @ cov_xy)).T
    return weight, moments.mean_y - weight @ moments.mean_x


def squared_error(weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"], moments: Moments) -> float:
    """Mean |W x + b − y|², from the sums alone."""
    variance = moments.yy / moments.count - moments.mean_y.square().sum()
    explained = 2 * (weight * moments.cov_xy.T).sum() - ((weight @ moments.cov_xx) * weight).sum()
    offset = weight @ moments.mean_x + bias - moments.mean_y
    return float(variance - explained + offset.square().sum())


class _Targets:
    """The caption vector of each image, and how far single tokens' rows lie from a point.

    Attributes:
        told: whether an image has a vector (image,): a caption of words that all others hold too tells nothing.
    """

    def __init__(self, model: Limber, captions: Sequence[Sequence[str]]) -> None:
        encode = model.vocabulary.encode
        self.ids = [np.unique([id for caption in told for id in encode(caption)]) for told in captions]
        self.rows = model.lm.W_E[: model.vocabulary.rows.stop].detach().cpu().double()
        images_with = np.bincount(np.concatenate(self.ids), minlength=len(self.rows))
        self.idf = np.log(len(captions) / np.maximum(images_with, 1))
        self.told = np.array([self.idf[ids].sum() > 0 for ids in self.ids])
        self.asked = np.zeros(len(self.rows))  # each token's share of the vectors so far

    def __call__(self, block: slice) -> Float[Tensor, "image d_model"]:
        """Their vectors; 0 where an image has none."""
        shares = np.zeros((len(self.told[block]), len(self.rows)))
        for row, ids, told in zip(shares, self.ids[block], self.told[block], strict=True):
            if told:
                row[ids] = self.idf[ids] / self.idf[ids].sum()
        self.asked += shares.sum(0)
        return torch.from_numpy(shares) @ self.rows

    def spread(self, centre: Float[Tensor, " d_model"]) -> Float[Tensor, ""]:
        """Mean squared distance of the tokens' rows from `centre`, each by its share of the vectors so far."""
        weights = torch.from_numpy(self.asked / self.asked.sum())
        return (weights * (self.rows - centre).square().sum(1)).sum()
