"""What all commands share: their common options, exit statuses, and where results and messages go.

A command is a typed dataclass of options and a function from it to a `Report`; `run` connects the two:

    def main(args: Sequence[str] | None = None) -> int:
        return run("caption", Options, caption, args)

Exit status: 0 done, 1 the work failed, 2 the arguments or the inputs are wrong. Results go to standard output;
progress, log and the one line that says what is wrong go to standard error. Nothing heavy may be imported by this file
or by the head of a command's, so that `--help` and usage errors are instant.

Before any work `OutputOptions.check` looks at all options: numbers out of their range, results that cannot be written,
and results that would be written over something. For this an option says beside its type what it is (see `options`):
`READ`, `WRITTEN` or `PLACE`, and a number its range. Paths that no option names by itself, a command adds to
`inputs()` and `outputs()`.
"""

import contextlib
import errno
import io
import logging
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from limber_interp.config import DEFAULT_CONFIG, LimberConfig, load_config
from limber_interp.errors import InputError
from limber_interp.options import PLACE, READ, WRITTEN, check_numbers, paths_of
from limber_interp.overwriting import NamedPath, check_overwriting, check_replaceable
from limber_interp.records import (
    Captions,
    LogitLens,
    NearestTokens,
    Record,
    check_folder,
    check_writable,
    write_atomically,
)
from limber_interp.resources import example_image, resolve
from limber_interp.streams import (
    Unwritten,
    chatter_on_standard_error,
    check_standard_output,
    say,
    speaking,
    writing_results,
)

if TYPE_CHECKING:
    from limber_interp.models.limber import Limber, Outline

T = TypeVar("T")
N = TypeVar("N", NearestTokens, LogitLens, Captions)
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")
LEAST = 4  # characters of a column of text, which is folded


def _arg(metavar: str) -> object:
    return tyro.conf.arg(metavar=metavar)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What to do with the result: options of every command."""

    json: Annotated[str | None, _arg("PATH|-"), WRITTEN] = None
    """Write the result as JSON; - for standard output, which then carries JSON alone."""
    debug: bool = False
    """Show the traceback of an error."""

    def inputs(self) -> Iterator[NamedPath]:
        """What the command reads: by default what the options say that are marked as `READ`."""
        for option, path in paths_of(self, READ):
            yield NamedPath(option, path)

    def results(self) -> Iterator[NamedPath]:
        """The files that the options ask for: each is written whole at the end, in the place of what an earlier run
        wrote there; by default what the options say that are marked as `WRITTEN`."""
        for option, path in paths_of(self, WRITTEN):
            if (option, str(path)) != ("--json", "-"):
                yield NamedPath(option, path)

    def outputs(self) -> Iterator[NamedPath]:
        """All files that the command may write: the results, and what it keeps in a folder of its own."""
        yield from self.results()

    def check(self) -> None:
        """Find out before any work what is wrong with the options, as far as that costs next to nothing.

        Raises:
            InputError: a number out of its range, a path that cannot be written, or something would be written over.
        """
        check_numbers(self)
        self.check_outputs()
        for _, folder in paths_of(self, PLACE):
            check_folder(folder)
        check_overwriting(self.inputs(), self.outputs())
        for file in self.results():
            check_replaceable(file)

    def check_outputs(self) -> None:
        """Raise InputError if a path to write cannot be written."""
        if self.json not in (None, "-"):
            check_writable(self.json)


@dataclass(frozen=True, kw_only=True)
class EncoderOptions(OutputOptions):
    """Which encoder, and where it runs."""

    config: Annotated[str, _arg("NAME|PATH"), READ] = DEFAULT_CONFIG
    """Name of a config in configs/, or a YAML file."""
    encoder_weights: Annotated[str | None, _arg("PATH"), READ] = None
    """Weights of the image encoder, instead of the config's."""
    device: Annotated[str, _arg("DEVICE")] = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: Annotated[int | None, _arg("INT")] = None
    """Of everything that is drawn, instead of the config's."""

    def load_config(self, **overrides: object) -> LimberConfig:
        """The config with what these options, and a command's own, replace in it."""
        return load_config(self.config, **{"encoder_weights": self.encoder_weights, "seed": self.seed, **overrides})

    def inputs(self) -> Iterator[NamedPath]:
        yield from super().inputs()
        yield from parts_of(self.load_config())


@dataclass(frozen=True, kw_only=True)
class ModelOptions(EncoderOptions):
    """Which model, and where it runs."""

    lm: Annotated[str | None, _arg("FOLDER|HUB-ID"), READ] = None
    """Language model (GPT-J), instead of the config's."""
    projection: Annotated[str | None, _arg("PATH"), READ] = None
    """The linear map, .safetensors or LIMBER's .ckpt, instead of the config's."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the language model; auto: what suits the device."""

    def load_config(self, **overrides: object) -> LimberConfig:
        return super().load_config(**{"lm_name": self.lm, "projection": self.projection, **overrides})

    def load_model(self) -> "Limber":
        """The model of these options. The first thing here that imports torch."""
        from limber_interp.models.limber import load

        return load(self.load_config(), device=self.device, dtype=self.dtype, check=self.check_with)

    def check_with(self, outline: "Outline") -> None:
        """Raise InputError where the options do not fit the model, of which no weights have been read yet."""


@dataclass(frozen=True, kw_only=True)
class CommonOptions(ModelOptions):
    """Options of the commands that look at images."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, _arg("[IMAGE ...]"), READ] = ()
    """Paths or URLs; none: the bundled scene."""
    figure: Annotated[Path | None, _arg("PATH"), WRITTEN] = None
    """Draw the result; the ending chooses the format (.png, .pdf, .svg)."""
    on_error: Literal["stop", "skip"] = "stop"
    """An image that cannot be opened: stop before any work, or go on without it and list it at the end."""

    def sources(self) -> tuple[str, ...]:
        """The images to look at: those given, or the bundled scene."""
        return self.images or (str(example_image()),)

    def opened(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The images that open, and a line on each that does not. Each is opened, so that a broken one among many shows
        before the work; they are opened again, in batches, when they are looked at.

        Raises:
            InputError: one does not open, and `on_error` says stop; or none does.
        """
        return self._opening(self.sources())

    def _opening(self, sources: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        from limber_interp.images import load_image

        good, skipped = [], []
        for source in sources:
            try:
                load_image(source)
                good.append(source)
            except InputError as error:
                if self.on_error == "stop":
                    raise
                skipped.append(str(error))
        if not good:
            raise InputError(f"none of the {len(skipped)} images can be opened; the first: {skipped[0]}")
        return tuple(good), tuple(skipped)

    def check_outputs(self) -> None:
        super().check_outputs()
        if self.figure is not None:
            check_writable(self.figure, FIGURE_SUFFIXES)


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(CommonOptions):
    """Options of the commands that hold images against other images."""

    others: Annotated[tuple[str, ...], _arg("FOLDER|IMAGE ..."), READ] = ()
    """Images of the same kind, to hold these against; none: beside fewer than 20 images, bundled emoji scenes."""

    def inputs(self) -> Iterator[NamedPath]:
        from limber_interp.folders import in_folders

        yield from super().inputs()
        for folder in self.others:
            if Path(folder).is_dir():
                yield from (NamedPath("--others", path) for path in in_folders([folder]))

    def opened_others(self, controls: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
        """The other images that open, those of folders among them, and a line on each that does not; None: none named.

        Raises:
            InputError: as `opened`; a folder without images, or controls that take no other images.
        """
        if not self.others:
            return None, ()
        if controls != "full":
            raise InputError(f"--others: --controls {controls} takes no other images; leave one of them out")
        from limber_interp.folders import in_folders

        return self._opening(map(str, in_folders(self.others)))


@dataclass(frozen=True)
class Report:
    """What a command has to say: a record (its JSON), and what to show of it on a terminal.

    `status` is the exit status; a command that finds out that something does not work (doctor) gives 1. `skipped` has a
    line on each image that was left out; they are listed last. `silent`: another process says all this.
    """

    record: Record
    shown: tuple[RenderableType, ...]
    status: int = 0
    skipped: tuple[str, ...] = ()
    silent: bool = False


O = TypeVar("O", bound=OutputOptions)  # noqa: E741


def run(name: str, options_type: type[O], work: Callable[[O], Report], args: Sequence[str] | None = None) -> int:
    """Parse `args` (None: the process's), do the work, write its report, and return the exit status."""
    debug = "--debug" in (sys.argv if args is None else args)
    with speaking():
        try:
            check_standard_output()
            options = _parse(name, options_type, args)
            return 0 if options is None else _done(name, options, work)
        except KeyboardInterrupt:
            return _fail(name, "interrupted", 130)
        except InputError as error:
            return _fail(name, str(error), 2, error if debug else None)
        except Unwritten as error:
            return _fail(name, str(error), 1, error if debug else None)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # which pathlib raises wherever it looks for such a file
                return _fail(name, f"{str(error.filename)[:80]}…: {error.strerror}", 2, error if debug else None)
            return _fail(name, _failed(error), 1, error if debug else None)
        except Exception as error:
            return _fail(name, _failed(error), 1, error if debug else None)


def _done(name: str, options: O, work: Callable[[O], Report]) -> int:
    options.check()
    # Libraries print to standard output; whatever is not the result belongs to standard error
    with chatter_on_standard_error(), _log_to_stderr():
        report = work(options)
    if not report.silent:
        _write(report, options)
    for line in report.skipped:
        say(f"{name}: skipped {line}")
    return report.status


def _failed(error: Exception) -> str:
    return " ".join(f"failed: {type(error).__name__}: {error} (--debug shows where)".split())


def _fail(name: str, line: str, status: int, error: Exception | None = None) -> int:
    if error is not None:
        say("".join(traceback.format_exception(error)).rstrip())
    say(f"{name}: {line}")
    return status


def progress(
    items: Iterable[T], description: str, total: int | None = None, note: Callable[[], str] = str
) -> Iterator[T]:
    """Iterate with a progress bar on standard error, which disappears at its end; `note` is asked for what to add."""
    console = Console(stderr=True)
    columns = [*Progress.get_default_columns(), MofNCompleteColumn(), _Note(note)]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield from bar.track(items, total=total, description=description)


class _Note(ProgressColumn):
    def __init__(self, note: Callable[[], str]) -> None:
        super().__init__()
        self._note = note

    def render(self, task: Task) -> Text:
        return Text(self._note())


def noting_skipped(record: N, skipped: Iterable[str]) -> N:
    """The record, whose manifest says which images were left out."""
    return replace(record, manifest=record.manifest.noting(f"skipped {line}" for line in skipped))


def words_of(option: str, text: str | None) -> tuple[str, ...]:
    """The words that an option names, with commas between; each once.

    Raises:
        InputError: there is nothing before, between or behind the commas.
    """
    words = () if text is None else tuple(text.split(","))
    if "" in words:
        raise InputError(f"{option} {text!r}: word {words.index('') + 1} is empty; name words with commas between")
    return tuple(dict.fromkeys(words))


def share_of(option: str, text: str) -> float:
    """A share as an option gives it, `1%` or `0.01`.

    Raises:
        InputError: it is none, or not from 0 to 1.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(f"{option} {text}: expected a share, such as 1% or 0.01")
    return share


def result_table(title: str) -> Table:
    """A table as the probes' commands show theirs."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption_justify="left", pad_edge=False)
    table.min_width = min(len(title), 80)  # or a narrow table would break its title into many lines
    return table


def number_columns(table: Table, *headings: str, width: int = 4) -> None:
    """Columns of numbers of so many characters. Where there is no room their headings are folded; no number is cut."""
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold", min_width=width)


def _parse(name: str, options_type: type[O], args: Sequence[str] | None) -> O | None:
    """The options, or None where only help was asked for and given."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), writing_results():
            return tyro.cli(
                options_type,
                prog=f"python -m limber_interp.{name}",
                args=args,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if not stop.code:
            return None
        raise InputError(f"{_one_line(complaint.getvalue())} (--help shows the options)") from None


def _one_line(box: str) -> str:
    """tyro complains in a box with a title, framed in Unicode or ASCII: what is wrong; what was perhaps meant; help."""
    rows = [re.sub(r"^[│|]\s?|\s*[│|]$", "", row).strip() for row in box.splitlines()[1:]]
    parts = re.split(r"^\W{4,}$", "\n".join(rows), flags=re.MULTILINE)
    complaint, *rest = [part.strip() for part in parts if part.strip()]
    flags = [
        flag for part in rest if part.startswith("Perhaps") for flag in re.findall(r"^--[\w-]+", part, re.MULTILINE)
    ]
    return complaint + (f"; nearest: {', '.join(flags)}" if flags else "")


def _write(report: Report, options: OutputOptions) -> None:
    if options.json == "-":
        with writing_results():
            print(_for_standard_output(report.record))
        return
    if options.json is not None:  # before the tables, whose reader may stop early
        text = report.record.to_json() + "\n"
        write_atomically(options.json, lambda path: path.write_text(text, encoding="utf-8"))
    # Cells are text, not rich's markup: a token may read "[/b]" or ":dog:". Off a terminal nothing is cut to its width
    console = _Console(markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else 1000)
    with writing_results():
        for item in report.shown:
            if isinstance(item, Table):
                print_table(console, item)
            else:
                console.print(item)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the process, with status 1."""
        raise


def _for_standard_output(record: Record) -> str:
    """JSON in the characters that standard output has; the others are written as JSON escapes them."""
    text = record.to_json()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return record.to_json(ascii=True)
    return text


def parts_of(config: LimberConfig) -> Iterator[NamedPath]:
    """What a config names to be read."""
    for key in ("encoder_weights", "lm_name", "projection"):
        if (value := getattr(config, key)) is not None:
            yield NamedPath(f"the config's {key}", resolve(value))


def print_table(console: Console, table: Table) -> None:
    """As wide as the terminal, closer together where it does not fit. Where it does not fit then either, lines are
    longer than the terminal, which breaks them: rich would cut columns off."""
    unbounded = console.options.update(max_width=10_000)
    if console.measure(table, options=unbounded).maximum > console.width:
        table.padding = (0, 0)
    least = sum(column.min_width or LEAST for column in table.columns) + len(table.columns) + 1
    console.print(table, width=max(least, console.width), crop=False)


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Show the package's log, and only its, while a command runs."""
    logger, handler = logging.getLogger("limber_interp"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    root, silence = logging.getLogger(), logging.NullHandler()
    root.addHandler(silence)  # a library that logs to a bare root would give it a handler, and ours would show twice
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(silence)
        logger.removeHandler(handler)
        logger.setLevel(level)
