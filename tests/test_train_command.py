"""Which held-out data a training is watched on: those that are named, or the config's, where they are."""

import json
from pathlib import Path

import pytest
import yaml

from limber_interp.train import main


@pytest.fixture
def given(world, folder: Path, tmp_path: Path) -> list[str]:
    values = yaml.safe_load(world.config().read_text()) | {"eval_dataset_dir": str(tmp_path / "elsewhere")}
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(values))
    short = ["--train-steps", "1", "--batch-size", "4", "--warmup-num-steps", "1"]
    return ["--config", str(tmp_path / "tiny.yml"), "--data", str(folder), "--out", str(tmp_path / "out"), *short]


def test_held_out_data_of_another_machine(given, tmp_path: Path, capsys) -> None:
    """The config's own `eval_dataset_dir`, a path on the authors' machine, stopped a training on other data."""
    assert main([*given, "--json", str(tmp_path / "run.json")]) == 0
    said = capsys.readouterr().err
    assert f"no held-out loss: the config's eval_dataset_dir cannot be used ({tmp_path}/elsewhere: not there" in said
    assert "--held-out names one" in said
    assert json.loads((tmp_path / "run.json").read_text())["held_out"] == {}


def test_held_out_data_that_are_there(given, folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "elsewhere").symlink_to(folder)
    assert main([*given, "--json", str(tmp_path / "run.json")]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["held_out"].keys() == {"right", "wrong", "none"}
    assert "no held-out loss" not in capsys.readouterr().err


def test_held_out_data_that_are_named_or_broken_are_refused(given, tmp_path: Path, capsys) -> None:
    assert main([*given, "--held-out", "nowhere"]) == 2
    assert "train: nowhere: not there; expected" in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "elsewhere").mkdir()
    assert main(given) == 2
    assert f"train: {tmp_path}/elsewhere: none of the formats" in capsys.readouterr().err.splitlines()[-1]
