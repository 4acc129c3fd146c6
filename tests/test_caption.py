import json
import re

import pytest
from PIL import Image

from limber_interp.caption import main


@pytest.fixture
def picture(tmp_path, images) -> str:
    path = tmp_path / "noise.png"
    images[0].save(path)
    return str(path)


def test_table_json_and_figure(world, picture, tmp_path, capsys):
    out, sheet = tmp_path / "out.json", tmp_path / "sheet.png"
    args = [
        picture,
        "--config",
        str(world.config()),
        "--max-new-tokens",
        "4",
        "--json",
        str(out),
        "--figure",
        str(sheet),
    ]
    assert main(args) == 0
    shown = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert values["command"] == "caption"
    assert values["images"][0]["image"] == picture
    assert picture in shown
    assert "(no image)" in shown
    assert f"{values['images'][0]['logprob']:.2f}" in shown
    assert sheet.stat().st_size > 0
    assert values["manifest"]["config"]["encoder_name"] == "emoji_clip"


def test_the_prompt_and_the_seed_reach_the_model(world, picture, capsys):
    def caption(*args: str) -> dict:
        common = [picture, "--config", str(world.config()), "--max-new-tokens", "8", "--json", "-"]
        assert main([*common, *args]) == 0
        return json.loads(capsys.readouterr().out)

    greedy = caption()
    assert greedy == caption()
    assert caption("--prompt", "The dog")["images"] != greedy["images"]
    sampled = ("--temperature", "3", "--top-k", "50", "--top-p", "0.95")
    assert caption(*sampled, "--seed", "1") == caption(*sampled, "--seed", "1")
    assert caption(*sampled, "--seed", "1")["images"] != caption(*sampled, "--seed", "2")["images"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--top-k", "0", "--temperature", "1"], "caption: --top-k 0: expected at least 1"),
        (["--top-p", "1.5", "--temperature", "1"], "caption: --top-p 1.5: expected"),
        (["--temperature", "-1"], "caption: --temperature -1.0: expected"),
        (["--max-new-tokens", "0"], "caption: --max-new-tokens 0: expected"),
        (["--max-new-tokens", "5000"], "caption: max_new_tokens 5000: expected"),
        (["--projection", "no/such.safetensors"], "caption: .*no/such.safetensors"),
        (["--lm", "no/such/folder/lm"], "caption: .*no/such/folder/lm"),
    ],
)
def test_bad_arguments(world, picture, capsys, args: list[str], line: str):
    assert main([picture, "--config", str(world.config()), *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(line, err.splitlines()[-1])


def test_a_bad_image(world, capsys):
    assert main(["no/such.png", "--config", str(world.config())]) == 2
    assert capsys.readouterr().err == "caption: no/such.png: no such image file\n"


def test_a_bad_image_can_be_skipped(world, picture, capsys):
    assert main(["no/such.png", picture, "--config", str(world.config()), "--on-error", "skip", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    values = json.loads(out)
    assert [image["image"] for image in values["images"]] == [picture]
    assert values["manifest"]["notes"][-1] == "skipped no/such.png: no such image file"
    assert err.splitlines()[-1] == "caption: skipped no/such.png: no such image file"


def test_samples_in_table_figure_and_json(world, picture, images, tmp_path, capsys):
    images[1].save(tmp_path / "other.png")
    given = [picture, str(tmp_path / "other.png"), "--config", str(world.config()), "--max-new-tokens", "4"]
    sampled = [*given, "--temperature", "2", "--seed", "1"]
    out, sheets = tmp_path / "out.json", [tmp_path / "1.png", tmp_path / "3.png"]
    assert main([*sampled, "--figure", str(sheets[0])]) == 0
    assert "│ sample" not in capsys.readouterr().out.replace("┃", "│")
    assert main([*sampled, "--n-samples", "3", "--json", str(out), "--figure", str(sheets[1])]) == 0
    rows = capsys.readouterr().out
    values = json.loads(out.read_text())
    assert "│ sample" in rows.replace("┃", "│")
    for image in values["images"]:
        assert len(image["samples"]) == 3
        for sample in image["samples"]:
            assert f"{sample['logprob']:.2f}" in rows
        assert rows.count(image["image"]) == 3
    assert rows.count("(no image)") == 3
    assert values["sampling"] == {"temperature": 2.0, "top_k": None, "top_p": None}
    with Image.open(sheets[0]) as one, Image.open(sheets[1]) as three:
        assert one.width == three.width
        assert one.height < three.height


def test_several_samples_need_a_temperature(world, picture, capsys):
    assert main([picture, "--config", str(world.config()), "--n-samples", "2"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "caption: n_samples 2 at temperature 0 (greedy): all would be the same; set a temperature, such as 1"


def test_a_prompt_that_names_a_file(world, picture, tmp_path, monkeypatch, capsys):
    """It was refused, as an image that would be read as text."""
    monkeypatch.chdir(tmp_path)
    given = [picture, "--config", str(world.config()), "--max-new-tokens", "4", "--json", "-"]
    assert main(given) == 0
    before = json.loads(capsys.readouterr().out)["images"]
    (tmp_path / "A picture of").touch()
    assert main([*given, "--prompt", "A picture of"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == before
    assert main([*given, "--prompt", "noise.png"]) == 0
