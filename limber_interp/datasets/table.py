"""A table of paths and captions, comma or tab separated."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from limber_interp.datasets.base import Example, Rejected, is_file, told
from limber_interp.datasets.rows import Lines, Row, csv_rows, tsv_rows
from limber_interp.errors import InputError

PATHS = ("path", "image_path", "image", "file", "filename", "file_name", "filepath")
CAPTIONS = ("caption", "text", "title")


class TableDataset:
    """A `.csv` or `.tsv` in UTF-8 with a header. The first column named in `PATHS` has the image's path, relative to
    the file or to `images`; the first in `CAPTIONS` a caption. Rows of one path are one example with several captions.

    What a quote means in either, and which rows cannot be read, is said in `datasets/rows.py`. Such a row is rejected
    on its own, by the number of its line; other rows of the same image still are an example. Rows without any text are
    no rows.

    Raises:
        InputError: not such a table, no row in it, or two columns of the name that was found.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None) -> None:
        self.path = Path(path)
        self.name = str(path)
        self.images = self.path.parent if images is None else Path(images)
        rows: Callable[[Lines], Iterator[Row]] = tsv_rows if self.path.suffix.lower() == ".tsv" else csv_rows
        # By path, or by the line of a row that has none: its captions, or why it cannot be used
        self.entries: dict[str, list[str] | Rejected] = {}
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                self._read(rows(Lines(file)))
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path}: not a table in UTF-8: {error}") from error
        self.keys = list(self.entries)
        if not self.keys:
            raise InputError(f"{path}: no row in it")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Example:
        key = self.keys[index]
        entry = self.entries[key]
        if isinstance(entry, Rejected):
            raise entry
        captions = told(key, entry)
        image = self.images / key
        if not is_file(image):
            raise Rejected(key, f"its image {image} is not there")
        return Example(image, captions, key=key)

    def files(self) -> Iterator[Path]:
        yield self.path
        for key, entry in self.entries.items():
            if not isinstance(entry, Rejected):
                yield self.images / key

    def _read(self, rows: Iterator[Row]) -> None:
        header = next(rows, Row(1, []))
        if header.flaw:
            raise ValueError(f"line {header.line}: {header.flaw}")
        named, caption = (_column(header.fields, names, self.path) for names in (PATHS, CAPTIONS))
        for row in rows:
            key = f"{self.path.name}, line {row.line}"
            if row.flaw:
                self.entries[key] = Rejected(key, row.flaw)
            elif path := row.fields[named].strip():
                told = self.entries.setdefault(path, [])
                assert isinstance(told, list)
                told.append(row.fields[caption])
            else:
                self.entries[key] = Rejected(key, "a row without a path")


def _column(columns: Sequence[str], names: tuple[str, ...], path: Path) -> int:
    for name in names:
        found = [place for place, column in enumerate(columns) if column.strip().lower() == name]
        if len(found) > 1:
            raise InputError(f"{path}: {len(found)} columns {name} in its header; rename those that are not meant")
        if found:
            return found[0]
    raise InputError(f"{path}: no column {' or '.join(names)} in its header; found {', '.join(columns) or 'none'}")
