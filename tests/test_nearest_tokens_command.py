import io
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from rich.console import Console

from limber_interp.cli import print_table
from limber_interp.nearest_tokens import Options, main, tables
from limber_interp.probes import nearest_tokens as probe
from limber_interp.probes.controls import CONTROLS
from limber_interp.probes.lens import METRICS


@pytest.fixture
def pictures(tmp_path, images) -> list[str]:
    paths = [tmp_path / f"noise_{i}.png" for i in range(3)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return [str(path) for path in paths]


def test_tables_json_and_figures(world, pictures, tmp_path, capsys):
    out, sheet = tmp_path / "out.json", tmp_path / "sheet.png"
    args = [*pictures, "--config", str(world.config()), "--k", "3", "--targets", "dog,car"]
    assert main([*args, "--json", str(out), "--figure", str(sheet)]) == 0
    shown = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert [image["image"] for image in values["images"]] == pictures
    for image in values["images"]:
        assert image["image"] in shown
        assert f"{image['scores'][3][2]:.3f}" in shown
        assert f"{image['norms'][3]:.2f}" in shown
        assert image["targets"].keys() == {"dog", "car"}
        assert f"{image['controls']['noise']['q95']:.3f}" in shown
        p, n = image["targets"]["dog"]["p_words"].values()
        assert f"{p:.3f} (n = {n})" in shown
    for text in ("␣dog", "random_map: the same encoding", "other_images: soft prompts", "  row  ", "hit@3"):
        assert text in shown
    lines = [line for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert len({line.index(".") for line in lines[:4]}) == 1  # aligned
    assert {path.name for path in tmp_path.glob("sheet*")} == {"sheet.png", "sheet-2.png", "sheet-3.png"}


def test_json_alone_on_standard_output(world, pictures, capsys):
    args = [*pictures, "--config", str(world.config("nfresnet")), "--json", "-", "--metric", "euclidean"]
    assert main([*args, "--matrix", "W_U", "--seed", "3", "--n-draws", "2"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["metric"], values["matrix"], values["manifest"]["seed"]) == ("euclidean", "W_U", 3)
    assert values["images"][0]["grid"] is None
    assert max(values["images"][0]["scores"][0]) < 0
    assert values["images"][0]["controls"]["noise"]["n_draws"] == 2


def test_positions_without_places(world, pictures, capsys):
    assert main([pictures[0], "--config", str(world.config("nfresnet")), "--controls", "none"]) == 0
    shown = capsys.readouterr().out
    assert "  row  " not in shown
    assert "no control was run" in shown


def test_tokens_are_no_markup(world, pictures, capsys, monkeypatch):
    """rich read `[/b]` as a closing tag, and fell."""
    monkeypatch.setattr("limber_interp.models.vocabulary.Vocabulary.decode", lambda self, id: " [/b]\x1b[31m\n:dog:")
    assert main([pictures[0], "--config", str(world.config()), "--controls", "none"]) == 0
    assert "␣[/b]\\x1b[31m\\n:dog:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--k", "0"], "--k 0: expected at least 1"),
        (["--k", "321"], "k = 321: choose 1 to 320"),
        (["--k", "many"], "k"),
        (["--targets", "dog,dogg"], "'dogg' is not one token of the vocabulary"),
        (["--metric", "manhattan"], "metric"),
        (["--n-draws", "0"], "--n-draws 0: expected at least 1"),
        (["--targets", ""], "--targets '': word 1 is empty; name words with commas between"),
        (["--targets", ","], "--targets ',': word 1 is empty"),
        (["--targets", "dog,"], "--targets 'dog,': word 2 is empty"),
        (["--targets", "\t\t"], "is no word: it is only white space; name a word"),
        (["--others", "another.png"], "--others: --controls fast takes no other images; leave one of them out"),
        (["--figure", "out.gif"], "out.gif: cannot write a .gif file; use .png, .pdf, .svg"),
        (["--figure", "/nowhere/out.png"], "/nowhere/out.png: cannot be written"),
        (["--json", "/nowhere/out.json"], "/nowhere/out.json: cannot be written"),
    ],
)
def test_bad_arguments(world, pictures, capsys, args, line):
    assert main([*pictures, "--config", str(world.config()), "--controls", "fast", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("nearest_tokens: ")
    assert line in captured.err


def test_a_broken_image_among_good_ones(world, pictures, capsys):
    """Found before the model is loaded, whose folder is not there either."""
    assert main([*pictures, "nowhere.png", "--config", str(world.config()), "--lm", "/nowhere"]) == 2
    assert capsys.readouterr().err == "nearest_tokens: nowhere.png: no such image file\n"


def test_a_broken_image_can_be_skipped(world, pictures, tmp_path, capsys):
    args = ["--config", str(world.config()), "--controls", "fast", "--on-error", "skip"]
    figure = tmp_path / "sheet.png"
    assert main(["nowhere.png", *pictures, *args, "--json", "-", "--figure", str(figure)]) == 0
    out, err = capsys.readouterr()
    values = json.loads(out)
    assert [image["image"] for image in values["images"]] == pictures
    assert values["manifest"]["notes"][-1] == "skipped nowhere.png: no such image file"
    assert err.splitlines()[-1] == "nearest_tokens: skipped nowhere.png: no such image file"
    drawn = [figure, *(tmp_path / f"sheet-{i + 1}.png" for i in range(1, len(pictures)))]
    assert sorted(tmp_path.glob("sheet*.png")) == sorted(drawn)

    assert main(["nowhere.png", "nor.png", *args]) == 2
    assert "none of the 2 images can be opened; the first: nowhere.png: no such" in capsys.readouterr().err


def test_an_unknown_target_offers_words(world, pictures, capsys):
    assert main([*pictures, "--config", str(world.config()), "--targets", "dogs"]) == 2
    assert "dog" in capsys.readouterr().err.split("nearest")[-1]


def test_a_later_figure_is_checked_too(world, pictures, tmp_path, capsys):
    (tmp_path / "sheet-3.png").mkdir()
    assert main([*pictures, "--config", str(world.config()), "--figure", str(tmp_path / "sheet.png")]) == 2
    assert "sheet-3.png: is a folder" in capsys.readouterr().err
    assert not (tmp_path / "sheet.png").exists()


def test_others_by_the_folder(world, pictures, tmp_path, capsys):
    """Of the command nothing could be named, and photographs were held against emoji scenes."""
    args = [pictures[0], "--config", str(world.config()), "--targets", "dog", "--n-draws", "1"]
    out = tmp_path / "out.json"
    assert main([*args, "--others", str(tmp_path), "--json", str(out)]) == 0
    shown, err = capsys.readouterr()
    assert "bundled" not in err
    n = len(pictures) - 1
    assert f"other_images: soft prompts of other images: {n} named as others" in " ".join(shown.split())
    assert f"{1 / (n + 1):.3g} against {n} images" in " ".join(shown.split())
    values = json.loads(out.read_text())
    assert values["images"][0]["controls"]["other_images"]["sources"] == pictures[1:]
    assert list(values["manifest"]["others"]) == pictures[1:]  # the first is given, and counts once

    assert main(args) == 0
    shown, err = capsys.readouterr()
    assert "other_images: soft prompts of other images: 20 bundled emoji scenes" in " ".join(shown.split())
    (line,) = [line for line in err.splitlines() if "bundled" in line]
    assert "20 bundled emoji scenes, which 1 of the 1 images given is not among" in line


def test_an_other_that_is_broken(world, pictures, tmp_path, capsys):
    """Found before the model is loaded, whose folder is not there either; or skipped, and listed."""
    (tmp_path / "broken.png").write_bytes(b"no image")
    args = [pictures[0], "--config", str(world.config()), "--n-draws", "1", "--others", str(tmp_path)]
    line = f"{tmp_path / 'broken.png'}: not an image that Pillow can open"
    assert main([*args, "--lm", "/nowhere"]) == 2
    assert capsys.readouterr().err == f"nearest_tokens: {line}\n"
    assert main([*args, "--on-error", "skip", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == f"nearest_tokens: skipped {line}"
    assert json.loads(out)["manifest"]["notes"][-1] == f"skipped {line}"


def test_nothing_is_cut_at_80_columns(tiny, images):
    """Numbers were cut to `0.…` there, and headings to `hit…`."""
    record = probe(tiny, images, targets=["dog"], n_draws=2)
    for item in tables(record, record.images[0]):
        file = io.StringIO()
        print_table(Console(width=80, file=file, markup=False), item)
        assert "…" not in file.getvalue()
        assert max(map(len, file.getvalue().splitlines())) <= 80


def test_choices_are_those_of_the_probe():
    hints = get_type_hints(Options)
    assert get_args(hints["metric"]) == METRICS
    assert set(get_args(hints["controls"])) == set(CONTROLS)


def test_nothing_heavy_before_the_arguments_are_parsed():
    heavy = "{'torch', 'matplotlib', 'transformers', 'scipy'}"
    code = f"import sys, limber_interp.nearest_tokens; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_an_other_image_is_not_written_over(world, pictures, tmp_path, capsys):
    before = Path(pictures[1]).read_bytes()
    for others in (pictures[1], str(tmp_path)):
        args = [pictures[0], "--config", str(world.config()), "--others", others, "--figure", pictures[1]]
        assert main(args) == 2
        assert "noise_1.png: is read by this command (--others" in capsys.readouterr().err
    assert Path(pictures[1]).read_bytes() == before
