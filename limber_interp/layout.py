"""Which positions of a prompt are image, with which grid, and which are text. The only place that knows.

A position is an index into the `pos` axis of the residual stream, left padding included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from limber_interp.arguments import Numbers, integer, plain
from limber_interp.errors import InputError

# What `Layout.select` takes: image | text | last | all, or places and (row, column) patches
Positions: TypeAlias = str | int | Sequence[Any] | Numbers


@dataclass(frozen=True)
class Segment:
    """A run of positions `[start, stop)` that came from one image or one piece of text.

    Attributes:
        grid: (rows, columns) of an image whose positions are patches in reading order; None for text, and for an image
            whose positions are no places in it (a pooled encoder).
        source: the image's path or URL as given, or the text.
    """

    kind: Literal["image", "text"]
    start: int
    stop: int
    grid: tuple[int, int] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"segment from {self.start} to {self.stop}")
        if self.grid is not None and (self.kind == "text" or self.grid[0] * self.grid[1] != len(self)):
            raise ValueError(f"a grid of {self.grid} over the {len(self)} positions of {self.kind} {self.source!r}")

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def positions(self) -> range:
        return range(self.start, self.stop)


@dataclass(frozen=True)
class Layout:
    """The segments of one prompt, in order and without gaps, after `n_padding` positions of left padding."""

    segments: tuple[Segment, ...]
    n_padding: int = 0

    def __post_init__(self) -> None:
        position = self.n_padding
        for segment in self.segments:
            if segment.start != position:
                raise ValueError(f"{segment} should start at {position}")
            position = segment.stop

    @classmethod
    def of(cls, parts: Sequence[tuple[Literal["image", "text"], int, tuple[int, int] | None, str]]) -> "Layout":
        """Lay (kind, number of positions, grid, source) one after the other, without padding."""
        segments, start = [], 0
        for kind, length, grid, source in parts:
            segments.append(Segment(kind, start, start + length, grid, source))
            start += length
        return cls(tuple(segments))

    @property
    def n_pos(self) -> int:
        """Length of the `pos` axis, left padding included."""
        return self.segments[-1].stop if self.segments else self.n_padding

    @property
    def images(self) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.kind == "image")

    def padded(self, n_pos: int) -> "Layout":
        """The same prompt, padded on the left to `n_pos` positions."""
        shift = n_pos - self.n_pos
        segments = tuple(replace(s, start=s.start + shift, stop=s.stop + shift) for s in self.segments)
        return Layout(segments, self.n_padding + shift)

    def image(self, i: int = 0) -> Segment:
        """The i-th image of the prompt.

        Raises:
            InputError: the prompt has no such image.
        """
        if not 0 <= i < len(self.images):
            raise InputError(f"image {i} of a prompt that holds {len(self.images)}: count from 0")
        return self.images[i]

    def image_positions(self, i: int = 0) -> range:
        """Positions of the i-th image."""
        return self.image(i).positions

    def text_positions(self) -> list[int]:
        """Positions of all text, in order."""
        return [position for s in self.segments if s.kind == "text" for position in s.positions]

    def select(self, which: Positions) -> list[int]:
        """Positions by what stands there: `image` (of all images), `text`, `last` or `all`; or a list of places counted
        from the start of the prompt, negative ones from its end, and of (row, column) patches of its first image.

        A list may be an array: of places (n,), or of patches (n, 2). A mask is none: take `numpy.flatnonzero` of it.

        Raises:
            InputError: no such place, or nothing of that kind in the prompt.
        """
        which = plain(which)
        match which:
            case "image":
                found = [position for segment in self.images for position in segment.positions]
            case "text":
                found = self.text_positions()
            case "last":
                found = [self.n_pos - 1]
            case "all":
                found = list(range(self.n_padding, self.n_pos))
            case str():
                raise InputError(f"positions {which!r} are unknown; use image, text, last, all, or a list of them")
            case list() | tuple() | range():
                found = [self._place(place) for place in which]
            case _:
                found = [self._place(which)]
        if not found:
            raise InputError(f"positions: the prompt has none of {which!r}")
        return found

    def _place(self, place: Any) -> int:
        place = plain(place)
        if isinstance(place, list | tuple):
            if len(place) != 2:
                raise InputError(f"positions: found {place!r}, expected a place or a patch's (row, column)")
            return self.patch(*(integer(part, "positions") for part in place))
        place = integer(place, "positions")
        length = self.n_pos - self.n_padding
        if not -length <= place < length:
            raise InputError(f"position {place} of a prompt of {length}: count from 0, or from -1 at its end")
        return place % length + self.n_padding

    def patch(self, row: int, col: int, i: int = 0) -> int:
        """Position of the patch in the given row (from the top) and column (from the left) of the i-th image.

        Raises:
            InputError: the prompt has no such image, it has no grid, or the patch lies outside of it.
        """
        segment = self.image(i)
        if segment.grid is None:
            raise InputError(f"image {segment.source!r} has no patches: its encoder pools them; use image_positions()")
        rows, cols = segment.grid
        if not (0 <= row < rows and 0 <= col < cols):
            raise InputError(f"patch ({row}, {col}) lies outside the {rows} x {cols} grid of {segment.source!r}")
        return segment.start + row * cols + col
