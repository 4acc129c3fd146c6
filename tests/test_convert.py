import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from limber_interp import load
from limber_interp.convert import NOTE, main
from limber_interp.published import BLOB_IDS, ENCODER_LOST, git_blob_id, provenance
from tests.conftest import D_MODEL, World


@pytest.fixture
def checkpoint(world: World, tmp_path: Path) -> Path:
    """As LIMBER saves one: the state dict of an nn.Linear, here for the tiny world's CLIP."""
    torch.save(load_file(world.projection()), tmp_path / "proj.ckpt")
    return tmp_path / "proj.ckpt"


def config(world: World, folder: Path, base: str = "clip", **values: object) -> str:
    given = yaml.safe_load(world.config(base).read_text()) | values
    (folder / "mine.yml").write_text(yaml.safe_dump(given))
    return str(folder / "mine.yml")


def test_what_it_writes(world, checkpoint, tmp_path, capsys):
    arguments = [str(checkpoint), "--config", str(world.config()), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    target = tmp_path / "out" / "clip.safetensors"
    assert found["command"] == "convert"
    assert (found["path"], found["d_encoder"], found["d_model"], found["n_tokens"]) == (str(target), 256, D_MODEL, 1)
    assert found["source"] == provenance(checkpoint)
    assert found["source"]["published"] is None
    assert [path.name for path in target.parent.iterdir()] == ["clip.safetensors"]

    written, read = load_file(target), torch.load(checkpoint, weights_only=True)
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in read)


def test_what_it_writes_is_loaded_and_stays_unverified(world, tiny, checkpoint, images, tmp_path, caplog):
    assert main([str(checkpoint), "--config", str(world.config()), "--out", str(tmp_path)]) == 0
    model = load(world.config(), projection=tmp_path / "clip.safetensors")
    assert model.projection.sha256 == tiny.projection.sha256
    assert torch.equal(model.soft_prompt(images), tiny.soft_prompt(images))
    assert tiny.verified
    assert not model.verified
    assert "unverified projection" in model.manifest().notes[0]
    assert "unverified projection" in caplog.text
    manifest = model.projection.manifest
    assert manifest["source"] == provenance(checkpoint)
    assert manifest["config"]["encoder_name"] == "emoji_clip"
    assert manifest["hashes"] == {"encoder": None, "lm": None}
    assert manifest["notes"] == [NOTE]
    assert "torch" in manifest["versions"]


def test_the_table(world, checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "--config", str(world.config()), "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"source: git_blob_id +│ {git_blob_id(checkpoint)}", out)
    assert re.search(r"shape +│ 256 to 1 x 32", out)
    assert NOTE in out


def test_half_precision_is_kept_exactly(world, checkpoint, tmp_path):
    halves = {name: tensor.half() for name, tensor in load_file(world.projection()).items()}
    torch.save(halves, checkpoint)
    assert main([str(checkpoint), "--config", str(world.config()), "--out", str(tmp_path)]) == 0
    written = load_file(tmp_path / "clip.safetensors")
    assert all(torch.equal(written[name], halves[name].float()) for name in halves)


def test_neither_the_language_model_nor_the_encoders_weights_are_needed(tmp_path, capsys):
    """At LIMBER's true shapes; the width of the language model is what the file says."""
    shapes = {"nfrn50_4096_linear": 2048, "beit_linear": 1024, "clip_linear": 3072}
    for name, d_encoder in shapes.items():
        linear = {"weight": torch.zeros(4096, d_encoder, dtype=torch.float16), "bias": torch.zeros(4096)}
        torch.save(linear, tmp_path / "proj.ckpt")
        assert main([str(tmp_path / "proj.ckpt"), "--config", name, "--out", str(tmp_path), "--json", "-"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["d_encoder"], found["d_model"], found["n_tokens"]) == (d_encoder, 4096, 1)
        (tmp_path / f"{name}.safetensors").unlink()


def test_encoder_weights_that_are_elsewhere(tmp_path):
    values = {"encoder_name": "nfresnet50", "image_size": 384, "image_seq_len": 2, "encoder_weights": "/not/here.pth"}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump({**values, "lm_name": "/nor/here"}))
    torch.save({"weight": torch.zeros(16, 2048), "bias": torch.zeros(16)}, tmp_path / "proj.ckpt")
    assert main([str(tmp_path / "proj.ckpt"), "--config", str(tmp_path / "mine.yml"), "--out", str(tmp_path)]) == 0
    assert load_file(tmp_path / "mine.safetensors")["weight"].shape == (16, 2048)


def test_several_rows_from_one_vector(world, tmp_path):
    torch.save(load_file(world.projection("nfresnet")), tmp_path / "proj.ckpt")
    assert main([str(tmp_path / "proj.ckpt"), "--config", str(world.config("nfresnet")), "--out", str(tmp_path)]) == 0
    model = load(world.config("nfresnet"), projection=tmp_path / "nfresnet.safetensors")
    assert model.projection.n_tokens == 3


@pytest.mark.parametrize("converted", [False, True])
def test_the_projection_whose_encoder_is_lost(world, tmp_path, monkeypatch, converted: bool):
    """Known by its content, as LIMBER's file and after conversion, whatever it is called."""
    path = tmp_path / "renamed.ckpt"
    torch.save(load_file(world.projection("nfresnet")), path)
    monkeypatch.setitem(BLOB_IDS, ENCODER_LOST, git_blob_id(path))
    random = config(world, tmp_path, "nfresnet", pretrained_img_encoder=False)
    if converted:
        assert main([str(path), "--config", random, "--out", str(tmp_path)]) == 0
        path = tmp_path / "mine.safetensors"
    model = load(random, projection=path)
    assert model.projection.published == ENCODER_LOST
    (note,) = model.manifest().notes
    assert note.startswith("unverified projection: ")
    assert "cannot be rebuilt" in note


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"weight": torch.zeros(32, 255), "bias": torch.zeros(32)},
            r"'weight': found shape \(32, 255\), expected \(32, 2",
        ),
        ({"weight": torch.zeros(32, 256)}, r"tensor 'bias' is missing, expected with shape \(32,\)"),
        ({"weight": torch.full((32, 256), torch.nan), "bias": torch.zeros(32)}, "found 8192 of 8192 values NaN or inf"),
        ([1, 2], r"expected a state dict \(names to tensors, .*\), found list"),
    ],
)
def test_a_checkpoint_that_does_not_fit(world, tmp_path, capsys, given: object, message: str):
    torch.save(given, tmp_path / "proj.ckpt")
    assert main([str(tmp_path / "proj.ckpt"), "--config", str(world.config()), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(rf"convert: {tmp_path}/proj.ckpt: .*{message}", err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [{}, {"bias": torch.zeros(2, 2)}, {"bias": torch.zeros(7)}])
def test_a_bias_that_tells_no_width(world, tmp_path, capsys, given: dict):
    torch.save(given, tmp_path / "proj.ckpt")
    path = config(world, tmp_path, "nfresnet", lm_name="/not/here")
    assert main([str(tmp_path / "proj.ckpt"), "--config", path, "--out", str(tmp_path)]) == 2
    assert re.search(r"tensor 'bias': found (none|shape \([27].*\)), expected 3 x d_model", capsys.readouterr().err)


def test_a_published_file_under_another_name(world, checkpoint, tmp_path, monkeypatch, capsys):
    """LIMBER's two BEiTs have projections of one shape."""
    torch.save({"weight": torch.zeros(4096, 1024), "bias": torch.zeros(4096)}, checkpoint)
    monkeypatch.setitem(BLOB_IDS, "beit_ft_linear", git_blob_id(checkpoint))
    assert main([str(checkpoint), "--config", "beit_linear", "--out", str(tmp_path)]) == 2
    assert "proj.ckpt: is LIMBER's beit_ft_linear, found config beit_linear" in capsys.readouterr().err
    assert main([str(checkpoint), "--config", "beit_ft_linear", "--out", str(tmp_path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["source"]["published"] == "beit_ft_linear"


def test_nothing_is_replaced(world, checkpoint, tmp_path, capsys):
    (tmp_path / "clip.safetensors").write_bytes(b"mine")
    assert main([str(checkpoint), "--config", str(world.config()), "--out", str(tmp_path)]) == 2
    assert "clip.safetensors: is there already; move it away" in capsys.readouterr().err
    assert (tmp_path / "clip.safetensors").read_bytes() == b"mine"


def test_nothing_to_convert(world, tmp_path, capsys):
    for path in (tmp_path / "none.ckpt", world.projection()):
        assert main([str(path), "--config", str(world.config()), "--out", str(tmp_path)]) == 2
        assert f"{path}: not a checkpoint to convert; limber_interp.fetch gets LIMBER's" in capsys.readouterr().err
