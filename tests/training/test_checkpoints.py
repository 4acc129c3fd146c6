"""Runs that stop and go on: the losses of an uninterrupted run, whatever lies in the folder."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from limber_interp.config import LimberConfig, load_config
from limber_interp.datasets import open_dataset
from limber_interp.encodings import Encodings, encode
from limber_interp.errors import InputError
from limber_interp.models.limber import Limber
from limber_interp.train import main
from limber_interp.training.checkpoints import CONTENTS, Checkpoints, _no_code_from_pickles
from limber_interp.training.engine import train


@pytest.fixture
def config(world) -> LimberConfig:
    """Dropout, two captions' choice and a schedule that moves: what a run that goes on could get wrong."""
    return load_config(
        world.config("clip"), name="tiny", train_steps=9, batch_size=4, lr=0.02, zero_stage=1, warmup_num_steps=3,
        lr_decay_iters=9, whiten=True, image_embed_dropout_prob=0.2, projection="none", save_every=3,
    )  # fmt: skip


@pytest.fixture
def captioned(folder: Path) -> Path:
    """Every image with a second caption, so that there is something to choose."""
    for file in folder.glob("image_data/*/*.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "captions": [*record["captions"], "A large boat."]}))
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "tiny.jsonl").read_text().splitlines()]


def alone() -> dict[str, str]:
    """The environment for a process that is no rank of this one's group, which earlier tests have made."""
    group = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in group}
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def interrupted(config: LimberConfig, data: Path | Encodings, out: Path, after: int, **more: Any) -> None:
    """A run that ends with an exception in the step after `after`, as a killed one would, but without its exit."""

    def stop(items, description):
        for item in items:
            if item == after:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        train(config, data, out, progress=stop, **more)


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(captioned: Path, tmp_path: Path, config) -> None:
    whole = train(config, captioned, tmp_path / "whole")
    expected = losses(tmp_path / "whole")
    assert len(set(expected)) == 9

    interrupted(config, captioned, tmp_path / "out", after=5)
    assert losses(tmp_path / "out") == expected[:5], "the log is ahead of the checkpoint of step 3"
    torch.manual_seed(123)
    run = train(config, captioned, tmp_path / "out", resume=True)
    assert losses(tmp_path / "out") == expected
    assert run.steps == 9
    assert run.loss == whole.loss
    first, second = (Path(r.projection).read_bytes() for r in (whole, run))
    weights = slice(-4 * 300, None)  # behind the header, which holds times and paths
    assert first[weights] == second[weights]


def test_the_newest_whole_one_is_found_by_looking(captioned: Path, tmp_path: Path, config) -> None:
    interrupted(config, captioned, tmp_path / "out", after=8)
    checkpoints = Checkpoints(tmp_path / "out" / "tiny.checkpoints")
    assert [checkpoint.step for checkpoint in checkpoints.whole()] == [3, 6]
    newest = checkpoints.folder / "step-00000006"
    shutil.copytree(newest, checkpoints.folder / ".step-00000007.tmp")
    shutil.copytree(newest, checkpoints.folder / "step-00000009")
    (checkpoints.folder / "step-00000009" / CONTENTS).unlink()
    shutil.copytree(newest, checkpoints.folder / "step-00000008")
    torn = next((checkpoints.folder / "step-00000008").rglob("*.pt"))
    torn.write_bytes(torn.read_bytes()[:-1])
    assert [checkpoint.step for checkpoint in checkpoints.whole()] == [3, 6]
    expected = losses(tmp_path / "out")
    train(config, captioned, tmp_path / "out", resume=True)
    assert losses(tmp_path / "out")[:8] == expected
    assert not list(checkpoints.folder.glob(".*")), "what was half written is gone with the next"


def test_only_the_newest_are_kept(captioned: Path, tmp_path: Path, config) -> None:
    train(config.model_copy(update={"save_every": 2}), captioned, tmp_path / "out")
    found = Checkpoints(tmp_path / "out" / "tiny.checkpoints").whole()
    assert [checkpoint.step for checkpoint in found] == [6, 8]


def test_another_run_is_not_continued(captioned: Path, tmp_path: Path, config, caplog) -> None:
    interrupted(config, captioned, tmp_path / "out", after=4)
    with pytest.raises(InputError, match=r"step-00000003: a run that did not end; go on with --resume, or move"):
        train(config, captioned, tmp_path / "out")
    other = config.model_copy(update={"lr": 0.01, "seed": 2})
    with pytest.raises(InputError, match=r"of another run \(seed 0, now 2, lr 0.02, now 0.01\); give"):
        train(other, captioned, tmp_path / "out", resume=True)
    (tmp_path / "out" / "tiny.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    with pytest.raises(InputError, match=r"tiny.jsonl: holds 1 steps, the checkpoint 3"):
        train(config, captioned, tmp_path / "out", resume=True)
    with caplog.at_level("INFO", logger="limber_interp"):
        train(config.model_copy(update={"train_steps": 1}), captioned, tmp_path / "new", resume=True)
    assert "no whole checkpoint in it; training starts from the beginning" in caplog.text


@pytest.mark.parametrize("live", [False, True])
def test_other_data_of_the_same_count_are_not_gone_on_with(captioned: Path, tmp_path: Path, config, live: bool) -> None:
    """They were accepted, and the loss jumped from 2 to 20."""
    interrupted(config, captioned, tmp_path / "out", after=4, live=live)
    words = Path(shutil.copytree(captioned, tmp_path / "words"))
    record = words / "image_data/0/003.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "captions": ["A cat."]}))
    told = r"step-00000003: of a run on other data than .*words: example 3 \(0/003\) has another name or other captions"
    with pytest.raises(InputError, match=told):
        train(config, words, tmp_path / "out", resume=True, live=live)
    pictures = Path(shutil.copytree(captioned, tmp_path / "pictures"))
    shutil.copy(pictures / "images/000.png", pictures / "images/008.png")
    with pytest.raises(
        InputError, match=r"other data than .*pictures: example 8 \(1/008\) has another image; give the same"
    ):
        train(config, pictures, tmp_path / "out", resume=True, live=live)
    fewer = Path(shutil.copytree(captioned, tmp_path / "fewer"))
    (fewer / "image_data/1/008.json").unlink()
    with pytest.raises(InputError, match=r"of another run \(examples 9, now 8\)"):
        train(config, fewer, tmp_path / "out", resume=True, live=live)


def test_data_that_were_moved_are_the_same(captioned: Path, tmp_path: Path, config) -> None:
    """And whether they are encoded beforehand or as they come. The times of the files are others too."""
    expected = train(config, captioned, tmp_path / "whole").losses
    interrupted(config, captioned, tmp_path / "out", after=4)
    captioned.rename(tmp_path / "moved")
    for file in (tmp_path / "moved").rglob("*"):
        os.utime(file, (1e9, 1e9))
    np.testing.assert_array_equal(train(config, tmp_path / "moved", tmp_path / "out", resume=True).losses, expected)
    (tmp_path / "out/tiny.safetensors").unlink()
    live = train(config, tmp_path / "moved", tmp_path / "out", resume=True, live=True).losses
    assert live == pytest.approx(expected, rel=1e-2)


def test_another_start_or_other_weights_are_not_gone_on_with(world, captioned: Path, tmp_path: Path, config) -> None:
    """Of the frozen models the paths alone were compared, and of what training started from nothing."""
    interrupted(config, captioned, tmp_path / "out", after=4)
    with pytest.raises(InputError, match=r"of another run \(init None, now '[0-9a-f]{64}'\)"):
        train(config, captioned, tmp_path / "out", resume=True, init=world.projection("clip"))
    other = Path(shutil.copytree(world.encoder("clip"), tmp_path / "encoder"))
    moved = config.model_copy(update={"encoder_weights": str(other)})
    tensors = load_file(other / "model.safetensors")
    save_file(
        {name: 1.01 * t if t.is_floating_point() else t for name, t in tensors.items()}, other / "model.safetensors"
    )
    with pytest.raises(InputError, match="of a run on other data than .*: the encoder's weights are others"):
        train(moved, captioned, tmp_path / "out", resume=True)
    shutil.copy(world.encoder("clip") / "model.safetensors", other / "model.safetensors")
    assert train(moved, captioned, tmp_path / "out", resume=True).steps == 9


def test_a_checkpoint_that_knows_no_data_is_refused(captioned: Path, tmp_path: Path, config) -> None:
    interrupted(config, captioned, tmp_path / "out", after=4)
    contents = tmp_path / "out/tiny.checkpoints/step-00000003" / CONTENTS
    record = json.loads(contents.read_text())
    del record["state"]["data"]
    contents.write_text(json.dumps(record))
    with pytest.raises(InputError, match="step-00000003: does not say what data it was trained on: an earlier release"):
        train(config, captioned, tmp_path / "out", resume=True)


def test_tensorboard_forgets_the_steps_that_are_taken_again(captioned: Path, tmp_path: Path, config) -> None:
    """They stood there twice."""
    events = tmp_path / "events"
    interrupted(config, captioned, tmp_path / "out", after=5, tensorboard=events)
    run = train(config, captioned, tmp_path / "out", resume=True, tensorboard=events)
    shown = EventAccumulator(str(events)).Reload().Scalars("loss")
    assert [event.step for event in shown] == list(range(9))
    np.testing.assert_allclose([event.value for event in shown], run.losses, rtol=1e-6)


def test_a_run_that_was_cut_off_after_its_last_checkpoint_still_writes_its_projection(
    captioned: Path, tmp_path: Path, config
) -> None:
    """No step is left to take then."""
    whole = train(config, captioned, tmp_path / "out")
    Path(whole.projection).unlink()
    run = train(config, captioned, tmp_path / "out", resume=True)
    np.testing.assert_array_equal(run.losses, whole.losses)
    assert Path(run.projection).is_file()


def test_a_pickle_in_a_checkpoint_does_not_run(captioned: Path, tmp_path: Path, config) -> None:
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    interrupted(config, captioned, tmp_path / "out", after=4)
    checkpoints = Checkpoints(tmp_path / "out" / "tiny.checkpoints")
    (state,) = checkpoints.newest().path.rglob("*model_states.pt")
    torch.save({"module": Attack()}, state)
    contents = checkpoints.folder / "step-00000003" / CONTENTS
    record = json.loads(contents.read_text())
    record["files"][str(state.relative_to(contents.parent))] = state.stat().st_size
    contents.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"step-00000003: .* nothing in it was run \(Weights only load failed\); move"):
        train(config, captioned, tmp_path / "out", resume=True)
    assert not (tmp_path / "ran").exists()


class Getattr:
    """Pickled as Python 3.11.0 to 3.11.3 pickle the members of an enum: a call of `getattr`."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


def test_an_enum_pickled_by_getattr_is_read_and_nothing_else_is_got(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    torch.save({"zero_stage": Getattr(ZeroStageEnum, "gradients")}, file)
    with _no_code_from_pickles():
        assert torch.load(file)["zero_stage"] is ZeroStageEnum.gradients
    with pytest.raises(pickle.UnpicklingError, match="getattr"):
        torch.load(file)
    torch.save({"zero_stage": Getattr(LossScaler, "__init__")}, file)
    with _no_code_from_pickles(), pytest.raises(pickle.UnpicklingError, match="members of ZeroStageEnum alone"):
        torch.load(file)


def test_a_killed_process_is_resumed(world, captioned: Path, tmp_path: Path, config) -> None:
    """kill -9 after the first checkpoint, wherever the process then is."""
    out = tmp_path / "out"
    given = ["--config", str(world.config("clip")), "--data", str(captioned), "--batch-size", "4"]
    every = ["--save-every", "2", "--out", str(out)]
    command = [
        sys.executable,
        "-m",
        "limber_interp.train",
        *given,
        *every,
        "--train-steps",
        "1000000",
    ]  # more than it has time for
    environment = alone()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    checkpoints = Checkpoints(out / "clip.checkpoints")
    deadline = time.monotonic() + 600
    while not checkpoints.whole() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    step = checkpoints.newest().step
    steps = str(step + 1)
    assert main([*given, *every, "--resume", "--train-steps", steps]) == 0
    resumed = [json.loads(line)["loss"] for line in (out / "clip.jsonl").read_text().splitlines()]
    assert main([*given, "--out", str(tmp_path / "whole"), "--train-steps", steps]) == 0
    whole = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "clip.jsonl").read_text().splitlines()]
    assert resumed == whole


@pytest.mark.slow
def test_two_processes(world, captioned: Path, tmp_path: Path) -> None:
    """They share every batch, and a resumed run is the one that was never left: ZeRO 2, a part per process."""

    def run(out: str, steps: int, *more: str) -> list[float]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        given = ["--config", str(config), "--data", str(captioned), "--batch-size", "4", "--out", str(tmp_path / out)]
        words = [*launcher, "-m", "limber_interp.train", *given, "--train-steps", str(steps), *more, "--json", "-"]
        done = subprocess.run(words, env=alone(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["steps"] == steps, "one process alone reports"
        (tmp_path / out / "two.safetensors").rename(tmp_path / out / "moved.safetensors")
        return [json.loads(line)["loss"] for line in (tmp_path / out / "two.jsonl").read_text().splitlines()]

    config = tmp_path / "two.yml"
    settings = "zero_stage: 2\nimage_embed_dropout_prob: 0.2\nlr: 0.02\nwarmup_num_steps: 2\nbf16: false\n"
    config.write_text(world.config("clip").read_text() + settings)
    whole = run("whole", 6)
    assert run("parts", 4, "--save-every", "3") == whole[:4]
    assert run("parts", 6, "--resume") == whole
    one = [sys.executable, "-m", "limber_interp.train", "--config", str(config), "--data", str(captioned)]
    one += ["--batch-size", "4", "--out", str(tmp_path / "parts"), "--train-steps", "6", "--resume"]
    done = subprocess.run(one, env=alone(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "was written by 2 processes, here are 1; start as many" in done.stderr.splitlines()[-1]


def test_a_disk_that_fills_up(tiny: Limber, captioned: Path, tmp_path: Path, config) -> None:
    """One line; nothing half-written is left, and the checkpoint of before goes on."""
    encodings = encode(tiny.encoder, open_dataset(captioned), tmp_path / "encodings")
    whole = train(config, encodings, tmp_path / "whole")
    interrupted(config, encodings, tmp_path / "out", after=4)
    largest = max(path.stat().st_size for path in (tmp_path / "out").rglob("*.pt"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, hard))
    try:
        with pytest.raises(
            InputError, match=r"no checkpoint of step 6 could be written \(\d+.\d MiB free\): .*goes on after step 3"
        ):
            train(config, encodings, tmp_path / "out", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints = Checkpoints(tmp_path / "out" / "tiny.checkpoints")
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000003"]
    run = train(config, encodings, tmp_path / "out", resume=True)
    np.testing.assert_array_equal(run.losses, whole.losses)


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"files": ["a"]},
        {"files": {"a": "1"}},
        {"files": {"../outside": 1}},
        {"state": []},
        {"ranks": "1"},
        {"ranks": 0},
        {"step": 4},
        {"step": None},
    ],
)
def test_contents_that_are_none_make_no_checkpoint(tmp_path: Path, edit: dict) -> None:
    """They were raised over, or taken: a step that is another than the folder's name says."""
    folder = tmp_path / "step-00000003"
    folder.mkdir()
    (folder / "a").write_text("1")
    contents = {"step": 3, "ranks": 1, "state": {"seed": 0}, "files": {"a": 1}}
    (folder / CONTENTS).write_text(json.dumps(contents))
    newest = Checkpoints(tmp_path).newest()
    assert newest is not None
    assert (newest.step, newest.state) == (3, {"seed": 0, "ranks": 1})
    (folder / CONTENTS).write_text(json.dumps({**contents, **edit} if edit else [contents]))
    assert Checkpoints(tmp_path).newest() is None
