"""Download LIMBER's published projections, each verified by its git blob id."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from limber_interp import published
from limber_interp.cli import OutputOptions, Report, run
from limber_interp.download import download
from limber_interp.errors import InputError, nearest
from limber_interp.options import PLACE
from limber_interp.overwriting import NamedPath
from limber_interp.records import Record
from limber_interp.resources import weights_dir


@dataclass(frozen=True, kw_only=True)
class Options(OutputOptions):
    """Download LIMBER's published projections, each verified by its git blob id.

    A download that was cut goes on where it stopped. What is there and verified is left alone; what is there and is
    something else is never replaced.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")] = ()
    """Of LIMBER's configs: clip_linear, ..."""
    all: bool = False
    """Every projection that was published."""
    base_url: Annotated[str, tyro.conf.arg(metavar="URL")] = published.BASE_URL
    """A mirror that has <config>/proj.ckpt."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER"), PLACE] = None
    """Where <config>/proj.ckpt go; none: limber_weights, where the configs look for them."""

    def target(self, name: str) -> Path:
        return (self.out or weights_dir()) / name / published.FILE

    def outputs(self) -> Iterator[NamedPath]:
        yield from super().outputs()
        for name in self.wanted():
            yield NamedPath("--out", self.target(name))

    def wanted(self) -> tuple[str, ...]:
        """The names to fetch, each once.

        Raises:
            InputError: none, one that was not published, or a mirror that is no http(s) URL.
        """
        if not self.base_url.startswith(("http://", "https://")):
            raise InputError(f"--base-url {self.base_url}: expected http:// or https://; copy files that are here")
        if self.all == bool(self.names):
            raise InputError(f"name what to fetch ({', '.join(published.BLOB_IDS)}), or else give --all")
        for name in self.names:
            if name == published.NEVER_PUBLISHED:
                raise InputError(f"{name}: its projection was never published; train one with limber_interp.train")
            if name not in published.BLOB_IDS:
                raise InputError(f"{name}: no published projection; nearest: {nearest(name, published.BLOB_IDS)}")
        return tuple(dict.fromkeys(self.names or published.BLOB_IDS))


@dataclass(frozen=True)
class File(Record):
    """One published projection.

    Attributes:
        state: `fetched` now, or `here` before; either way its git blob id is that of the published file.
    """

    config: str
    state: Literal["fetched", "here"]
    path: str
    size: int
    git_blob_id: str
    url: str


@dataclass(frozen=True)
class Fetched(Record):
    """What `fetch` did."""

    files: tuple[File, ...]

    def as_dict(self) -> dict:
        return {"command": "fetch", **super().as_dict()}


def fetch(options: Options) -> Report:
    files = []
    for name in options.wanted():
        url = f"{options.base_url.rstrip('/')}/{name}/{published.FILE}"
        path = options.target(name)
        blob_id = published.BLOB_IDS[name]
        fetched = download(url, path, blob_id, _bar(name))
        files.append(File(name, "fetched" if fetched else "here", str(path), path.stat().st_size, blob_id, url))
    table = Table(title="Published projections, verified by their git blob ids")
    for heading in ("config", "state", "MB"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    table.add_column("where", overflow="fold")
    for file in files:
        table.add_row(file.config, file.state, f"{file.size / 1e6:.1f}", file.path)
    return Report(Fetched(tuple(files)), (table,))


def _bar(name: str) -> Callable[[Iterator[bytes], int, int | None], Iterator[bytes]]:
    """A progress bar on standard error for each attempt, which disappears at its end."""
    columns = TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()

    def shown(chunks: Iterator[bytes], done: int, total: int | None) -> Iterator[bytes]:
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(name, completed=done, total=total)
            for chunk in chunks:
                bar.advance(task, len(chunk))
                yield chunk

    return shown


def main(args: Sequence[str] | None = None) -> int:
    return run("fetch", Options, fetch, args)


if __name__ == "__main__":
    sys.exit(main())
