"""The command, on the tiny world; the language model is never opened."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from limber_interp.encode import main
from limber_interp.encodings import open_encodings


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five images, one of them broken."""
    rows = ["path,caption"]
    for index in range(5):
        Image.new("RGB", (20, 30), (50 * index, 0, 90)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,Picture {index}.")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:50])
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path / "t.csv"


def test_command_needs_no_language_model(world, table: Path, tmp_path: Path, capsys) -> None:
    values = yaml.safe_load(world.config("clip").read_text()) | {"lm_name": str(tmp_path / "none")}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(values))
    arguments = ["--config", str(tmp_path / "mine.yml"), "--data", str(table), "--out", str(tmp_path / "e")]
    assert main([*arguments, "--max-rejected", "0.2", "--shard-size", "2", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert "5 images x 4 positions x 256 x 2 bytes" in err
    report = json.loads(out)
    assert {key: report[key] for key in ("command", "out", "kept", "rejected", "shape")} == {
        "command": "encode", "out": str(tmp_path / "e"), "kept": 4, "rejected": 1, "shape": [4, 256]
    }  # fmt: skip
    found = open_encodings(tmp_path / "e")
    assert found.captions(4) == ("Picture 4.",)
    assert np.flatnonzero(~found.kept).tolist() == [3]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "1 of 5 examples cannot be used, more than --max-rejected 1%; the first: 3.png: "),
        (["--max-rejected", "some"], "--max-rejected some: expected a share, such as 1% or 0.01"),
        (["--max-rejected", "101%"], "--max-rejected 101%: expected a share, such as 1% or 0.01"),
        (["--shard-size", "0"], "--shard-size 0: expected at least 1"),
        (["--data", "nowhere"], "nowhere: not there; expected LIMBER's folder, COCO captions .json"),
        (["--images", "nowhere"], "5 of 5 examples cannot be used"),
        (["--encoder-weights", "nowhere"], "nowhere"),
        (["--out", "{table}/e"], "t.csv/e: cannot be made: Not a directory"),
    ],
)
def test_command_with_bad_input(world, table: Path, tmp_path: Path, capsys, arguments: list[str], line: str) -> None:
    common = ["--config", str(world.config("clip")), "--data", str(table), "--out", str(tmp_path / "e")]
    assert main([*common, *(argument.format(table=table) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("encode: ")
