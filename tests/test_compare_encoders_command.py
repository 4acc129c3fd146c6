import json
import sys
from pathlib import Path

import nltk.data
import pytest

from limber_interp.compare_encoders import Options, main
from limber_interp.config import DEFAULT_CONFIG, config_names
from limber_interp.records import Comparison


@pytest.fixture
def given(world, folder: Path, tmp_path: Path) -> list[str]:
    return [str(world.config()), "--data", str(folder), "--out", str(tmp_path / "out"), "--max-new-tokens", "4"]


def test_table_json_and_record(given, folder: Path, tmp_path: Path, capsys) -> None:
    paths = {"--json": tmp_path / "out.json", "--figure": tmp_path / "out.svg", "--html": tmp_path / "out.html"}
    written = [str(text) for pair in paths.items() for text in pair]
    assert main([*given, "--tasks", "caption,probe", "--max-images", "6", *written]) == 0
    shown, said = capsys.readouterr()
    values = json.loads((tmp_path / "out.json").read_text())
    assert values["command"] == "compare_encoders"
    assert [entry["name"] for entry in values["entries"]] == ["clip", "blind", "mean image"]
    assert len(values["images"]) == 6
    assert f"{folder}: 6 images" in shown
    (score,) = (s for s in values["scores"] if (s["entry"], s["metric"]) == ("clip", "cider_d"))
    cell = f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}] | {score['chance']:.2f}"
    assert cell in shown
    assert f"*{max(s['value'] for s in values['scores'] if s['metric'] == 'cider_d'):.2f}" in shown
    assert "0 of 3 differences" in shown
    assert "no CLIP was named" in shown
    record = Comparison.load(tmp_path / "out/comparison.npz")
    assert json.loads(record.to_json()) == values
    assert "CIDEr-D" in (tmp_path / "out.svg").read_text()
    assert "Encoders compared" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Traceback" not in said


def test_tasks_that_the_data_cannot_serve_are_named(given, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    page = tmp_path / "out.html"
    assert main([*given, "--max-images", "3", "--html", str(page), "--json", str(tmp_path / "out.json")]) == 0
    shown, said = capsys.readouterr()
    told = page.read_text(encoding="utf-8")
    notes = json.loads((tmp_path / "out.json").read_text())["notes"]
    for task in ("categories", "properties", "vqa"):
        line = f"the task {task} is left out: "
        assert line in shown
        assert line in said
        assert line in told
        assert any(note.startswith(line) for note in notes)
    assert main([*given, "--tasks", "caption, vqa"]) == 2  # named by hand it is refused
    assert "no question with an answer" in capsys.readouterr().err.splitlines()[-1]


def test_json_alone_on_standard_output(given, capsys) -> None:
    assert main([*given, "--tasks", "caption", "--json", "-"]) == 0
    first = capsys.readouterr().out
    assert main([*given, "--tasks", "caption", "--json", "-"]) == 0  # nothing is left to say
    assert capsys.readouterr().out == first
    assert json.loads(first)["tasks"] == ["caption"]


def test_what_is_better_is_named(tmp_path: Path, capsys) -> None:
    """With the embedded suite, where there are differences."""
    assert main(["emoji_clip_linear", "--tasks", "caption", "--dtype", "float32", "--out", str(tmp_path / "out")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (better,) = (" ".join(row) for row in rows if row[:2] == ["CIDEr-D", "emoji_clip_linear"])
    for other in ("emoji_beit_random_linear (", "blind (", "mean image ("):
        assert other in better


def test_without_configs_it_compares_the_embedded_ones() -> None:
    chosen = Options(out=Path("out")).chosen()
    assert chosen[0] == DEFAULT_CONFIG
    assert sorted(chosen) == [name for name in config_names() if name.startswith("emoji_")]
    assert len(chosen) == 6


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "--out FOLDER"),
        (["nowhere", "--out", "out"], "unknown config 'nowhere'"),
        (["--out", "out", "--shots", "one"], "--shots 'one': use numbers and commas"),
        (["--out", "out", "--figure", "out.gif"], "out.gif: cannot write a .gif file"),
        (["--out", "out", "--html", "out.pdf"], "out.pdf: cannot write a .pdf file"),
        (["--out", "out", "--max-rejected", "2"], "--max-rejected 2: expected a share"),
        (["--out", "out", "--tasks", "draw"], "task 'draw' is unknown; nearest: "),
        (["--out", "out", "--tasks", "vqa", "--data", "nowhere"], "nowhere: not there; expected"),
        (["--out", "setup.cfg", "--tasks", "caption"], "setup.cfg"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(args, line: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("setup.cfg").touch()
    assert main(args) == 2
    shown, said = capsys.readouterr()
    assert shown == ""
    assert said.splitlines()[-1].startswith("compare_encoders: ")
    assert line in said.splitlines()[-1]


def test_another_runs_results(given, capsys) -> None:
    assert main([*given, "--tasks", "caption"]) == 0
    assert main([*given, "--tasks", "caption", "--prompt", "The"]) == 2
    assert 'caption.prompt was "A picture of", now "The"' in capsys.readouterr().err.splitlines()[-1]


def test_without_the_libraries_that_measure(given, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "limber_interp.evaluation.comparison", None)
    assert main(given) == 2
    assert "is not installed: pip install 'limber_interp[compare]'" in capsys.readouterr().err
