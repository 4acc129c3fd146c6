import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file

from limber_interp.doctor import main


def diagnose(capsys, *args: str) -> tuple[int, dict]:
    status = main([*args, "--json", "-"])
    return status, json.loads(capsys.readouterr().out)


def test_a_config_that_can_run(world, capsys):
    status, found = diagnose(capsys, "--config", str(world.config()))
    assert status == 0
    assert found["command"] == "doctor"
    assert found["can_run"] is True
    assert [part["state"] for part in found["weights"]] == ["here"] * 3
    assert "0.1 M numbers" in found["weights"][0]["note"]  # the tiny GPT-J: 60,311
    assert found["free_memory"] > 0
    assert "torch" in found["versions"]


def test_what_it_takes_is_held_against_what_is_free(world, capsys, monkeypatch):
    _, found = diagnose(capsys, "--config", str(world.config()))
    tensors = [load_file(folder) for folder in (world.lm / "model.safetensors", world.projection())]
    numbers = [sum(tensor.numel() for tensor in stored.values()) for stored in tensors]
    lm, encoder, projection = (part["memory"] for part in found["weights"])
    assert [lm, projection] == [4 * n / 2**30 for n in numbers]
    clip = load_file(world.encoder() / "model.safetensors")
    kept = [name for name in clip if name.startswith("visual.") and name.endswith(("weight", "bias"))]
    assert encoder == sum(4 * clip[name].numel() for name in kept if "attnpool" not in name) / 2**30
    assert found["needed_disk"] == 0
    assert found["fits"]

    class Memory:
        available = 100_000  # bytes

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    status, found = diagnose(capsys, "--config", str(world.config()))
    assert status == 1
    assert found["weights"][0]["note"].endswith("in bfloat16")
    assert not found["fits"]
    assert not found["can_run"]


def test_gpt_j_6b_and_what_limber_published(capsys):
    _, found = diagnose(capsys, "--config", "clip_linear", "--dtype", "bfloat16", "--projection", "nowhere/proj.ckpt")
    lm, encoder, projection = found["weights"]
    assert lm["state"] in ("hub", "here")
    assert lm["memory"] == pytest.approx(2 * 6_050_882_784 / 2**30)
    assert encoder["memory"] == pytest.approx(4 * 136_202_640 / 2**30)
    assert "`python -m limber_interp.fetch clip_linear` gets it; or put it at" in projection["note"]
    _, found = diagnose(capsys, "--config", "clip_linear", "--lm", "EleutherAI/gpt-j-6B@float16")
    assert found["weights"][0]["download"] in (0, pytest.approx(2 * 6_050_882_784 / 2**30))


def test_the_tables(world, capsys):
    assert main(["--config", str(world.config())]) == 0
    out = capsys.readouterr().out
    assert "clip: can run" in out
    assert str(world.projection()) in out


def test_what_is_missing_is_named_with_its_place(world, capsys):
    status, found = diagnose(capsys, "--config", str(world.config()), "--projection", "limber_weights/none/proj.ckpt")
    assert status == 1
    (missing,) = [part for part in found["weights"] if part["state"] != "here"]
    assert (missing["part"], missing["state"]) == ("projection", "missing")
    assert "limber_weights/none/proj.ckpt, or name another place" in missing["note"]


def test_a_truncated_file_is_named_broken(world, capsys, tmp_path):
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(world.projection().read_bytes()[:-8])
    status, found = diagnose(capsys, "--config", str(world.config()), "--projection", str(torn))
    assert status == 1
    assert found["weights"][2]["state"] == "broken"
    assert "truncated" in found["weights"][2]["note"]


def test_a_shard_that_is_not_there(world, capsys, tmp_path):
    folder = tmp_path / "lm"
    shutil.copytree(world.lm, folder)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"transformer.wte.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    status, found = diagnose(capsys, "--config", str(world.config()), "--lm", str(folder))
    assert status == 1
    assert "names model-00001-of-00002.safetensors, which is not there" in found["weights"][0]["note"]


@pytest.mark.parametrize(
    ("values", "part", "state"),
    [
        ({"lm_name": "nobody/no-such-model"}, 0, "hub"),
        ({"encoder_weights": None, "encoder_name": "nfresnet50", "image_size": 384}, 1, "hub"),
        (
            {
                "encoder_weights": None,
                "encoder_name": "nfresnet50",
                "image_size": 384,
                "pretrained_img_encoder": False,
            },
            1,
            "here",
        ),
        ({"encoder_weights": None}, 1, "broken"),  # an architecture that is described beside its weights alone
        ({"projection": None}, 2, "missing"),
        ({"projection": "none"}, 2, "here"),
    ],
)
def test_where_weights_can_come_from(world, capsys, tmp_path, values: dict, part: int, state: str):
    config = yaml.safe_load(world.config().read_text()) | values
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    status, found = diagnose(capsys, "--config", str(tmp_path / "config.yml"))
    assert found["weights"][part]["state"] == state
    assert status == (0 if state in ("here", "hub") else 1)


def test_an_unknown_config(capsys):
    assert main(["--config", "emoji_clip"]) == 2
    assert "nearest: emoji_clip_linear" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there(world, capsys, device: str):
    assert main(["--config", str(world.config()), "--device", device]) == 2
    assert f"doctor: device '{device}' cannot be used here; take auto, cpu or cuda" in capsys.readouterr().err
