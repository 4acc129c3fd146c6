"""LIMBER's folder format: a JSON file for each image."""

import json
from collections.abc import Iterator
from pathlib import Path

from limber_interp.datasets.base import Example, Rejected, told
from limber_interp.errors import InputError


class FolderDataset:
    """`image_data/<n>/<id>.json` with `captions`, and perhaps `image_path`, `metadata`; in the order of their names.

    Where `image_path` (relative to the folder) is missing, the image is `images/<n>/<id>.jpg` or `images/<id>.jpg`.

    Raises:
        InputError: no such file in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = str(folder)
        self.records = sorted((self.folder / "image_data").glob("*/*.json"))
        if not self.records:
            raise InputError(f"{folder}: no image_data/<n>/<id>.json in it; name a folder in LIMBER's format")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        file = self.records[index]
        key = f"{file.parent.name}/{file.stem}"
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(record["captions"], list):  # a bare string would be read as one caption per letter
                raise TypeError("captions is no list")
            named = record.get("image_path")
            metadata = record.get("metadata") or {}
            candidates = [self.folder / named] if named else self._unnamed(file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Rejected(key, f'not a record {{"image_path", "captions", "metadata"}}: {error!r}') from error
        captions = told(key, record["captions"])
        for image in candidates:
            if image.is_file():
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
