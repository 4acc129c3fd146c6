"""Every option says what it is, and what it may be is checked before any work."""

import importlib
import math
import types
from dataclasses import MISSING, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest

from limber_interp.__main__ import commands
from limber_interp.config import LimberConfig
from limber_interp.options import Range, Use

PATHS = ("PATH", "FILE", "FOLDER", "CKPT", "IMAGE", "CONFIG")  # of a metavar, those that may name a file
# What a command cannot do without, so that the one option that is wrong is all that is wrong
NEEDED = {
    "encode": ["--data", "nowhere", "--out", "nowhere"],
    "compare_encoders": ["--out", "nowhere", "--data", "nowhere"],
    "train": ["--out", "nowhere", "--data", "nowhere"],
    "nearest_tokens": ["nowhere.png"],
    "logit_lens": ["nowhere.png"],
    "caption": ["nowhere.png"],
}


def options_of(command: str) -> type:
    return importlib.import_module(f"limber_interp.{command}").Options


def types_of(hint: Any) -> set[Any]:
    if hasattr(hint, "__metadata__"):
        return types_of(hint.__origin__)
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(types_of, get_args(hint)))
    return {hint}


def all_options() -> list[tuple[str, str, Any, tuple]]:
    """(command, field, type, marks) of every option of every command."""
    found = []
    for command in commands():
        hints = get_type_hints(options_of(command), include_extras=True)
        for field in fields(options_of(command)):
            found.append((command, field.name, hints[field.name], getattr(hints[field.name], "__metadata__", ())))
    return found


def metavar_of(marks: tuple) -> str:
    named = [mark.metavar for mark in marks if hasattr(mark, "metavar") and mark.metavar]
    return named[0] if named else ""


def test_every_path_is_read_or_written() -> None:
    """An option without the mark could be written over, or write over another."""
    unmarked = [
        f"{command}: {name}"
        for command, name, hint, marks in all_options()
        if any(word in metavar_of(marks) for word in PATHS) or "Path" in str(hint)
        if not any(isinstance(mark, Use) for mark in marks)
    ]
    assert unmarked == [], "mark it READ, WRITTEN or PLACE (limber_interp/options.py)"


NUMBERS = [
    (command, name, hint, marks) for command, name, hint, marks in all_options() if types_of(hint) & {int, float}
]


def test_every_number_has_a_range() -> None:
    """Of the option itself, or as a key of the config that it replaces."""
    assert len(NUMBERS) > 25
    without = [
        f"{command}: {name}"
        for command, name, _, marks in NUMBERS
        if not any(isinstance(mark, Range) for mark in marks) and name not in LimberConfig.model_fields
    ]
    assert without == [], "give it a range, such as at_least(1) (limber_interp/options.py)"


def nonsense() -> list[tuple[str, str, str]]:
    """(command, option, number): each number just outside of its range."""
    found = []
    for command, name, hint, marks in NUMBERS:
        flag = f"--{name.replace('_', '-')}"
        ranges = [mark for mark in marks if isinstance(mark, Range)]
        for of in ranges:
            found.append((command, flag, str(of.least - (0 if of.above else 1))))
            if of.most != math.inf and int in types_of(hint):
                found.append((command, flag, str(of.most + 1)))
        if float in types_of(hint):
            found.append((command, flag, "nan"))
        if not ranges:  # no key of a config may be below 0
            found.append((command, flag, "-1"))
    return found


@pytest.mark.parametrize(("command", "flag", "number"), nonsense())
def test_nonsense_is_refused_in_one_line(capsys, tmp_path, monkeypatch, command: str, flag: str, number: str) -> None:
    """Before any work: neither the images nor the data exist, and nothing says so."""
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(f"limber_interp.{command}").main([*NEEDED.get(command, []), flag, number]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"{command}: ")
    assert flag in err or flag[2:].replace("-", "_") in err
    assert "expected" in err or "should be" in err or "greater than" in err or "less than" in err
    assert list(tmp_path.iterdir()) == []


def test_defaults_are_in_their_ranges() -> None:
    for command, name, _, marks in NUMBERS:
        (default,) = [field.default for field in fields(options_of(command)) if field.name == name]
        for mark in marks:
            if isinstance(mark, Range):
                assert default is None or default is MISSING or default in mark, f"{command}: {name}"
