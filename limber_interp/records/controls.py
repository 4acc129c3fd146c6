"""Chance levels: what a probe says where there is nothing to find, and how a target compares to other words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from limber_interp.records.base import Record


@dataclass(frozen=True)
class Control(Record):
    """The best score at each position of soft prompts that say nothing about the image.

    Attributes:
        name: a control of `probes.controls`.
        description: how the prompts were made, as a caption has to say it.
        seed: of what was drawn.
        scores: of the nearest token, per draw and position. A draw is one whole soft prompt.
        hits: target -> share of the draws in which it was among the k nearest at some position; of `other_images` the
            share of all the others, of which `scores` may hold a random part only (`Target.n_images` counts them).
        sources: the images whose prompts were taken, one per draw, where they were images.
        pool: how many images they were taken from, by where these come from: `given`, `others` (named as such),
            `bundled_scenes`.
    """

    name: str
    description: str
    seed: int
    scores: Float[np.ndarray, "draws pos"]
    hits: Mapping[str, float] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    pool: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_draws(self) -> int:
        return len(self.scores)

    @property
    def median(self) -> float:
        return float(np.median(self.scores))

    @property
    def q95(self) -> float:
        """The score that 5 % of all positions of all draws exceed."""
        return float(np.quantile(self.scores, 0.95))

    def share_above(self, scores: Float[np.ndarray, " pos"]) -> float:
        """Share of the given positions whose score exceeds `q95`; about 0.05 where there is nothing to find."""
        return float((scores > self.q95).mean())

    def as_dict(self, scores: Float[np.ndarray, " pos"] | None = None) -> dict[str, Any]:
        """The summary; with the real `scores` of the nearest token, also the share of them above `q95`."""
        summary = {
            "description": self.description,
            "seed": self.seed,
            "n_draws": self.n_draws,
            "median": self.median,
            "q95": self.q95,
        }
        if scores is not None:
            summary["share_above_q95"] = self.share_above(scores)
        if self.hits:
            summary["hit_at_k"] = dict(self.hits)
        if self.sources:
            summary["sources"] = list(self.sources)
        if self.pool:
            summary["pool"] = dict(self.pool)
        return summary


def least_p(n: int) -> float | None:
    """The smallest permutation p-value that `n` others allow: one in n + 1, whatever the target does."""
    return 1 / (n + 1) if n else None


def least_p_told(n_words: int, n_images: int) -> str:
    """The smallest p-values that the numbers of others allow, as a caption has to say them; "" where there are none."""
    counts = ((n_words, "words"), (n_images, "images"))
    parts = [f"{1 / (n + 1):.3g} against {n} {others}" for n, others in counts if n]
    return f"the smallest p-value that there can be: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True)
class Target(Record):
    """How near one word is to the positions of one image.

    Attributes:
        ranks: at each position, 1 for the nearest token of all.
        p_words: permutation p-value of the best rank, against the best ranks of `n_words` other words at this image.
        p_images: the same against this word's best ranks at `n_images` other images; None where there are none.
    """

    word: str
    token: str
    token_id: int
    ranks: Int[np.ndarray, " pos"]
    p_words: float | None
    n_words: int
    p_images: float | None
    n_images: int

    def check(self) -> None:
        """Raise ValueError for fewer than no others."""
        if min(self.n_words, self.n_images) < 0:
            raise ValueError(f"target {self.word!r}: held against {self.n_words} words and {self.n_images} images")

    @property
    def best_rank(self) -> int:
        return int(self.ranks.min())

    @property
    def best_position(self) -> int:
        """The first of the positions with the best rank."""
        return int(self.ranks.argmin())

    def as_dict(self) -> dict[str, Any]:
        values = super().as_dict()
        return {
            "token": self.token,
            "token_id": self.token_id,
            "rank": values["ranks"],
            "best_rank": self.best_rank,
            "best_position": self.best_position,
            "p_words": {"p": self.p_words, "n": self.n_words},
            "p_images": {"p": self.p_images, "n": self.n_images},
            "least_p": {"words": least_p(self.n_words), "images": least_p(self.n_images)},
        }
