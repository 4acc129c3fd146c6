"""A table of paths and captions, comma or tab separated."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from limber_interp.datasets.base import Example, Rejected, told
from limber_interp.errors import InputError

PATHS = ("path", "image_path", "image", "file", "filename", "file_name", "filepath")
CAPTIONS = ("caption", "text", "title")


class TableDataset:
    """A `.csv` or `.tsv` with a header. The first column named in `PATHS` has the image's path, relative to the file or
    to `images`; the first in `CAPTIONS` a caption. Rows of one path are one example with several captions.

    Raises:
        InputError: not such a table, or no row in it.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.images = self.path.parent if images is None else Path(images)
        self.captions: dict[str, list[str | None]] = {}
        delimiter = "\t" if self.path.suffix.lower() == ".tsv" else ","
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file, delimiter=delimiter)
                columns = [_column(table.fieldnames or (), names, self.path) for names in (PATHS, CAPTIONS)]
                for row in table:
                    named, caption = (row[column] for column in columns)
                    self.captions.setdefault(named or "", []).append(caption)
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path}: not a table in UTF-8: {error}") from error
        self.rows = list(self.captions)
        if not self.rows:
            raise InputError(f"{path}: no row in it")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        key = self.rows[index]
        if not key.strip():
            raise Rejected(key, "a row without a path")
        captions = told(key, self.captions[key])
        image = self.images / key
        if not image.is_file():
            raise Rejected(key, f"its image {image} is not there")
        return Example(image, captions, key=key)

    def files(self) -> Iterator[Path]:
        yield self.path
        for key in self.rows:
            yield self.images / key


def _column(columns: Sequence[str], names: tuple[str, ...], path: Path) -> str:
    for name in names:
        for column in columns:
            if column.strip().lower() == name:
                return column
    raise InputError(f"{path}: no column {' or '.join(names)} in its header; found {', '.join(columns) or 'none'}")
