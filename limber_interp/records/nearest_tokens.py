"""The vocabulary tokens nearest to each position of images' soft prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from limber_interp.records.base import Manifest, Record
from limber_interp.records.controls import Control, Target


@dataclass(frozen=True)
class ImageTokens(Record):
    """One image's nearest tokens.

    Attributes:
        image: path or URL as given.
        grid: (rows, columns) of the patches that the positions stand for, in reading order; None if they are no places.
        token_ids: the k nearest tokens of each position, nearest first.
        scores: theirs; larger is nearer (`euclidean`: minus the distance).
        norms: of the soft prompt's vectors.
        seen: the image as the encoder sees it; None where it was not kept.
    """

    image: str
    grid: tuple[int, int] | None
    token_ids: Int[np.ndarray, "pos k"]
    scores: Float[np.ndarray, "pos k"]
    norms: Float[np.ndarray, " pos"]
    controls: tuple[Control, ...] = ()
    targets: tuple[Target, ...] = ()
    seen: UInt8[np.ndarray, "height width 3"] | None = None

    @property
    def n_pos(self) -> int:
        return len(self.token_ids)

    def place(self, position: int) -> tuple[int, int] | None:
        """(row, column) of a position on the grid."""
        return None if self.grid is None else divmod(position, self.grid[1])

    def strongest(self, n: int) -> list[tuple[int, float, int]]:
        """The n tokens with the highest score at any position: (token id, that score, its position), best first."""
        best: dict[int, tuple[float, int]] = {}
        for position, (ids, scores) in enumerate(zip(self.token_ids.tolist(), self.scores.tolist(), strict=True)):
            for token, score in zip(ids, scores, strict=True):
                if token not in best or score > best[token][0]:
                    best[token] = (score, position)
        ranked = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))
        return [(token, score, position) for token, (score, position) in ranked[:n]]


@dataclass(frozen=True)
class NearestTokens(Record):
    """The k nearest tokens of each image position, beside their chance levels.

    Attributes:
        metric, matrix: how near is measured, and to the rows of which matrix.
        tokens: token id (as text, for JSON) -> its text, of every token in the record.
        token_norms: quantiles of the norms of the used rows of W_E, to hold `ImageTokens.norms` against.
    """

    metric: str
    matrix: str
    k: int
    images: tuple[ImageTokens, ...]
    tokens: Mapping[str, str]
    token_norms: Mapping[str, float]
    manifest: Manifest

    def text(self, token_id: int) -> str:
        """The text of a token in this record."""
        return self.tokens[str(token_id)]

    def check(self) -> None:
        for image in self.images:
            n_pos, k = image.token_ids.shape
            sizes = [len(target.ranks) for target in image.targets] + [c.scores.shape[1] for c in image.controls]
            if n_pos == 0 or k != self.k or k == 0 or any(size != n_pos for size in sizes):
                raise ValueError(f"{image.image}: tokens, targets and controls of other sizes than each other's")
            if not all(control.n_draws for control in image.controls):
                raise ValueError(f"{image.image}: a control without a draw")
            if unknown := {str(token) for token in image.token_ids.flat} - self.tokens.keys():
                raise ValueError(f"{image.image}: token {min(unknown)} has no text in it")

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "nearest_tokens",
            "metric": self.metric,
            "matrix": self.matrix,
            "k": self.k,
            "token_norms": dict(self.token_norms),
            "images": [self._image(image) for image in self.images],
            "manifest": self.manifest.as_dict(),
        }

    def _image(self, image: ImageTokens) -> dict[str, Any]:
        nearest = image.scores[:, 0]
        return {
            "image": image.image,
            "grid": None if image.grid is None else list(image.grid),
            "token_ids": image.token_ids.tolist(),
            "tokens": [[self.text(token) for token in ids] for ids in image.token_ids.tolist()],
            "scores": image.scores.tolist(),
            "norms": image.norms.tolist(),
            "targets": {target.word: target.as_dict() for target in image.targets},
            "controls": {control.name: control.as_dict(nearest) for control in image.controls},
        }
