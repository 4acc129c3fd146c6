import json
import re

import pytest

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
