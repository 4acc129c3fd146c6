import io
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from rich.console import Console

from limber_interp.cli import print_table
from limber_interp.logit_lens import Options, main, tables
from limber_interp.probes import logit_lens as probe
from limber_interp.probes.controls import CONTROLS, DESCRIPTIONS


@pytest.fixture
def pictures(tmp_path, images) -> list[str]:
    paths = [tmp_path / f"noise_{i}.png" for i in range(2)]
    for image, path in zip(images, paths, strict=False):
        image.save(path)
    return [str(path) for path in paths]


def test_tables_json_figures_and_page(world, pictures, tmp_path, capsys):
    out, sheet, page = tmp_path / "out.json", tmp_path / "sheet.png", tmp_path / "explorer.html"
    args = [*pictures, "--config", str(world.config()), "--k", "3", "--targets", "dog,car", "--n-draws", "2"]
    assert main([*args, "--json", str(out), "--figure", str(sheet), "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    unbroken = " ".join(shown.split())  # titles and captions are as wide as their tables
    values = json.loads(out.read_text())
    assert (values["command"], values["layers"]) == ("logit_lens", [0, 1, 2, 3])
    assert [image["image"] for image in values["images"]] == pictures
    for image in values["images"]:
        assert f"{image['image']}: the most probable token by layer" in unbroken
        assert f"{sum(image['entropy'][1]) / 4:.2f}" in shown
        assert image["targets"].keys() == {"dog", "car"}
        assert list(image["controls"]) == list(DESCRIPTIONS)
        best = min(image["targets"]["dog"]["rank"][3])
        assert f"\n     3   {best:>9}   " in shown
    for text in ("target ␣dog: ", "noise (2)", "other_images: soft prompts", "seed 0", "in top 3", "by random_encoder"):
        assert text in unbroken
    of_one = ["", "-dog-ranks", "-dog-patches", "-car-ranks", "-car-patches"]
    expected = {f"sheet{number}{kind}.png" for number in ("", "-2") for kind in of_one}
    assert {path.name for path in tmp_path.glob("sheet*")} == expected
    assert page.read_text().count("noise_1.png") >= 1


def test_json_alone_on_standard_output(world, pictures, capsys):
    args = [pictures[0], "--config", str(world.config("nfresnet")), "--json", "-", "--seed", "3", "--controls", "fast"]
    chosen = ["--layers", "0,-1", "--positions", "0,-1", "--prompt", "A picture"]
    assert main([*args, *chosen, "--n-draws", "2"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["layers"], values["prompt"], values["manifest"]["seed"]) == ([0, 3], "A picture", 3)
    assert values["images"][0]["grid"] is None
    assert values["images"][0]["positions"] == [0, 4]
    assert values["images"][0]["controls"]["noise"]["n_draws"] == 2


def test_patches_by_row_and_column(world, pictures, capsys):
    args = [pictures[0], "--config", str(world.config()), "--controls", "none"]
    assert main([*args, "--positions", "1:0,-1"]) == 0
    shown = capsys.readouterr().out
    assert "1,0" in shown
    assert "␣of" in shown
    assert "no control was run" in shown


def test_a_pooled_encoder_has_no_patches_to_draw(world, pictures, tmp_path):
    args = [pictures[0], "--config", str(world.config("nfresnet")), "--controls", "none", "--targets", "dog"]
    assert main([*args, "--figure", str(tmp_path / "sheet.svg")]) == 0
    assert {path.name for path in tmp_path.glob("sheet*")} == {"sheet.svg", "sheet-dog-ranks.svg"}


def test_the_first_token_of_a_word(world, pictures, capsys):
    args = [pictures[0], "--config", str(world.config()), "--controls", "none", "--targets", "doghouse", "--json", "-"]
    assert main([*args, "--target-first-token"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["targets"]["doghouse"]["token"] == " dog"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--k", "0"], "--k 0: expected at least 1"),
        (["--k", "321"], "k = 321: choose 1 to 320"),
        (["--layers", "4"], "layer 4: the language model has 0 (the input) to 3"),
        (["--layers", "all"], "--layers 'all': use numbers and commas, such as 0,6,-1"),
        (["--positions", "9"], "position 9 of a prompt of 7: count from 0, or from -1 at its end"),
        (["--positions", "2:0"], "patch (2, 0) lies outside the 2 x 2 grid"),
        (["--positions", "1:2:3"], "--positions '1:2:3': use image, text, last, all, or a list such as 0,-1,3:4"),
        (["--positions", "first"], "positions 'first' are unknown; use image, text, last, all"),
        (["--positions", "text", "--prompt", ""], "positions: the prompt has none of 'text'"),
        (["--targets", "dog,dogg"], "'dogg' is not one token of the vocabulary"),
        (["--n-draws", "0"], "--n-draws 0: expected at least 1"),
        (["--targets", ""], "--targets '': word 1 is empty; name words with commas between"),
        (["--targets", ","], "--targets ',': word 1 is empty"),
        (["--targets", "dog,"], "--targets 'dog,': word 2 is empty"),
        (["--targets", "\t\t"], "is no word: it is only white space; name a word"),
        (["--others", "another.png"], "--others: --controls fast takes no other images; leave one of them out"),
        (["--figure", "out.gif"], "out.gif: cannot write a .gif file; use .png, .pdf, .svg"),
        (["--html", "out.txt"], "out.txt: cannot write a .txt file; use .html, .htm"),
        (["--html", "/nowhere/out.html"], "/nowhere/out.html: cannot be written"),
    ],
)
def test_bad_arguments(world, pictures, capsys, args, line):
    assert main([*pictures, "--config", str(world.config()), "--controls", "fast", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("logit_lens: ")
    assert captured.err.count("\n") == 1
    assert line in captured.err


def test_targets_of_the_same_plain_name_have_figures_of_their_own():
    paths = Options(figure=Path("out.png"), targets="!,?,dog,dog").figures(image=1)
    assert [path.name for path in paths.values()] == [
        "out-2.png",
        *(f"out-2-{name}-{kind}.png" for name in ("_1", "_2", "dog") for kind in ("ranks", "patches")),
    ]


def test_a_later_figure_is_checked_too(world, pictures, tmp_path, capsys):
    (tmp_path / "sheet-2-dog-ranks.png").mkdir()
    args = ["--config", str(world.config()), "--figure", str(tmp_path / "sheet.png"), "--targets", "dog"]
    assert main([*pictures, *args]) == 2
    assert "sheet-2-dog-ranks.png: is a folder" in capsys.readouterr().err
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
    assert capsys.readouterr().err == f"logit_lens: {line}\n"
    assert main([*args, "--on-error", "skip", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == f"logit_lens: skipped {line}"
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
    assert set(get_args(get_type_hints(Options)["controls"])) == set(CONTROLS)


def test_nothing_heavy_before_the_arguments_are_parsed():
    heavy = "{'torch', 'matplotlib', 'transformers', 'scipy'}"
    code = f"import sys, limber_interp.logit_lens; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
