import ast
import json
import logging
import os
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.table import Table

import limber_interp
from limber_interp.__main__ import commands
from limber_interp.cli import CommonOptions, Report, run
from limber_interp.errors import InputError
from limber_interp.records import Record

REPOSITORY = Path(limber_interp.__file__).parents[1]


@dataclass(frozen=True)
class Echo(Record):
    images: tuple[str, ...]
    k: int


@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    """Say what was asked."""

    k: int = 5
    """Neighbours."""


def echo(options: Options) -> Report:
    print("a library's chatter")
    logging.getLogger("limber_interp.models").info("a line of the log")
    if options.k == 1:
        raise InputError("k 1:\n  too small;\n  take 2")
    if options.k == 2:
        raise RuntimeError("something\nbroke")
    table = Table("image", title="Echo")
    for image in options.images:
        table.add_row(image)
    return Report(Echo(options.images, options.k), (table,), status=1 if options.k == 3 else 0)


def main(*args: str) -> int:
    return run("echo", Options, echo, args)


def test_results_and_messages_go_their_own_ways(capsys):
    assert main("a.png", "b.png", "--k", "4") == 0
    out, err = capsys.readouterr()
    assert "a.png" in out
    assert "b.png" in out
    assert err == "a library's chatter\na line of the log\n"


def test_the_log_is_shown_once_and_only_while_a_command_runs(capsys):
    main()
    main()
    assert capsys.readouterr().err.count("a line of the log") == 2
    assert logging.getLogger("limber_interp").handlers == []


def test_json_on_standard_output_stands_alone(capsys):
    assert main("a.png", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == {"images": ["a.png"], "k": 5}


def test_json_in_a_file_stands_beside_the_table(capsys, tmp_path):
    assert main("a.png", "--json", str(tmp_path / "out.json")) == 0
    assert "a.png" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text()) == {"images": ["a.png"], "k": 5}


def test_a_table_shows_tokens_as_they_are(capsys):
    """rich would read the first as markup (an error), the second as an emoji, and cut the third off a terminal."""
    cells = ["[/bold] [red]", ":dog:", "long " * 60]
    main(*cells)
    out = capsys.readouterr().out
    assert all(cell.strip() in out for cell in cells)


@pytest.mark.parametrize(
    ("args", "status", "line"),
    [
        (["--k", "1"], 2, "k 1: too small; take 2"),
        (["--k", "2"], 1, r"failed: RuntimeError: something broke \(--debug shows where\)"),
        (["--k", "x"], 2, r"Error parsing --k: .*'x' \(--help shows the options\)"),
        (["--k"], 2, r"Missing value for argument '--k'.*"),
        (["--dtype", "int4"], 2, "invalid choice 'int4' for argument '--dtype'.*'bfloat16'.*"),
        (["--jsno", "x"], 2, "Unrecognized options: --jsno, x; nearest: --json .*"),
        (["--json", "/no/such/folder/x.json"], 2, "/no/such/folder/x.json: cannot be written: No such file .*"),
        (["--figure", "x.bmp"], 2, "x.bmp: cannot write a .bmp file; use .png, .pdf, .svg"),
        (["--figure", "/no/x.png"], 2, "/no/x.png: cannot be written: .*"),
    ],
)
def test_one_line_and_a_status(capsys, args: list[str], status: int, line: str):
    assert main(*args) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"echo: {line}", err.splitlines()[-1])
    assert "Traceback" not in err
    assert "chatter" not in err or "--k" in args, "the arguments are checked before the work"


def test_debug_shows_the_traceback(capsys):
    assert main("--k", "2", "--debug") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in echo" in err


def test_a_command_can_find_that_something_does_not_work(capsys):
    assert main("--k", "3") == 1
    assert "Echo" in capsys.readouterr().out


def test_help(capsys):
    assert main("--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    model = ["--config", "--lm", "--encoder-weights", "--projection", "--device", "--dtype", "--seed"]
    for option in [*model, "--json", "--figure", "--debug", "--k"]:
        assert f"{option} " in out
    assert "--no-debug" not in out


def python(*args: str, **kwargs) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, env=env, timeout=600, **kwargs)


HEAVY = {"torch", "transformers", "transformer_lens", "open_clip", "timm", "matplotlib", "deepspeed"}


def imported_by(*args: str) -> set[str]:
    """Top-level packages that a fresh interpreter has imported at the end of `python args`."""
    seen = python("-X", "importtime", *args)
    assert seen.returncode == 0, seen.stderr
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in seen.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("command", sorted(commands()))
def test_nothing_heavy_is_imported_for_help(command: str):
    modules = imported_by("-m", f"limber_interp.{command}", "--help")
    assert "tyro" in modules, "the list of imports could not be read"
    assert not modules & HEAVY


def seconds(*args: str) -> float:
    """Processor time of `python args`, the less of two runs: what else runs on the machine hardly shows in it."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*args).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once(), once())


def test_help_costs_at_most_half_of_importing_torch():
    assert seconds("-m", "limber_interp.nearest_tokens", "--help") <= 0.5 * seconds("-c", "import torch")


def test_importing_the_package_imports_next_to_nothing():
    modules = imported_by("-c", "import limber_interp; limber_interp.__version__")
    assert "limber_interp" in modules
    assert not modules & (HEAVY | {"numpy", "PIL", "pydantic"})


def test_an_unknown_public_name():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        limber_interp.lod  # noqa: B018


def test_the_list_of_commands():
    listed = python("-m", "limber_interp").stdout
    assert commands().keys() >= {"caption", "doctor", "nearest_tokens", "train"}
    for name, summary in commands().items():
        assert summary.endswith(".")
        assert re.search(rf"python -m limber_interp\.{name} +{re.escape(summary)}", listed)


def test_every_command_speaks_of_itself_in_one_voice():
    """`--help` shows the dataclass's docstring, the list of commands the file's: the same first line."""
    for name, summary in commands().items():
        tree = ast.parse((REPOSITORY / "limber_interp" / f"{name}.py").read_text())
        (options,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options"]
        assert (ast.get_docstring(options) or "").partition("\n")[0] == summary


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    """`… | head -1` closes the pipe while we write."""
    out = tmp_path / "out.json"
    images = "*(f'image-{i}' for i in range(20000))"
    script = f"import sys\nfrom tests.test_cli import main\nsys.exit(main({images}, '--json', {str(out)!r}))"
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert "BrokenPipe" not in errors
    assert process.returncode == 0
    assert len(json.loads(out.read_text())["images"]) == 20000, "the file is written before the table is shown"
