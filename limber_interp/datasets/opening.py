"""Which format a path is in."""

import glob
import os
from pathlib import Path

from limber_interp.datasets.base import Dataset
from limber_interp.datasets.coco import CocoDataset
from limber_interp.datasets.folder import FolderDataset
from limber_interp.datasets.table import TableDataset
from limber_interp.datasets.tar import TarDataset
from limber_interp.errors import InputError

FORMATS = "LIMBER's folder, COCO captions .json, .tar shards (one, a folder or a pattern), .csv or .tsv"


def open_dataset(path: str | Path, images: str | Path | None = None) -> Dataset:
    """The captioned images at a path, by what is there.

    Args:
        images: the folder of the images, for COCO captions and tables.

    Raises:
        InputError: nothing is there, it is none of the formats, or it takes no `images`.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".json":
        return CocoDataset(path, images)
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        return TableDataset(path, images)
    if images is not None:
        raise InputError(f"--images {images}: only COCO captions and tables take it, and {path} is neither")
    if (path / "image_data").is_dir():
        return FolderDataset(path)
    if path.is_file() and path.suffix.lower() == ".tar":
        return TarDataset([path], str(path))
    if shards := sorted(path.glob("*.tar")) if path.is_dir() else _matching(path):
        return TarDataset(shards, str(path))
    raise InputError(f"{path}: {'none of the formats' if path.exists() else 'not there'}; expected {FORMATS}")


def _matching(pattern: Path) -> list[Path]:
    found = sorted(glob.glob(os.fspath(pattern)))
    return [Path(name) for name in found if name.endswith(".tar")]
