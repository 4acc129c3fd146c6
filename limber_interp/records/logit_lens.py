"""What a language model would say at each layer, at positions of images' prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from limber_interp.records.base import Manifest, Record
from limber_interp.records.controls import least_p

DECIMALS = 5  # of nats and logits in JSON: float32 knows no more of them, and a file is a third as long


@dataclass(frozen=True)
class LayerReading(Record):
    """One prompt, read at some positions at each layer. Natural logarithms throughout.

    Attributes:
        token_ids: the k most probable tokens, most probable first.
        logprobs: theirs.
        entropy: of the distribution over the used tokens, in nats.
        kl: KL(last layer || this layer) in nats: what is lost when this layer's distribution stands for the last's.
        agrees: whether the most probable token is the last layer's.
    """

    token_ids: Int[np.ndarray, "layers pos k"]
    logprobs: Float[np.ndarray, "layers pos k"]
    entropy: Float[np.ndarray, "layers pos"]
    kl: Float[np.ndarray, "layers pos"]
    agrees: Bool[np.ndarray, "layers pos"]


@dataclass(frozen=True)
class LensControl(Record):
    """The lens of prompts in which the image's soft prompt is replaced by one that says nothing about the image.

    Attributes:
        name: a control of `probes.controls`.
        description: how the soft prompts were made, as a caption has to say it.
        seed: of what was drawn.
        reading: the first draw, whole.
        top_logprobs: of the most probable token. A draw is one whole soft prompt.
        best_ranks, best_logprobs: of each target, in the order of `ImageLens.targets`, at the position best for it.
        sources: the images whose prompts were taken, one per draw, where they were images.
        pool: how many images they were taken from, by where these come from: `given`, `others` (named as such),
            `bundled_scenes`.
    """

    name: str
    description: str
    seed: int
    reading: LayerReading
    top_logprobs: Float[np.ndarray, "draws layers pos"]
    best_ranks: Int[np.ndarray, "draws layers targets"]
    best_logprobs: Float[np.ndarray, "draws layers targets"]
    sources: tuple[str, ...] = ()
    pool: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_draws(self) -> int:
        return len(self.top_logprobs)

    def hits(self, target: int, k: int) -> Float[np.ndarray, " layers"]:
        """Share of the draws in which the target is among the k most probable tokens at some position."""
        return (self.best_ranks[:, :, target] <= k).mean(axis=0)

    def band(self, target: int) -> dict[str, Float[np.ndarray, " layers"]]:
        """The 5 %, 50 % and 95 % quantiles over draws of the target's best rank."""
        ranks = self.best_ranks[:, :, target]
        return {name: np.quantile(ranks, q, axis=0) for name, q in (("q05", 0.05), ("median", 0.5), ("q95", 0.95))}

    def as_dict(self, words: tuple[str, ...] = (), k: int = 0) -> dict[str, Any]:
        """The summary, with the first draw whole, and of the given targets the best rank and logprob over positions."""
        summary: dict[str, Any] = {"description": self.description, "seed": self.seed, "n_draws": self.n_draws}
        if self.sources:
            summary["sources"] = list(self.sources)
        if self.pool:
            summary["pool"] = dict(self.pool)
        summary["top1_logprob"] = {
            name: _rounded(np.quantile(self.top_logprobs, q, axis=(0, 2)))
            for name, q in (("median", 0.5), ("q95", 0.95))
        }
        summary["targets"] = {
            word: {
                "best_rank": {name: ranks.tolist() for name, ranks in self.band(i).items()},
                "best_logprob": _rounded(np.median(self.best_logprobs[:, :, i], axis=0)),
                "hit_at_k": self.hits(i, k).tolist(),
            }
            for i, word in enumerate(words)
        }
        summary["token_ids"] = self.reading.token_ids.tolist()
        summary["logprobs"] = _rounded(self.reading.logprobs)
        return summary


@dataclass(frozen=True)
class LensTarget(Record):
    """How probable one token is at each layer and position of one image's prompt.

    Attributes:
        ranks: 1 for the most probable token of all.
        p_words: at each layer the permutation p-value of the highest log-probability over positions, against that of
            `n_words` other words at this image. One of many layers is small by chance: choose the layer beforehand, or
            multiply by their number.
        p_images: the same against this token's at `n_images` other images; None where there are none.
    """

    word: str
    token: str
    token_id: int
    ranks: Int[np.ndarray, "layers pos"]
    logits: Float[np.ndarray, "layers pos"]
    logprobs: Float[np.ndarray, "layers pos"]
    p_words: Float[np.ndarray, " layers"] | None
    n_words: int
    p_images: Float[np.ndarray, " layers"] | None = None
    n_images: int = 0

    def check(self) -> None:
        """Raise ValueError for fewer than no others."""
        if min(self.n_words, self.n_images) < 0:
            raise ValueError(f"target {self.word!r}: held against {self.n_words} words and {self.n_images} images")

    @property
    def best_ranks(self) -> Int[np.ndarray, " layers"]:
        """At each layer, over the positions."""
        return self.ranks.min(axis=1)

    @property
    def best_logprobs(self) -> Float[np.ndarray, " layers"]:
        """At each layer, over the positions."""
        return self.logprobs.max(axis=1)

    def as_dict(self) -> dict[str, Any]:
        return {
            "token": self.token,
            "token_id": self.token_id,
            "rank": self.ranks.tolist(),
            "logit": _rounded(self.logits),
            "logprob": _rounded(self.logprobs),
            "p_words": {"p": None if self.p_words is None else self.p_words.tolist(), "n": self.n_words},
            "p_images": {"p": None if self.p_images is None else self.p_images.tolist(), "n": self.n_images},
            "least_p": {"words": least_p(self.n_words), "images": least_p(self.n_images)},
        }


@dataclass(frozen=True)
class ImageLens(Record):
    """One image's prompt at each layer.

    Attributes:
        image: path or URL as given.
        grid: (rows, columns) of the image's patches; None if its positions are no places.
        image_start: position of the image's first vector in the prompt.
        positions: those that were read, counted from the start of the prompt.
        inputs: the text of the token at each of these positions, "" at the image's own.
        seen: the image as the encoder sees it; None where it was not kept.
    """

    image: str
    grid: tuple[int, int] | None
    image_start: int
    positions: Int[np.ndarray, " pos"]
    inputs: tuple[str, ...]
    reading: LayerReading
    targets: tuple[LensTarget, ...] = ()
    controls: tuple[LensControl, ...] = ()
    seen: UInt8[np.ndarray, "height width 3"] | None = None

    @property
    def n_pos(self) -> int:
        return len(self.positions)

    def place(self, i: int) -> tuple[int, int] | None:
        """(row, column) of the i-th position that was read; None if it is no patch."""
        patch = int(self.positions[i]) - self.image_start
        if self.grid is None or self.inputs[i] or not 0 <= patch < self.grid[0] * self.grid[1]:
            return None
        return divmod(patch, self.grid[1])

    @property
    def covers_patches(self) -> bool:
        """Whether every patch of the image was read, and nothing before the first of them."""
        if self.grid is None:
            return False
        rows, cols = self.grid
        first = [self.place(i) for i in range(min(self.n_pos, rows * cols))]
        return first == [(row, col) for row in range(rows) for col in range(cols)]

    def label(self, i: int) -> str:
        """What stands at the i-th position that was read, as a table has to say it: a patch, a token or a number."""
        if self.inputs[i]:
            return self.inputs[i]
        place = self.place(i)
        return str(int(self.positions[i])) if place is None else "{},{}".format(*place)


@dataclass(frozen=True)
class LogitLens(Record):
    """What the language model would say at each layer, beside its chance level.

    Attributes:
        layers: 0 for the input of the first block, l for the output of the l-th.
        prompt: the text after each image; None where whole prompts were given.
        tokens: token id (as text, for JSON) -> its text, of every token in the record.
    """

    k: int
    layers: tuple[int, ...]
    prompt: str | None
    images: tuple[ImageLens, ...]
    tokens: Mapping[str, str]
    manifest: Manifest

    def text(self, token_id: int) -> str:
        """The text of a token in this record."""
        return self.tokens[str(token_id)]

    def check(self) -> None:
        for image in self.images:
            shape = image.reading.token_ids.shape
            if shape != (len(self.layers), image.n_pos, self.k) or len(image.inputs) != image.n_pos or 0 in shape:
                raise ValueError(f"{image.image}: a reading of shape {shape}, beside other layers, positions or k")
            if any(target.ranks.shape != shape[:2] for target in image.targets):
                raise ValueError(f"{image.image}: a target at other layers or positions")
            for control in image.controls:
                ranks = control.best_ranks.shape
                if control.reading.token_ids.shape[0] != shape[0] or ranks[1:] != (shape[0], len(image.targets)):
                    raise ValueError(f"{image.image}: control {control.name!r} at other layers, or of other targets")
                if 0 in control.top_logprobs.shape:
                    raise ValueError(f"{image.image}: control {control.name!r} without a draw")
        found = {str(token) for reading in self.readings() for token in np.unique(reading.token_ids)}
        if unknown := found - self.tokens.keys():
            raise ValueError(f"token {min(unknown)} has no text in it")

    def as_dict(self) -> dict[str, Any]:
        return {
            "command": "logit_lens",
            "k": self.k,
            "layers": list(self.layers),
            "prompt": self.prompt,
            "images": [self._image(image) for image in self.images],
            "manifest": self.manifest.as_dict(),
        }

    def readings(self) -> Iterator[LayerReading]:
        """All readings, the controls' too."""
        for image in self.images:
            yield image.reading
            yield from (control.reading for control in image.controls)

    def _image(self, image: ImageLens) -> dict[str, Any]:
        words = tuple(target.word for target in image.targets)
        token_ids = image.reading.token_ids.tolist()
        return {
            "image": image.image,
            "grid": None if image.grid is None else list(image.grid),
            "positions": image.positions.tolist(),
            "token_ids": token_ids,
            "tokens": [[[self.text(token) for token in ids] for ids in layer] for layer in token_ids],
            "logprobs": _rounded(image.reading.logprobs),
            "entropy": _rounded(image.reading.entropy),
            "kl": _rounded(image.reading.kl),
            "agrees": image.reading.agrees.tolist(),
            "targets": {target.word: target.as_dict() for target in image.targets},
            "controls": {control.name: control.as_dict(words, self.k) for control in image.controls},
        }


def _rounded(values: np.ndarray) -> list:
    return np.round(values.astype(np.float64), DECIMALS).tolist()
