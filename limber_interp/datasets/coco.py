"""COCO's captions: one JSON file, and a folder of images."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from limber_interp.datasets.base import Example, Rejected, is_file, parsed, told
from limber_interp.errors import InputError

FIRST = 100  # images by which their folder is found: some of them may be missing


class CocoDataset:
    """`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`: an example is an image with all of
    its captions, in the order of `images`. Images without a caption, and those that share an id, are rejected.

    Args:
        images: the folder that `file_name` is relative to. None: beside the file, in `images/` there, or as COCO lays
            them out, `../train2017` for `captions_train2017.json`; whichever holds one of the first images.

    Raises:
        InputError: not such a file, a caption of an image that is not in it, or no folder with its images.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self.path = Path(path)
        self.name = str(path)
        try:
            content = parsed(self.path.read_bytes())
            self.rows: list[tuple[str, str]] = [
                (str(row["id"]), _relative(row["file_name"])) for row in content["images"]
            ]
            self.captions: dict[str, list[str]] = {key: [] for key, _ in self.rows}
            for row in content["annotations"]:
                self.captions[str(row["image_id"])].append(row["caption"])
        except KeyError as error:
            raise InputError(f"{path}: not COCO captions: key or image id {error} is missing") from error
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not COCO captions: {error}") from error
        if not self.rows:
            raise InputError(f"{path}: no image in it")
        self.times = Counter(key for key, _ in self.rows)
        self.images = self._find_images() if images is None else Path(images)
        if not os.path.isdir(self.images):
            raise InputError(f"{self.images}: no such folder of images")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        key, file_name = self.rows[index]
        if self.times[key] > 1:  # the captions could be those of either image
            raise Rejected(key, f"{self.times[key]} images have this id")
        captions = told(key, self.captions[key])
        image = self.images / file_name
        if not is_file(image):
            raise Rejected(key, f"its image {image} is not there")
        return Example(image, captions, key=key)

    def files(self) -> Iterator[Path]:
        yield self.path
        for _, file_name in self.rows:
            yield self.images / file_name

    def _find_images(self) -> Path:
        beside = self.path.parent
        candidates = [beside, beside / "images", beside.parent / self.path.stem.rpartition("_")[2]]
        for folder in candidates:
            if any(is_file(folder / file_name) for _, file_name in self.rows[:FIRST]):
                return folder
        raise InputError(f"{self.path}: its images are not beside it; name their folder with --images")


def _relative(file_name: object) -> str:
    if not isinstance(file_name, str):
        raise TypeError(f"file_name {file_name!r} is no text")
    return file_name
