"""What costs little is checked first: with weights that cannot be read, what is said is what is wrong besides."""

import importlib
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from limber_interp.errors import InputError
from limber_interp.models.limber import Outline, load
from tests.conftest import World

BROKEN = r"lm/model\.safetensors: truncated or not a safetensors file"


@dataclass(frozen=True)
class Dear:
    """A model whose parts are sound but for its weights: opening these is an error, as their download would be dear."""

    folder: Path
    world: World

    @property
    def config(self) -> Path:
        return self.folder / "config.yml"

    @property
    def image(self) -> Path:
        return self.folder / "image.png"


@pytest.fixture
def dear(world: World, images, tmp_path: Path) -> Dear:
    parts = {"lm_name": world.lm, "encoder_weights": world.encoder()}
    for key, part in parts.items():
        parts[key] = shutil.copytree(part, tmp_path / part.name)
    (tmp_path / "lm" / "model.safetensors").write_bytes(b"no weights")
    values = yaml.safe_load(world.config().read_text()) | {key: str(part) for key, part in parts.items()}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(values))
    images[0].save(tmp_path / "image.png")
    return Dear(tmp_path, world)


def of_another_shape(dear: Dear) -> Path:
    path = dear.folder / "p.safetensors"
    save_file(load_file(dear.world.projection()) | {"bias": load_file(dear.world.projection())["bias"][:-1]}, path)
    return path


# What is wrong besides -> the command, its arguments, what it says
CASES: dict[str, tuple[str, Callable[[Dear], list[str]], str]] = {
    "nothing": ("caption", lambda dear: [], BROKEN),
    "no projection": ("caption", lambda dear: ["--projection", "nowhere.ckpt"], r"nowhere\.ckpt: no such file; put it"),
    "a projection to be fetched": (
        "caption",
        lambda dear: ["--projection", "limber_weights/clip_linear/proj.ckpt"],
        r"`python -m limber_interp\.fetch clip_linear` gets it",
    ),
    "a projection of another shape": (
        "nearest_tokens",
        lambda dear: ["--projection", str(of_another_shape(dear))],
        r"tensor 'bias': found shape \(31,\), expected \(32,\)",
    ),
    "no encoder": ("caption", lambda dear: ["--encoder-weights", "nowhere"], r"encoder weights nowhere: no such file"),
    "too long a prompt": (
        "caption",
        lambda dear: ["--prompt", "dog" * 99],
        r"prompt of \d+ positions, 4 of them the im",
    ),
    "too long a caption": ("caption", lambda dear: ["--max-new-tokens", "128"], r"max_new_tokens 128: expected 1 to "),
    "too many tokens to choose from": (
        "caption",
        lambda dear: ["--temperature", "1", "--top-k", "321"],
        r"top_k 321: expected 1 to 320",
    ),
    "top-k without a temperature": ("caption", lambda dear: ["--top-k", "3"], r"top_k and top_p change nothing"),
    "a target that is no token": ("nearest_tokens", lambda dear: ["--targets", "dog,dogg"], r"'dogg' is not one token"),
    "more tokens than there are": ("nearest_tokens", lambda dear: ["--k", "321"], r"k = 321: choose 1 to 320"),
    "a target that no layer could say": ("logit_lens", lambda dear: ["--targets", "dogg"], r"'dogg' is not one token"),
    "no such layer": ("logit_lens", lambda dear: ["--layers", "4"], r"layer 4: the language model has 0"),
    "no such position": ("logit_lens", lambda dear: ["--positions", "9"], r"position 9 of a prompt of 7"),
    "no such patch": ("logit_lens", lambda dear: ["--positions", "2:0"], r"patch \(2, 0\) lies outside the 2 x 2 grid"),
    "too long a prompt for the lens": ("logit_lens", lambda dear: ["--prompt", "dog" * 99], r"prompt of \d+ positions"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "_"))
def test_the_cheap_fault_is_the_one_that_is_said(dear: Dear, capsys, case: str) -> None:
    """A forgotten fetch was found when GPT-J's 12 to 24 GB had come, a target that is no token when all was loaded."""
    command, args, pattern = CASES[case]
    main = importlib.import_module(f"limber_interp.{command}").main
    assert main([str(dear.image), "--config", str(dear.config), *args(dear)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(pattern, err), err


def test_no_weights_are_needed_to_know_the_outline(dear: Dear) -> None:
    told: list[Outline] = []
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        load(dear.config, check=told.append)
    (outline,) = told
    assert (outline.n_layers, outline.n_ctx, outline.prompt_pos, outline.grid) == (3, 128, 4, (2, 2))
    assert outline.vocabulary.n_used == 320
    assert outline.layout("A picture of").n_pos == 4 + len(outline.vocabulary.encode("A picture of"))


@pytest.mark.parametrize("part", ["lm", "clip"])
def test_a_language_model_of_the_hub_is_asked_for_its_weights_last(dear: Dear, monkeypatch, part: str) -> None:
    """Of the hub only what is small is in the cache, as after its own download; there is no network for the rest."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(dear.folder / "hub"))
    cached = dear.folder / "hub" / "models--someone--gpt-j"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(dear.world.lm, cached / "snapshots" / commit, ignore=shutil.ignore_patterns("*.safetensors"))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    told: list[Outline] = []
    if part == "lm":
        with pytest.raises(InputError, match="no weights; expected one of"):
            load(dear.config, lm="someone/gpt-j", check=told.append)
    else:
        with pytest.raises(InputError, match=r"nowhere: no such file; put it there"):
            load(dear.config, lm="someone/gpt-j", projection="nowhere", check=told.append)
    assert len(told) == (part == "lm")


@pytest.mark.parametrize(
    ("module", "args", "needed"),
    [
        ("deepspeed", [], True),
        ("tensorboard", ["--tensorboard", "t"], True),
        ("deepspeed", ["--method", "ridge"], False),
    ],
)
def test_an_extra_that_is_missing(dear: Dear, monkeypatch, capsys, module: str, args: list[str], needed: bool) -> None:
    """DeepSpeed was found missing when everything had been loaded, in the words of Python."""
    from limber_interp.train import main

    monkeypatch.setitem(
        sys.modules, module, None
    )  # as if it were not installed, for who looks for it and who imports it
    monkeypatch.chdir(dear.folder)
    assert main(["--config", str(dear.config), "--data", "nowhere", "--out", "out", *args]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    how = f"{module}, which is not installed: pip install 'limber_interp[train]', or in a checkout: pip install -e "
    assert (f"{how}'.[train]'" in err) == needed
    assert ("nowhere: not there" in err) != needed
    assert not (dear.folder / "out").exists()


def test_all_configs_of_a_comparison_are_looked_at_before_the_first_is_loaded(dear: Dear, folder, capsys) -> None:
    from limber_interp.compare_encoders import main

    second = dear.folder / "second.yml"
    second.write_text(yaml.safe_dump(yaml.safe_load(dear.config.read_text()) | {"projection": "nowhere.ckpt"}))
    given = [str(dear.config), str(second), "--data", str(folder), "--out", str(dear.folder / "out")]
    assert main([*given, "--tasks", "probe"]) == 2
    assert "nowhere.ckpt: no such file; put it there" in capsys.readouterr().err
