"""Where results and messages go when the streams cannot take them: a small command, in a process of its own."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from limber_interp.cli import OutputOptions, Report, run
from limber_interp.streams import chatter_on_standard_error

REPOSITORY = Path(__file__).parents[1]
WORD = "␣naïve €\N{DOG FACE}"
COMMAND = f"""
import os, sys
from dataclasses import dataclass
from rich.table import Table
from limber_interp.cli import CommonOptions, Report, run
from limber_interp.errors import InputError
from limber_interp.records import Record

@dataclass(frozen=True)
class Echo(Record):
    word: str
    images: tuple[str, ...]

@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    '''Says what it was asked: naïve …'''

def echo(options):
    print("chatter of Python")
    os.system("echo chatter of another process")
    table = Table({WORD!r})
    for image in options.images:
        table.add_row(image)
    if options.images == ("bad",):
        raise InputError({WORD!r})
    return Report(Echo({WORD!r}, options.images), (table,), skipped=options.images)

sys.exit(run("echo", Options, echo))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "echo.py"
    path.write_text(COMMAND, encoding="utf-8")
    return path


def shell(script: Path, line: str, encoding: str = "utf-8") -> tuple[int, bytes, list[str]]:
    """Exit status, standard output and the lines of standard error; in the line, `echo` is the command."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    line = line.replace("echo", f"{sys.executable} {script}", 1)
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, timeout=120)
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace").splitlines()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_table_that_the_stream_cannot_show(script: Path, encoding: str) -> None:
    """It was a UnicodeEncodeError after all the work: with LANG=C, and on Windows whenever output is piped."""
    status, out, err = shell(script, "echo good", encoding)
    assert status == 0
    shown = out.decode(encoding)
    assert "good" in shown
    assert "\\u2423na" in shown  # the sign for a space, which neither encoding has, as its escape
    assert ("naïve €" in shown) == (encoding == "cp1252")
    assert err[-1] == "echo: skipped good"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_json_in_any_encoding(script: Path, encoding: str) -> None:
    r"""`--json -` is JSON that says the same: an escape of Python's, such as \xe9, would be none. Also a file name that
    is no Unicode, and nothing that others print, in whatever process, gets in between."""
    status, out, err = shell(script, "echo $'\\xff.png' --json -", encoding)
    assert status == 0
    assert json.loads(out.decode(encoding)) == {"word": WORD, "images": ["\udcff.png"]}
    assert out.decode(encoding).isascii() == (encoding in ("ascii", "cp1252"))
    assert {"chatter of Python", "chatter of another process"} <= set(err)


def test_a_message_that_the_stream_cannot_show(script: Path) -> None:
    status, out, err = shell(script, "echo bad", "ascii")
    assert (status, out) == (2, b"")
    assert err[-1].startswith("echo: \\u2423na\\xefve")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("args", ["good", "good --json -", "--help"])
def test_a_full_disk_is_a_failure_in_one_line(script: Path, args: str) -> None:
    """Python's own words at the exit would be several lines, and the status 120."""
    status, _, err = shell(script, f"echo {args} >/dev/full")
    assert status == 1
    assert err[-1] == "echo: results cannot be written to standard output: No space left on device"
    assert not any("Exception ignored" in line or "Traceback" in line for line in err)


def test_no_standard_output_is_refused_before_the_work(script: Path) -> None:
    """Nobody would see the results; and the first file to be opened would get their number."""
    status, _, err = shell(script, "echo good --json - >&-")
    assert status == 2
    assert err == ["echo: standard output is closed, and results go there: open it, or send them to /dev/null"]


def test_without_standard_error_messages_do_not_go_to_standard_output(script: Path) -> None:
    """Python prints to standard output what is for a stream that is not there."""
    status, out, _ = shell(script, "echo good --json - 2>&-")
    assert status == 0
    assert json.loads(out)["word"] == WORD
    status, out, _ = shell(script, "echo bad 2>&-")
    assert (status, out) == (2, b"")


def test_a_pipe_that_broke_in_the_work_is_a_failure(capsys) -> None:
    """Of a download, or of the messages: it was taken for a reader of the results that had seen enough."""

    def work(options: OutputOptions) -> Report:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert run("echo", OutputOptions, work, []) == 1
    assert capsys.readouterr().err.startswith("echo: failed: BrokenPipeError")


def test_a_reader_of_help_that_stops_early(script: Path) -> None:
    status, _, err = shell(script, "set -o pipefail; echo --help | true")
    assert (status, err) == (0, [])


def test_a_stream_that_another_put_in_place_is_left_alone(capfd) -> None:
    """A notebook's, or a test's: what is printed by number is not ours to turn aside there."""
    with chatter_on_standard_error():
        print("by Python")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "by Python\n")
