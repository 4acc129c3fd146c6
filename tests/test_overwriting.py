"""No command writes over what it reads, over another of its results, or over a file that is not its own."""

import importlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from limber_interp import nearest_tokens
from limber_interp.errors import InputError
from limber_interp.overwriting import NamedPath, check_overwriting, check_replaceable, is_ours
from limber_interp.plotting.html import write_page
from limber_interp.plotting.style import write


def drawn(path: Path) -> Path:
    """A figure of this package, which a command may replace but not if it reads it."""
    write(Figure(figsize=(1, 1)), path)
    return path


def photo(path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def another_name_of(path: Path, how: str) -> Path:
    other = path.with_name("other.png")
    match how:
        case "itself":
            return path
        case "another spelling":
            return path.parent / "folder" / ".." / path.name
        case "a link":
            other.symlink_to(path)
        case "a link in a linked folder":
            (path.parent / "linked").symlink_to(path.parent)
            return path.parent / "linked" / path.name
        case "one inode":
            os.link(path, other)
    return other


@pytest.mark.parametrize("how", ["itself", "another spelling", "a link", "a link in a linked folder", "one inode"])
def test_an_input_by_any_name(tmp_path: Path, how: str) -> None:
    (tmp_path / "folder").mkdir()
    read = photo(tmp_path / "in.png")
    written = another_name_of(read, how)
    with pytest.raises(InputError, match=r"--figure .*: is read by this command \(--others"):
        check_overwriting([NamedPath("--others", read)], [NamedPath("--figure", written)])
    check_overwriting([NamedPath("--others", read)], [NamedPath("--figure", tmp_path / "elsewhere.png")])


def test_two_results_that_differ_in_case_alone_are_one_on_some_disks(tmp_path: Path) -> None:
    """They would be one file there, and which of the two it holds would be known to nobody."""
    two = [NamedPath("--json", tmp_path / "Out.html"), NamedPath("--html", tmp_path / "out.html")]
    with pytest.raises(InputError, match=r"--html .*out\.html and --json .*Out\.html are one file; name two"):
        check_overwriting([], two)


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg", ".PNG", ".html", ".json"])
def test_what_an_earlier_run_wrote_is_replaced(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out{ending}"
    match ending:
        case ".html":
            write_page(path, "explorer", (), {})
        case ".json":
            path.write_text('{ "command": "caption", "images": []}')
        case _:
            drawn(path)
    assert is_ours(path)
    check_replaceable(NamedPath("--out", path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.json", b'{"nouns": {}}'),
        ("tasks.json", b'{"command": "rm"}'),
        ("notes.html", b"<html>mine</html>"),
        ("paper.pdf", b"%PDF-1.4 mine"),
        ("drawing.svg", b"<svg/>"),
    ],
)
def test_what_another_wrote_is_not(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="a file is there that limber_interp did not write; move it away"):
        check_replaceable(NamedPath("--json", tmp_path / name))
    (tmp_path / name).write_bytes(b"")  # as `mktemp` makes it
    check_replaceable(NamedPath("--json", tmp_path / name))


CONFIG = "encoder_name: nfresnet50\nimage_size: 384\n"
# command -> arguments, of which one would be lost; what the line says. All of it before anything heavy is imported
CASES: dict[str, tuple[str, Callable[[Path], list[str]], str]] = {
    "the figure of a second image": (
        "nearest_tokens",
        lambda f: [f"{drawn(f / 'in-1.png')}", f"{drawn(f / 'in-2.png')}", "--figure", f"{f}/in.png"],
        r"--figure's .*in-2\.png: is read by this command \(images",
    ),
    "a photo that has the name of the second figure": (
        "nearest_tokens",
        lambda f: [str(photo(f / "a.png")), str(photo(f / "c-2.png")), "--figure", f"{f}/c.png"],
        r"--figure's .*c-2\.png: is read by this command \(images",
    ),
    "a foreign photo that has the name of the second figure": (
        "nearest_tokens",
        lambda f: [str(photo(f / "a.png"))] * 2 + ["--figure", str(photo(f / "c-2.png").with_name("c.png"))],
        r"--figure's .*c-2\.png: a file is there that limber_interp did not write",
    ),
    "the JSON over the image": (
        "caption",
        lambda f: [str(photo(f / "good.png")), "--json", f"{f}/good.png"],
        r"--json .*good\.png: is read by this command \(images",
    ),
    "the JSON over the page": (
        "logit_lens",
        lambda f: [str(photo(f / "good.png")), "--json", f"{f}/x.html", "--html", f"{f}/x.html"],
        r"--html .*x\.html and --json .*x\.html are one file",
    ),
    "the page over a target's figure": (
        "logit_lens",
        lambda f: ["--targets", "dog", "--figure", f"{f}/x.png", "--json", f"{f}/x-dog-ranks.png"],
        r"x-dog-ranks\.png and --json .*x-dog-ranks\.png are one file",
    ),
    "the JSON over the config": (
        "doctor",
        lambda f: ["--config", written(f / "c.yml", CONFIG), "--json", f"{f}/c.yml"],
        r"c\.yml: is read by this command \(--config",
    ),
    "the JSON over the config's projection": (
        "doctor",
        lambda f: [
            "--config", written(f / "c.yml", f"{CONFIG}projection: {f}/p.ckpt\n"),
            "--json", written(f / "p.ckpt", "weights"),
        ],
        r"p\.ckpt: is read by this command \(the config's projection",
    ),
    "the shards into the folder of the data": (
        "encode",
        lambda f: ["--data", str(f), "--out", f"{f}/../{f.name}"],
        r"--out .*: is read by this command \(--data",
    ),
    "a shard over another's list": (
        "encode",
        lambda f: ["--data", f"{f}/d", "--out", str(Path(written(f / "o" / "00000.jsonl", "mine")).parent)],
        r"00000\.jsonl: is there, and no manifest\.json of encodings beside it",
    ),
    "the list of rejected over the report": (
        "encode",
        lambda f: ["--data", str(f), "--out", f"{f}/e", "--json", f"{f}/e/rejected.jsonl", *folder(f / "e")],
        r"--out .* and --json .*rejected\.jsonl are one file",
    ),
    "the converted over the report": (
        "convert",
        lambda f: ["c.ckpt", "--config", "clip_linear", "--out", str(f), "--json", f"{f}/clip_linear.safetensors"],
        r"--out .* and --json .*clip_linear\.safetensors are one file",
    ),
    "the report over the checkpoint": (
        "convert",
        lambda f: [written(f / "c.ckpt", "old"), "--config", "clip_linear", "--out", f"{f}/o", "--json", f"{f}/c.ckpt"],
        r"c\.ckpt: is read by this command \(checkpoint",
    ),
    "the report over what is fetched": (
        "fetch",
        lambda f: ["clip_linear", "--out", str(f), "--json", written(f / "clip_linear" / "proj.ckpt", "")],
        r"--out .* and --json .*proj\.ckpt are one file",
    ),
    "the best projection over the one to start from": (
        "train",
        lambda f: ["--out", str(f), "--init", written(f / "emoji_clip_linear.best.safetensors", "weights")],
        r"--out .*best\.safetensors: is read by this command \(--init",
    ),
    "the log over the report": (
        "train",
        lambda f: ["--out", str(f), "--json", f"{f}/emoji_clip_linear.jsonl"],
        r"--out .* and --json .*emoji_clip_linear\.jsonl are one file",
    ),
    "the results over the report": (
        "compare_encoders",
        lambda f: ["--out", str(f), "--json", f"{f}/results.jsonl"],
        r"--out .* and --json .*results\.jsonl are one file",
    ),
    "the report over the words": (
        "compare_encoders",
        lambda f: ["--out", f"{f}/o", "--words", written(f / "w.json", "{}"), "--json", f"{f}/w.json"],
        r"--json .*w\.json: is read by this command \(--words",
    ),
}  # fmt: skip


def folder(path: Path) -> tuple[str, ...]:
    path.mkdir()
    return ()


def written(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "_"))
def test_commands_refuse_before_any_work(tmp_path: Path, capsys, case: str) -> None:
    command, make, pattern = CASES[case]
    args = make(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert importlib.import_module(f"limber_interp.{command}").main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"{command}: ")
    assert re.search(pattern, err), err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_yesterdays_results_make_room(world, images, tmp_path: Path, capsys) -> None:
    """Of the same command, under the same names, the derived ones too."""
    pictures = []
    for i, image in enumerate(images[:2]):
        pictures.append(str(tmp_path / f"{i}.png"))
        image.save(pictures[-1])
    args = [*pictures, "--config", str(world.config()), "--controls", "none"]
    results = ["--figure", str(tmp_path / "out.svg"), "--json", str(tmp_path / "out.json")]
    assert nearest_tokens.main([*args, *results, "--k", "2"]) == 0
    assert nearest_tokens.main([*args, *results, "--k", "1"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["k"] == 1
    assert (tmp_path / "out-2.svg").exists()
    capsys.readouterr()
    (tmp_path / "out-2.svg").write_text("<svg>mine</svg>")
    assert nearest_tokens.main([*args, *results]) == 2
    assert "out-2.svg: a file is there that limber_interp did not write" in capsys.readouterr().err
    assert (tmp_path / "out-2.svg").read_text() == "<svg>mine</svg>"
