"""What a user can get wrong, through the commands: one line that says so, exit status 2, nothing on standard output."""

import json
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from limber_interp import caption, logit_lens, nearest_tokens
from tests.conftest import World

COMMANDS = {"caption": caption.main, "logit_lens": logit_lens.main, "nearest_tokens": nearest_tokens.main}


class Scene:
    """A good image and a good config, and a folder for what is bad: each case changes one thing."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.image = folder / "good image.png"
        pixels = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        Image.fromarray(pixels.numpy()).save(self.image)

    def file(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def config(self, **values: object) -> list[str]:
        given = yaml.safe_load(self.world.config().read_text()) | values
        return ["--config", self.file("config.yml", yaml.safe_dump(given).encode())]


class Payload:
    """Unpickled by a careless reader, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def pickled(scene: Scene, zipped: bool) -> str:
    path = scene.folder / "proj.ckpt"
    values = {"weight": torch.zeros(2, 2), "more": Payload(scene.folder / "code ran")}
    if zipped:
        torch.save(values, path)
    else:
        path.write_bytes(pickle.dumps(values, protocol=2))
    return str(path)


def misshapen(scene: Scene) -> str:
    tensors = load_file(scene.world.projection()) | {"weight": torch.zeros(32, 255)}
    save_file(tensors, scene.folder / "p.safetensors")
    return str(scene.folder / "p.safetensors")


def folder_without(scene: Scene, part: Path, name: str) -> str:
    copy = Path(shutil.copytree(part, scene.folder / part.name))
    (copy / name).unlink()
    return str(copy)


def torn(scene: Scene, part: Path) -> str:
    copy = Path(shutil.copytree(part, scene.folder / part.name))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return str(copy)


# name -> (the arguments that are wrong, what the message says, as a pattern). An image among them replaces the good one
Case = tuple[Callable[[Scene], list[str]], str]
IMAGES: dict[str, Case] = {
    "no such file": (lambda s: [f"{s.folder}/none.png"], r"none\.png: no such image file"),
    "a folder": (lambda s: [str(s.folder)], r".*: not a file"),
    "not an image": (lambda s: [s.file("text.png", b"text")], r"text\.png: not an image that Pillow can open"),
    "truncated image": (
        lambda s: [s.file("torn.png", s.image.read_bytes()[:4000])],
        r"torn\.png: broken or truncated image",
    ),
    "decompression bomb": (
        lambda s: [s.file("bomb.png", bomb())],
        r"bomb\.png: refused as a decompression bomb; scale it down first",
    ),
    "a long URL of a scheme that is not read": (
        lambda s: ["ftp://host/" + "a" * 300],
        r"scheme 'ftp' is not supported",
    ),
}
MODELS: dict[str, Case] = {
    "unknown config": (
        lambda s: ["--config", "emoji_clip_liner"],
        r"unknown config 'emoji_clip_liner': .*; nearest: emoji_clip_linear",
    ),
    "unknown key": (
        lambda s: s.config(encoder_nam="emoji_clip"),
        r"config\.yml: unknown key 'encoder_nam'; nearest: encoder_name",
    ),
    "value out of its range": (
        lambda s: s.config(image_size=-1),
        r"config\.yml: image_size: .*greater than 0, found -1",
    ),
    "unknown encoder": (
        lambda s: s.config(encoder_name="emoji_clib"),
        r"unknown encoder 'emoji_clib'; nearest: emoji_clip",
    ),
    "missing projection": (
        lambda s: ["--projection", f"{s.folder}/none.safetensors"],
        r"none\.safetensors: no such file; put it there, or give --projection a \.safetensors or LIMBER's \.ckpt",
    ),
    "missing encoder": (
        lambda s: ["--encoder-weights", f"{s.folder}/none"],
        r"encoder weights .*none: no such file or folder; put them there, or name others",
    ),
    "missing language model": (
        lambda s: ["--lm", f"{s.folder}/none"],
        r"none': no such folder; expected a Hugging Face GPT-J folder or a hub id",
    ),
    "language model without weights": (
        lambda s: ["--lm", folder_without(s, s.world.lm, "model.safetensors")],
        r"lm: no weights; expected one of model\.safetensors",
    ),
    "truncated projection": (
        lambda s: ["--projection", s.file("p.safetensors", s.world.projection().read_bytes()[:-8])],
        r"p\.safetensors: truncated or not a safetensors file; fetch it again",
    ),
    "truncated encoder": (
        lambda s: ["--encoder-weights", torn(s, s.world.encoder())],
        r"model\.safetensors: truncated or not a safetensors file; fetch it again",
    ),
    "truncated language model": (
        lambda s: ["--lm", torn(s, s.world.lm)],
        r"model\.safetensors: truncated or not a safetensors file; fetch it again",
    ),
    "wrong shape": (
        lambda s: ["--projection", misshapen(s)],
        r"p\.safetensors: tensor 'weight': found shape \(32, 255\), expected \(32, 256\)",
    ),
    "a pickle that would run code": (
        lambda s: ["--projection", pickled(s, zipped=True)],
        r"proj\.ckpt: not a file of plain tensors, and nothing in it was run",
    ),
    "an old pickle that would run code": (
        lambda s: ["--projection", pickled(s, zipped=False)],
        r"proj\.ckpt: not a file of plain tensors, and nothing in it was run",
    ),
    "device": (lambda s: ["--device", "cuda:99"], r"device 'cuda:99' cannot be used here; take auto, cpu or cuda"),
    "seed": (lambda s: ["--seed", "-1"], r"seed: .*greater than or equal to 0, found -1"),
    "json path": (
        lambda s: ["--json", f"{s.folder}/no/x.json"],
        r"x\.json: cannot be written: No such file or directory",
    ),
    "figure path": (lambda s: ["--figure", f"{s.image}/x.png"], r"x\.png: cannot be written: Not a directory"),
    "figure that is a folder": (lambda s: ["--figure", f"{s.folder}/folder.png"], r"folder\.png: is a folder"),
    "figure of an unknown kind": (
        lambda s: ["--figure", "x.bmp"],
        r"x\.bmp: cannot write a \.bmp file; use \.png, \.pdf, \.svg",
    ),
}
OWN: dict[tuple[str, str], Case] = {
    ("nearest_tokens", "k"): (lambda s: ["--k", "321"], r"k = 321: choose 1 to 320"),
    ("nearest_tokens", "target"): (
        lambda s: ["--targets", "dog,unicorn"],
        r"'unicorn' is not one token of the vocabulary, but .*; nearest that are: ",
    ),
    ("caption", "top-k"): (lambda s: ["--temperature", "1", "--top-k", "321"], r"top_k 321: expected 1 to 320"),
    ("caption", "top-p"): (lambda s: ["--temperature", "1", "--top-p", "0"], r"--top-p 0\.0: expected more than 0"),
    ("caption", "temperature"): (lambda s: ["--temperature", "nan"], r"temperature nan: expected 0 \(greedy\) or"),
    ("caption", "max-new-tokens"): (lambda s: ["--max-new-tokens", "999"], r"max_new_tokens 999: expected 1 to "),
}
CASES = {(command, name): case for name, case in (IMAGES | MODELS).items() for command in COMMANDS} | OWN


@pytest.fixture
def scene(world: World, tmp_path: Path) -> Scene:
    (tmp_path / "folder.png").mkdir()
    return Scene(world, tmp_path)


@pytest.mark.parametrize(("command", "name"), CASES, ids=lambda part: part.replace(" ", "_"))
def test_one_line_and_status_2(scene: Scene, capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    make, pattern = CASES[command, name]
    wrong = make(scene)
    image = [] if name in IMAGES else [str(scene.image)]
    config = [] if "--config" in wrong else ["--config", str(scene.world.config())]
    before = sorted(scene.folder.rglob("*"))
    assert COMMANDS[command]([*image, *wrong, *config]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith(f"{command}: ")
    assert re.search(pattern, line), line
    assert sorted(scene.folder.rglob("*")) == before, "something was written, or the pickle ran"


def test_a_pickle_that_is_trusted_would_have_run(scene: Scene) -> None:
    """The case above would also pass with a file that runs nothing."""
    with open(pickled(scene, zipped=False), "rb") as file:
        pickle.load(file)
    assert (scene.folder / "code ran").exists()


def test_a_good_input_is_accepted(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """What the cases change is all that is wrong with them."""
    for command, main in COMMANDS.items():
        assert main([str(scene.image), "--config", str(scene.world.config()), "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["command"] == command
