"""Which format a path is in."""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from limber_interp.datasets.base import Dataset, is_file, is_sidecar
from limber_interp.datasets.coco import CocoDataset
from limber_interp.datasets.folder import FolderDataset
from limber_interp.datasets.table import TableDataset
from limber_interp.datasets.tar import TarDataset
from limber_interp.errors import InputError

logger = logging.getLogger(__name__)

FORMATS = (
    "LIMBER's folder, COCO captions .json, .tar shards (one, a folder, a pattern such as 'shards/*.tar' or "
    "'shards/{00000..00331}.tar'), .csv or .tsv"
)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}]*,[^{}]*))\}")


def open_dataset(path: str | Path, images: str | Path | None = None) -> Dataset:
    """The captioned images at a path, by what is there.

    Args:
        path: a file, a folder, or a pattern of `.tar` shards: with `*`, `?` and `[…]` as a shell has them, or with
            `{00000..00331}` and `{a,b}` as webdataset has them, where each shard named has to be there.
        images: the folder of the images, for COCO captions and tables.

    Raises:
        InputError: nothing is there, it is none of the formats, or it takes no `images`.
    """
    path = Path(path)
    if is_file(path) and path.suffix.lower() == ".json":
        return CocoDataset(path, images)
    if is_file(path) and path.suffix.lower() in (".csv", ".tsv"):
        return TableDataset(path, images)
    if images is not None:
        raise InputError(f"--images {images}: only COCO captions and tables take it, and {path} is neither")
    if os.path.isdir(path / "image_data"):
        return FolderDataset(path)
    try:
        found = list(_found(path))
    except (OSError, ValueError) as error:  # ValueError: a pattern with NUL
        raise InputError(f"{path}: cannot be read: {error}") from error
    shards = [shard for shard in found if shard.suffix.lower() == ".tar"]
    compressed = [shard for shard in found if shard.name.lower().endswith(COMPRESSED)]
    if shards:
        if compressed:
            logger.warning("%s: %d compressed archives are not used: %s …", path, len(compressed), compressed[0])
        return TarDataset(shards, str(path))
    if compressed:
        raise InputError(
            f"{compressed[0]}: a compressed archive, whose examples cannot be reached by their offsets; decompress it "
            "to .tar first (images are compressed already)"
        )
    raise InputError(f"{path}: {'none of the formats' if os.path.exists(path) else 'not there'}; expected {FORMATS}")


def _found(path: Path) -> Iterator[Path]:
    """The file; the files in the folder; or those that the pattern names; without what macOS puts beside them."""
    if is_file(path):
        yield path
    elif os.path.isdir(path):
        yield from (file for file in sorted(path.iterdir()) if is_file(file) and not is_sidecar(file.name))
    else:
        for name in _expanded(os.fspath(path)):
            found = [name] if is_file(name) else sorted(glob.glob(name))
            if not found and name != os.fspath(path):
                raise InputError(f"{name}: not there, but {path} names it")
            yield from (Path(file) for file in found if not is_sidecar(os.path.basename(file)))


def _expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern with braces stands for, in its order; one by one, for the first may be missing."""
    if (found := BRACES.search(pattern)) is None:
        yield pattern
        return
    first, last, listed = found.groups()
    values: Iterable[str]
    if listed is None:
        step = 1 if int(first) <= int(last) else -1
        values = (f"{i:0{len(first)}d}" for i in range(int(first), int(last) + step, step))
    else:
        values = listed.split(",")
    for value in values:
        yield from _expanded(pattern[: found.start()] + value + pattern[found.end() :])
