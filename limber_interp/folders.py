"""Images by the folder: what is named as several images may be a folder of them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from limber_interp.errors import InputError


def in_folders(sources: Iterable[Any]) -> Iterator[Any]:
    """The sources, in the place of a folder the images in it: files whose ending is an image's, in the order of their
    names. Hidden files, and folders inside of it, are passed over.

    Raises:
        InputError: a folder that cannot be read, or without images.
    """
    for source in sources:
        if isinstance(source, str | Path) and os.path.isdir(source):
            yield from _of_folder(Path(source))
        else:
            yield source


def _of_folder(folder: Path) -> list[Path]:
    endings = Image.registered_extensions()
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    if not (images := [path for path in files if path.suffix.lower() in endings]):
        raise InputError(f"{folder}: no image right in this folder; name one with images, or the images themselves")
    return images
