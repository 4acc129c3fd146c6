"""What the README tells a reader to type: the commands parse, and the Python runs, here on the tiny world."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tyro

import limber_interp
from limber_interp.__main__ import commands
from limber_interp.config import load_config

README = (Path(limber_interp.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition(" #")[0].strip() for line in re.findall(r"^python -m limber_interp\..*$", README, re.MULTILINE)
]
(PYTHON,) = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_every_command_is_shown_but_train():
    shown = {line.split()[2].removeprefix("limber_interp.") for line in COMMANDS}
    assert shown >= commands().keys() - {"train"}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_parses(line: str):
    _, _, module, *args = shlex.split(line)
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    options = tyro.cli(import_module(module).Options, args=args, config=markers)
    if "config" in vars(options):
        load_config(options.config)


def test_the_python_runs(world, images, tmp_path, monkeypatch):
    images[0].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    default = "limber_interp.load()"
    assert PYTHON.count(default) == 1
    names: dict = {}
    exec(PYTHON.replace(default, f"limber_interp.load({str(world.config())!r})"), names)
    assert names["patches"].shape == (4, 32)
    assert names["record"].k == 5
