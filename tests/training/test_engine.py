import json
from pathlib import Path

import numpy as np
import pytest
import torch

from limber_interp.config import load_config
from limber_interp.errors import InputError
from limber_interp.models.limber import Limber, load
from limber_interp.records import Record
from limber_interp.train import main
from limber_interp.training.data import read_folder
from limber_interp.training.engine import held_out_losses, train
from limber_interp.weights import tensors_sha256

STEPS = 30


@pytest.fixture
def config(world, folder: Path):
    return load_config(
        world.config("clip"), name="tiny", train_steps=STEPS, batch_size=4, lr=0.02, zero_stage=0,
        warmup_num_steps=2, whiten=True, image_embed_dropout_prob=0.0, projection="none",
    )  # fmt: skip


@pytest.mark.parametrize("encoder", ["clip", "nfresnet"])
def test_trains_the_projection_and_nothing_else(
    world, tiny: Limber, folder: Path, tmp_path: Path, config, encoder
) -> None:
    config = config.model_copy(update={**load_config(world.config(encoder), name="tiny").model_dump(
        include={"encoder_name", "encoder_weights", "image_seq_len"})})  # fmt: skip
    before = load(config)
    frozen = {"encoder": tensors_sha256(before.encoder.state_dict()), "lm": tensors_sha256(before.lm.state_dict())}
    run = train(config, folder, tmp_path / "out", held_out=folder)

    losses = [json.loads(line)["loss"] for line in Path(run.log).read_text().splitlines()]
    assert len(losses) == STEPS
    assert run.examples == 9
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    # The images differ by colour and so do the captions: the right image must be worth more than a wrong one.
    assert run.held_out["right"] < run.held_out["wrong"]

    trained = load(config, projection=run.projection)
    assert trained.projection.manifest["training"]["steps"] == STEPS
    assert trained.projection.manifest["shapes"]["n_positions"] == before.encoder.n_positions
    assert trained.projection.manifest["hashes"] == {"encoder": before.encoder.sha256, "lm": before.lm_sha256}
    assert not torch.equal(trained.projection.linear.weight, before.projection.linear.weight)
    after = {"encoder": tensors_sha256(trained.encoder.state_dict()), "lm": tensors_sha256(trained.lm.state_dict())}
    assert after == frozen


def test_one_example_has_no_wrong_image(world, tiny: Limber, folder: Path) -> None:
    (first, *_) = read_folder(folder)
    encoded = tiny.encode([first.image])[None, 0].numpy()
    assert held_out_losses(tiny, [first], encoded).keys() == {"right", "none"}


def test_a_soft_prompt_that_leaves_no_room_for_a_caption(tiny: Limber, folder: Path) -> None:
    encoded = np.zeros((9, tiny.lm.cfg.n_ctx, tiny.encoder.d_encoder), dtype=np.float32)
    with pytest.raises(InputError, match="soft prompt of 128 positions: the language model has 128, and a caption"):
        held_out_losses(tiny, read_folder(folder), encoded)


def test_the_same_seed_trains_the_same_projection(folder: Path, tmp_path: Path, config) -> None:
    config = config.model_copy(update={"train_steps": 5, "image_embed_dropout_prob": 0.1})
    first, second = (train(config, folder, tmp_path / name) for name in "ab")
    other = train(config.model_copy(update={"seed": 7}), folder, tmp_path / "c")
    logs = [Path(run.log).read_text() for run in (first, second, other)]
    assert logs[0] == logs[1] != logs[2]


def test_a_projection_that_is_there_is_not_replaced(folder: Path, tmp_path: Path, config) -> None:
    (tmp_path / "tiny.safetensors").write_bytes(b"kept")
    with pytest.raises(InputError, match=r"tiny\.safetensors: is there already"):
        train(config, folder, tmp_path)
    assert (tmp_path / "tiny.safetensors").read_bytes() == b"kept"


def test_the_log_of_a_run_that_did_not_end_is_replaced(folder: Path, tmp_path: Path, config) -> None:
    """It made the stage of an interrupted run impossible to repeat."""
    (tmp_path / "tiny.jsonl").write_text("half a li")
    run = train(config.model_copy(update={"train_steps": 1}), folder, tmp_path)
    assert len(Path(run.log).read_text().splitlines()) == 1


def test_a_batch_that_processes_cannot_share(folder: Path, tmp_path: Path, config, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="batch_size 4: 3 processes cannot share it evenly"):
        train(config, folder, tmp_path / "out")
    with pytest.raises(InputError, match="method ridge: runs in one process, found 3; start it without a launcher"):
        train(config, folder, tmp_path / "out", method="ridge")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
        (["--projection", "p.ckpt"], "--projection p.ckpt: training starts from the seed, or from --init FILE"),
        (["--data", "nowhere"], "nowhere: no image_data/<n>/<id>.json in it"),
        (["--out", "{folder}/image_data/0/000.json/out"], "000.json/out: cannot be made: Not a directory"),
        (["--train-steps", "0"], "train_steps: Input should be greater than 0, found 0"),
    ],
)
def test_command_with_bad_input(world, folder: Path, tmp_path: Path, capsys, arguments: list[str], line: str) -> None:
    given = [argument.format(folder=folder) for argument in arguments]
    common = ["--config", str(world.config("clip")), "--data", str(folder), "--out", str(tmp_path / "out")]
    assert main([*common, *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert line in err.splitlines()[-1]


def test_command(world, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(world.config("clip")), "--data", str(folder), "--out", str(tmp_path / "out"),
                 "--held-out", str(folder), "--train-steps", "2", "--batch-size", "4", "--json", "-"]  # fmt: skip
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "train"
    assert report["steps"] == 2
    assert set(report["held_out"]) == {"right", "wrong", "none"}
    assert (tmp_path / "out" / "clip.safetensors").is_file()


def test_command_without_data(world, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(world.config("clip")), "--out", str(tmp_path)]) == 2
    assert "give --data FOLDER" in capsys.readouterr().err


def test_records_of_runs_are_kept(folder: Path, tmp_path: Path, config) -> None:
    run = train(config.model_copy(update={"train_steps": 1}), folder, tmp_path / "out")
    run.save(tmp_path / "run.npz")
    assert Record.load(tmp_path / "run.npz") == run
    assert run.held_out == {}
