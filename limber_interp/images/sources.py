"""What counts as an image in every function that takes images, and how one is named."""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard, cast, runtime_checkable

import numpy as np
from PIL import Image


@runtime_checkable
class BinaryFile(Protocol):
    """An open file: `open(path, "rb")`, `io.BytesIO`, a temporary file, a file of an archive."""

    def read(self, size: int = -1, /) -> Any: ...

    def seek(self, offset: int, whence: int = 0, /) -> Any: ...


ImageSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | BinaryFile


def is_one_image(images: object) -> TypeGuard[ImageSource]:
    """Whether this is an image itself, not several of them. An array of texts, such as a table's column, is several."""
    if isinstance(images, np.ndarray):
        return images.dtype.kind not in "OUS"
    return isinstance(images, ImageSource)


def each(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """The images one after the other, where either one or several may be given."""
    return [images] if is_one_image(images) else cast(Iterable[ImageSource], images)


def describe(source: ImageSource) -> str:
    """How an image is named in results and messages: as given, or by what it is where it has no name."""
    match source:
        case bytes():
            return f"<{len(source)} bytes>"
        case io.BytesIO() if not source.closed:
            return f"<{len(source.getbuffer())} bytes>"
        case Image.Image():
            return f"<{source.mode} image, {source.width} x {source.height}>"
        case np.ndarray():
            return f"<{source.dtype} array, {' x '.join(map(str, source.shape)) or 'one number'}>"
        case str() | Path():
            return str(source)
        case BinaryFile():
            name = getattr(source, "name", None)
            return name if isinstance(name, str) else f"<{type(source).__name__}>"
    return f"<{type(source).__name__}>"


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with their index where one stands for several images: `<RGB image, 64 x 64> [2]`."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} [{i}]" for i, name in enumerate(names)]
