"""The rows of a table, comma or tab separated, such that one that is malformed costs no other row.

A quote that is never closed would take all that follows for one field. Here a row that cannot be read is given with its
reason, and reading goes on at the line after its first one.

In a `.csv`, quotes mean what RFC 4180 says: a field in quotes may hold commas, line breaks, and quotes that are written
twice. Blanks after a comma belong to no field. Quotes within a field that begins without one are text.

In a `.tsv`, as people have it, quotes are text, and nothing stands for a tab or a line break. But spreadsheets put
fields with quotes, tabs or line breaks in quotes there too. So the quotes around a whole field are taken off where all
within are written twice, and a row with another number of fields than the header, or a field whose quote is left open
while the next line is no row, is read as a `.csv` is.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import NamedTuple

from limber_interp.datasets.base import IMAGES

OPEN = "a quote that is not closed before"


class Row(NamedTuple):
    """A row, or why it cannot be read. The first one is the header, and all that can be read have as many fields.

    Attributes:
        line: the number of its first line, from 1.
    """

    line: int
    fields: list[str]
    flaw: str | None = None


class Lines(Iterator[str]):
    """The lines of a file, of which those taken last can be taken again.

    Attributes:
        before: number of lines before those taken last.
        taken: the lines taken since `mark`.
    """

    def __init__(self, file: Iterable[str]) -> None:
        self.before = 0
        self.taken: list[str] = []
        self._file = iter(file)
        self._again: deque[str] = deque()

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._file)
        self.taken.append(line)
        return line

    def mark(self) -> int:
        """Be done with the lines taken so far; the number of the next one, from 1."""
        self.before += len(self.taken)
        self.taken = []
        return self.before + 1

    def keep(self, count: int) -> None:
        """Put the lines taken since `mark` back, but for the first `count`."""
        self._again.extendleft(reversed(self.taken[count:]))
        del self.taken[count:]

    def peek(self) -> str:
        """The next line, which stays there; empty at the end."""
        if not self._again and (line := next(self._file, None)) is not None:
            self._again.append(line)
        return self._again[0] if self._again else ""


def csv_rows(lines: Lines) -> Iterator[Row]:
    """The rows of a comma-separated table; empty ones are left out."""
    width = 0
    reader = _reader(lines)
    while True:
        number = lines.mark()
        row = _quoted(reader, number)
        if row is None:
            return
        if not row.flaw and any(_is_row(line, width) for line in lines.taken[1:-1]):
            row = Row(number, [], f"{OPEN} the next rows begin")
        row = _of_width(row, width, "; a field with a comma has to stand in quotes")
        if row.flaw:
            lines.keep(1)
            reader = _reader(lines)
        width = width or len(row.fields)
        if row.flaw or any(map(str.strip, row.fields)):
            yield row


def tsv_rows(lines: Lines) -> Iterator[Row]:
    """The rows of a tab-separated table; empty ones are left out."""
    width = 0
    while True:
        number = lines.mark()
        if (line := next(lines, None)) is None:
            return
        written = line.rstrip("\r\n").split("\t")
        row = Row(number, [_unquoted(field) for field in written])
        width = width or len(written)
        is_open = any(field.startswith('"') and field.count('"') % 2 for field in written)
        follows = lines.peek() if is_open else ""
        if len(written) != width or (follows and follows.count("\t") + 1 != width):
            lines.keep(0)
            quoted = _quoted(_reader(lines, "\t"), number)
            assert quoted is not None  # there is a line
            if not quoted.flaw and len(quoted.fields) == width and not any(map(_spans_rows, quoted.fields)):
                row = quoted
            else:
                lines.keep(1)
                if len(written) == width and follows.strip():
                    row = Row(number, [], f"{OPEN} a line that is no row")
        row = _of_width(row, width)
        if row.flaw or any(map(str.strip, row.fields)):
            yield row


def _reader(lines: Lines, delimiter: str = ",") -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter == ",")


def _quoted(reader: Iterator[list[str]], number: int) -> Row | None:
    """The next row by the rules for quotes; None at the end. A field may have 128 KiB (csv's own limit), which also
    bounds how far an open quote is followed."""
    try:
        return Row(number, next(reader))
    except StopIteration:
        return None
    except csv.Error as error:
        return Row(number, [], f"its quotes are not closed, or not written twice within others, or too long: {error}")


def _of_width(row: Row, width: int, hint: str = "") -> Row:
    found = len(row.fields)
    if row.flaw or not width or found == width or not any(map(str.strip, row.fields)):
        return row
    return Row(row.line, [], f"{found} field{'s'[: found != 1]}, but the header has {width}{hint * (found > width)}")


def _is_row(line: str, width: int) -> bool:
    """Whether a line that stands within quotes is a row on its own: as many fields, of which one names an image."""
    fields = line.rstrip("\r\n").split(",")
    return len(fields) == width and any(PurePath(field.strip()).suffix.lower()[1:] in IMAGES for field in fields)


def _unquoted(field: str) -> str:
    """A field without the quotes around it, where it is in quotes as a whole."""
    within = field[1:-1]
    if len(field) < 2 or field[0] != '"' or field[-1] != '"' or '"' in within.replace('""', ""):
        return field
    return within.replace('""', '"')


def _spans_rows(field: str) -> bool:
    """Whether a field has tabs in several lines, as one whose quote is closed by that of a later row would."""
    return "\t" in field and ("\n" in field or "\r" in field)
