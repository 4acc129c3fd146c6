"""LIMBER's folder format: a JSON file for each image."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limber_interp.datasets.base import Example, Rejected, is_file, is_sidecar, parsed, shown, told
from limber_interp.errors import InputError

logger = logging.getLogger(__name__)

SURROGATE = re.compile(r"[\ud800-\udfff]")


class FolderDataset:
    """`image_data/<n>/<id>.json` with `captions`, and perhaps `image_path`, `metadata`; in the order of their names.

    Where `image_path` (relative to the folder) is missing, the image is `images/<n>/<id>.jpg` or `images/<id>.jpg`.
    JSON files that lie elsewhere in `image_data` are no records, which is logged.

    Raises:
        InputError: no such file in the folder, or a part of it that cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = str(folder)
        self.records, others = _records(self.folder / "image_data")
        if not self.records:
            raise InputError(f"{folder}: no image_data/<n>/<id>.json in it; name a folder in LIMBER's format")
        if others:
            logger.warning(
                "%s: %d JSON files that do not lie in image_data/<n>/ are not used; the first: %s",
                folder, len(others), others[0],
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        file = self.records[index]
        key = f"{file.parent.name}/{file.stem}"
        try:
            record = parsed(file.read_bytes())
            if not isinstance(record["captions"], list):  # a bare string would be read as one caption per letter
                raise TypeError("captions is no list")
            named = record.get("image_path")
            candidates = [self.folder / named] if named else self._unnamed(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Rejected(key, f'not a record {{"image_path", "captions", "metadata"}}: {error!r}') from error
        captions = told(key, record["captions"])
        metadata = _metadata(key, record.get("metadata"))
        for image in candidates:
            if is_file(image):
                return Example(image, captions, metadata, key)
        raise Rejected(key, f"its image {candidates[0]} is not there")

    def files(self) -> Iterator[Path]:
        for index, file in enumerate(self.records):
            yield file
            try:
                image = self[index].image
            except Rejected:
                continue
            assert isinstance(image, Path)
            yield image

    def _unnamed(self, file: Path) -> list[Path]:
        images = self.folder / "images"
        return [images / file.parent.name / f"{file.stem}.jpg", images / f"{file.stem}.jpg"]


def _records(below: Path) -> tuple[list[Path], list[Path]]:
    """JSON files where LIMBER has them, and those one level above or below, each sorted."""
    found: tuple[list[Path], list[Path]] = ([], [])
    for folder, folders, files in os.walk(
        below, onerror=_refuse, followlinks=True
    ):  # data sets are put together by links
        depth = len(Path(folder).relative_to(below).parts)
        names = [name for name in files if name.lower().endswith(".json") and not is_sidecar(name)]
        found[depth != 1].extend(Path(folder, name) for name in names)
        folders[:] = [] if depth == 2 else [name for name in folders if not is_sidecar(f"{name}/")]
    return sorted(found[0]), sorted(found[1])


def _refuse(error: OSError) -> None:
    """What `os.walk` would leave out without a word."""
    if not isinstance(error, FileNotFoundError):
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _metadata(key: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Rejected(key, f"its metadata is no object {{name: value}}, but {shown(value)}")
    waiting: list[Any] = [value]
    while waiting:  # nouns and labels are taken from it, for a tokenizer
        match waiting.pop():
            case dict() as item:
                waiting += [*item, *item.values()]
            case list() as item:
                waiting += item
            case str() as item if SURROGATE.search(item):
                raise Rejected(key, f"its metadata has half of a surrogate pair: {shown(item)}")
    return value


def read_folder(folder: str | Path) -> list[Example]:
    """All examples of a folder in LIMBER's format, where each has to be usable.

    Raises:
        InputError: no such folder, a file that is not such a record, an image that is not there, or no caption.
    """
    dataset = FolderDataset(folder)
    examples = []
    for index, file in enumerate(dataset.records):
        try:
            examples.append(dataset[index])
        except Rejected as rejected:
            raise InputError(f"{file}: {rejected.reason}; mend the file, or remove it") from rejected
    return examples
