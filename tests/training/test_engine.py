import itertools
import json
import shutil
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limber_interp.config import load_config
from limber_interp.datasets import open_dataset
from limber_interp.encodings import Encodings, encode
from limber_interp.errors import InputError
from limber_interp.models.limber import Limber, load
from limber_interp.plotting.training import figure
from limber_interp.records import Record
from limber_interp.train import main
from limber_interp.training import steps
from limber_interp.training.data import order
from limber_interp.training.engine import train
from limber_interp.training.examples import Live, Stored, in_batches, open_data
from limber_interp.training.held_out import held_out_losses
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


def losses_of(log: str | Path) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(log).read_text().splitlines()]


def test_one_example_has_no_wrong_image(tiny: Limber, folder: Path, tmp_path: Path) -> None:
    examples = Stored(encode(tiny.encoder, open_dataset(folder), tmp_path / "e"))
    assert held_out_losses(tiny, in_batches(examples, first=1)).keys() == {"right", "none"}
    # Nine in batches of at most four are three of three, and none is alone
    losses = held_out_losses(tiny, in_batches(examples, batch_size=4))
    assert losses.keys() == {"right", "wrong", "none"}
    assert losses["right"] == pytest.approx(held_out_losses(tiny, in_batches(examples))["right"], rel=1e-5)


def test_a_soft_prompt_that_leaves_no_room_for_a_caption(tiny: Limber, folder: Path, tmp_path: Path) -> None:
    examples = Stored(encode(tiny.encoder, open_dataset(folder), tmp_path / "e"))
    (told,) = in_batches(examples)
    long = told._replace(encoding=told.encoding.repeat(1, tiny.lm.cfg.n_ctx // told.encoding.shape[1], 1))
    with pytest.raises(InputError, match="soft prompt of 128 positions: the language model has 128, and a caption"):
        held_out_losses(tiny, [long])


def test_live_encodings_are_the_stored_ones(tiny: Limber, folder: Path, tmp_path: Path) -> None:
    """The others of a batch may change the last bit of float32, and so of float16."""
    (folder / "images/004.png").write_bytes(b"no image")
    stored = Stored(encode(tiny.encoder, open_dataset(folder), tmp_path / "e", max_rejected=0.2))
    live = Live(tiny.encoder, open_dataset(folder))
    rows = np.array([7, 4, 0, 8])
    (first, second) = (examples.read(rows) for examples in (stored, live))
    assert first.places.tolist() == second.places.tolist() == [0, 2, 3]
    assert first.keys == second.keys == ["1/007", "0/000", "1/008"]
    assert first.captions == second.captions
    assert str(first.rejected[4]) == str(second.rejected[4])
    torch.testing.assert_close(stored.encoding(first), live.encoding(second), rtol=2e-3, atol=1e-4)
    nothing = live.read(np.array([4]))
    assert live.encoding(nothing).shape == (0, live.n_positions, live.d_encoder)


def test_folder_shards_and_live_train_the_same(tiny: Limber, folder: Path, tmp_path: Path, config) -> None:
    config = config.model_copy(update={"train_steps": 8})
    encode(tiny.encoder, open_dataset(folder), tmp_path / "shards", shard_size=4)
    runs = [
        train(config, folder, tmp_path / "folder"),
        train(config, tmp_path / "shards", tmp_path / "from_shards"),
        train(config, folder, tmp_path / "live", live=True),
    ]
    first, second, third = (losses_of(run.log) for run in runs)
    assert first == second
    assert third == pytest.approx(first, rel=1e-2)
    assert not list((tmp_path / "live").glob("*/*.safetensors")), "live keeps nothing"
    assert (tmp_path / "folder/tiny.rejected.jsonl").read_text() == ""


@pytest.mark.parametrize("live", [False, True])
def test_a_rejected_example_drops_out_of_its_batch_and_moves_no_other(
    folder: Path, tmp_path: Path, config, live
) -> None:
    """With no step that changes anything, batches without it have the losses that they had."""
    config = config.model_copy(update={"train_steps": 12, "batch_size": 3, "whiten": False, "lr": 1e-12})
    whole = losses_of(train(config, folder, tmp_path / "a", live=live).log)
    (folder / "images/004.png").write_bytes(b"no image")
    stopped = "(1|2) of 9 examples cannot be used, more than --max-rejected 1%; the first: 0/004"
    with pytest.raises(InputError, match=stopped):
        train(config, folder, tmp_path / "b", live=live)
    run = train(config, folder, tmp_path / "b", max_rejected=0.2, live=live)
    assert (run.examples, run.rejected) == (8, 1)
    (listed,) = map(json.loads, (tmp_path / "b/tiny.rejected.jsonl").read_text().splitlines())
    assert (listed["index"], listed["key"]) == (4, "0/004")
    hit = [4 in rows for rows in islice(order(9, 3, config.seed), 12)]
    assert sum(hit) == 4
    same = [abs(a - b) < 1e-3 for a, b in zip(whole, losses_of(run.log), strict=True)]
    assert same == [not h for h in hit]


def test_a_step_of_which_nothing_is_left(folder: Path, tmp_path: Path, config) -> None:
    (folder / "images/004.png").write_bytes(b"no image")
    config = config.model_copy(update={"batch_size": 1})
    with pytest.raises(InputError, match=r"step \d: all of its examples were rejected; mend the data, or raise"):
        train(config, folder, tmp_path / "out", max_rejected=0.2)
    # Two batches make a step: the other one is left
    config = config.model_copy(update={"gradient_accumulation_steps": 2})
    run = train(config, folder, tmp_path / "out", max_rejected=0.2)
    assert np.isfinite(run.losses).all()


def test_what_is_seen_while_it_trains(world, folder: Path, tmp_path: Path, config) -> None:
    """Held-out losses on the way, the best projection, sheets of captions, TensorBoard, and the curves."""
    config = config.model_copy(update={"eval_every": 10})
    seen: list[int] = []
    evaluated: list[tuple[int, float]] = []
    run = train(
        config, folder, tmp_path / "out", held_out=folder, tensorboard=tmp_path / "events", ckpt=True,
        watch=lambda course: seen.append(course.lines[-1]["step"]),
        evaluated=lambda step, model: evaluated.append((step, float(model.projection.linear.weight.abs().sum()))),
    )  # fmt: skip
    assert seen == list(range(STEPS))
    assert [step for step, _ in evaluated] == [e["step"] for e in run.evaluations] == [10, 20, 30]
    assert len({weight for _, weight in evaluated}) == 3, "each time the projection of that step"
    assert run.evaluations[-1]["right"] == pytest.approx(run.held_out["right"], rel=1e-5)
    best = min(run.evaluations, key=lambda e: e["right"])
    kept = load(config, projection=tmp_path / "out/tiny.best.safetensors").projection
    assert kept.manifest["training"]["steps"] == best["step"]
    assert kept.manifest["training"]["held_out"]["right"] == best["right"]
    lines = [json.loads(line) for line in Path(run.log).read_text().splitlines()]
    assert [line["held_out"]["right"] for line in lines if "held_out" in line] == [e["right"] for e in run.evaluations]
    assert all(line["tokens"] > 0 for line in lines)
    assert run.pace.keys() == {"seconds", "data_seconds", "images_per_s", "tokens_per_s"}
    assert list((tmp_path / "events").glob("events*"))

    final, limbers = (load(config, projection=tmp_path / f"out/tiny.{e}").projection for e in ("safetensors", "ckpt"))
    torch.testing.assert_close(limbers.linear.weight, final.linear.weight)

    figure(run, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > 1000
    with pytest.raises(InputError, match="a closed form has no steps to draw"):
        figure(replace(run, steps=0), tmp_path / "curves.png")


def test_a_loss_that_explodes_stops_the_run_and_names_its_examples(folder: Path, tmp_path: Path, config) -> None:
    config = config.model_copy(update={"lr": 1e37, "warmup_num_steps": 1, "gradient_clipping": 0.0, "whiten": False})
    rows = list(islice(order(9, 4, config.seed), STEPS))
    keys = [example.key for example in map(open_dataset(folder).__getitem__, range(9))]
    with pytest.raises(RuntimeError, match="the loss is") as raised:
        train(config, folder, tmp_path / "out")
    step = int(str(raised.value).split(":")[0].removeprefix("step "))
    assert f"on {', '.join(keys[i] for i in rows[step])}; look at these, or lower lr (1e+37)" in str(raised.value)
    assert len(losses_of(tmp_path / "out/tiny.jsonl")) == step, "what came before is kept"


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
    (tmp_path / "tiny.safetensors").rename(tmp_path / "tiny.ckpt")
    with pytest.raises(InputError, match=r"tiny\.ckpt: is there already"):
        train(config, folder, tmp_path, ckpt=True)
    assert (tmp_path / "tiny.ckpt").read_bytes() == b"kept"


def test_the_log_of_a_run_that_did_not_end_is_replaced(folder: Path, tmp_path: Path, config) -> None:
    """It made the stage of an interrupted run impossible to repeat."""
    (tmp_path / "tiny.jsonl").write_text("half a li")
    run = train(config.model_copy(update={"train_steps": 1}), folder, tmp_path)
    assert len(Path(run.log).read_text().splitlines()) == 1


def test_a_batch_that_processes_cannot_share(folder: Path, tmp_path: Path, config, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
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
        (["--data", "nowhere"], "nowhere: not there; expected LIMBER's folder"),
        (["--max-rejected", "2"], "--max-rejected 2: expected a share"),
        (["--figure", "curves.doc"], "curves.doc: cannot write a .doc file"),
        (
            ["--figure", "c.png", "--method", "ridge"],
            "--figure c.png: --method ridge has no steps to draw; leave it out",
        ),
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
    assert main([*arguments, "--local_rank=0"]) == 0, "DeepSpeed's launcher adds it"
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "train"
    assert report["steps"] == 2
    assert set(report["held_out"]) == {"right", "wrong", "none"}
    assert (tmp_path / "out" / "clip.safetensors").is_file()


def test_command_draws_what_it_sees(world, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(world.config("clip")), "--data", str(folder), "--out", str(tmp_path / "out"),
                 "--held-out", str(folder), "--train-steps", "4", "--batch-size", "4", "--eval-every", "2",
                 "--figure", str(tmp_path / "curves.png")]  # fmt: skip
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out/clip.sheets").iterdir()) == [
        "step-00000002.png",
        "step-00000004.png",
    ]
    assert (tmp_path / "curves.png").is_file()
    shown = capsys.readouterr().out
    assert "held-out, no image" in shown
    assert "caption tokens/s" in shown


class Clock:
    """Counts a millisecond each time that it is read, and what is added to it: no machine makes it run faster."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.001
        return self.now


@pytest.mark.parametrize(("seconds", "bound"), [(0.0, False), (0.5, True)])
def test_a_run_that_waits_for_its_data_says_so(
    world, tiny, folder: Path, tmp_path: Path, capsys, monkeypatch, seconds: float, bound: bool
) -> None:
    """It is read in the steps' own thread here, or the time that reading takes could pass while a step computes."""
    encode(tiny.encoder, open_dataset(folder), tmp_path / "e")
    clock, read = Clock(), Encodings.encoding

    def slowly(self, rows):
        clock.now += seconds
        return read(self, rows)

    monkeypatch.setattr(Encodings, "encoding", slowly)
    monkeypatch.setattr(steps, "time", clock)
    monkeypatch.setattr(steps, "ahead", map)
    arguments = ["--config", str(world.config("clip")), "--data", str(tmp_path / "e"), "--train-steps", "6",
                 "--batch-size", "4", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "run.json")]  # fmt: skip
    assert main(arguments) == 0
    assert ("bound by reading the data: encode it once" in capsys.readouterr().out) is bound
    pace = json.loads((tmp_path / "run.json").read_text())["pace"]
    assert pace["data_seconds"] == pytest.approx(seconds + 0.001)
    assert pace["seconds"] == pytest.approx(seconds + 0.003)


@pytest.mark.parametrize(("fails", "call"), [("evaluated", 2), ("watch", 4)])
def test_what_fails_after_the_last_step_does_not_take_the_projection_with_it(
    folder: Path, tmp_path: Path, config, fails: str, call: int
) -> None:
    """It was written last of all, so that an evaluation that failed lost it."""
    config = config.model_copy(update={"train_steps": 4, "eval_every": 2})

    calls = itertools.count(1)

    def fail(*arguments: object) -> None:
        if next(calls) == call:
            raise OSError("no space left")

    told = r"OSError: no space left; this came after the last step: the trained projection is in .*tiny.safetensors"
    with pytest.raises(RuntimeError, match=told):
        train(config, folder, tmp_path / "out", held_out=folder, ckpt=True, **{fails: fail})
    whole = train(config, folder, tmp_path / "whole", held_out=folder)
    saved, expected = (load(config, projection=tmp_path / f"{out}/tiny.safetensors") for out in ("out", "whole"))
    torch.testing.assert_close(saved.projection.linear.weight, expected.projection.linear.weight, rtol=0, atol=0)
    manifests = [model.projection.manifest["training"] for model in (saved, expected)]
    assert [manifest["steps"] for manifest in manifests] == [4, 4]
    assert [manifest["held_out"] for manifest in manifests] == [{}, whole.held_out]
    assert (tmp_path / "out/tiny.ckpt").is_file()


def test_a_failure_before_the_last_step_leaves_no_projection(folder: Path, tmp_path: Path, config) -> None:
    def fail(course) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="^no space left$"):
        train(config, folder, tmp_path / "out", watch=fail)
    assert not (tmp_path / "out/tiny.safetensors").exists()


def test_held_out_examples_that_cannot_be_used_are_left_out(
    world, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken picture among them ended the run at its first sheet."""
    unseen = Path(shutil.copytree(folder, tmp_path / "unseen"))
    (unseen / "images/000.png").write_bytes(b"no image")
    arguments = ["--config", str(world.config("clip")), "--data", str(folder), "--out", str(tmp_path / "out"), "--live",
                 "--held-out", str(unseen), "--train-steps", "2", "--batch-size", "4", "--eval-every", "1"]  # fmt: skip
    assert main(arguments) == 0
    assert f"{unseen}: 1 of 9 examples cannot be used; the first: 0/000" in capsys.readouterr().err
    assert len(list((tmp_path / "out/clip.sheets").iterdir())) == 2
    for image in (unseen / "images").iterdir():
        image.write_bytes(b"no image")
    assert main([*arguments, "--out", str(tmp_path / "other")]) == 2
    assert "none of its first 500 examples can be used as held-out data" in capsys.readouterr().err.splitlines()[-1]


def test_a_second_training_into_a_folder_is_refused(folder: Path, tmp_path: Path, config) -> None:
    """They wrote their lines into one log. Under another name it would share the encodings, and is refused too."""
    config = config.model_copy(update={"train_steps": 2})
    refused: list[str] = []

    def second(course) -> None:
        with pytest.raises(InputError, match="out: another training writes into it; wait for its end, or") as caught:
            train(config.model_copy(update={"name": "other"}), folder, tmp_path / "out")
        refused.append(str(caught.value))

    train(config, folder, tmp_path / "out", watch=second)
    assert len(refused) == 2
    assert len(losses_of(tmp_path / "out/tiny.jsonl")) == 2
    train(config.model_copy(update={"name": "other"}), folder, tmp_path / "out")


def test_images_of_the_two_sources(world, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--images` served the training data alone, and was asked for where those of the held-out data were missing."""
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        rows = [{"id": i, "file_name": f"{name}-{i}.png"} for i in range(4)]
        for i, row in enumerate(rows):
            shutil.copy(folder / f"images/00{2 * i}.png", tmp_path / name / row["file_name"])
        told = [{"image_id": i, "caption": "A dog."} for i in range(4)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"images": rows, "annotations": told}))
    arguments = ["--config", str(world.config("clip")), "--data", str(tmp_path / "train.json"), "--out",
                 str(tmp_path / "out"), "--images", str(tmp_path / "train"), "--train-steps", "1", "--batch-size",
                 "2"]  # fmt: skip
    held_out = [*arguments, "--held-out", str(tmp_path / "val.json")]
    assert main(held_out) == 2
    assert "name their folder with --held-out-images" in capsys.readouterr().err.splitlines()[-1]
    assert main([*arguments, "--held-out-images", str(tmp_path / "val")]) == 2
    assert "of no held-out data that are named; give --held-out PATH" in capsys.readouterr().err.splitlines()[-1]
    assert main([*held_out, "--held-out-images", str(tmp_path / "val"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["held_out"].keys() == {"right", "wrong", "none"}


def test_encodings_take_no_folder_of_images(tiny: Limber, folder: Path, tmp_path: Path) -> None:
    encode(tiny.encoder, open_dataset(folder), tmp_path / "e")
    with pytest.raises(InputError, match=f"--images {folder}: .*e holds encodings, whose images are not opened"):
        open_data(tmp_path / "e", folder)


def test_without_deepspeed_the_closed_forms_run_and_training_says_what_to_install(
    world, folder: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All methods imported it, and training said so after everything had been loaded."""
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # neither found nor imported
    given = ["--config", str(world.config("clip")), "--data", str(folder), "--out"]
    assert main([*given, str(tmp_path / "ridge"), "--method", "ridge"]) == 0
    assert (tmp_path / "ridge/clip.safetensors").is_file()
    capsys.readouterr()
    for more in ([], ["--dry-run"]):
        assert main([*given, str(tmp_path / "steps"), *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "is not installed: pip install 'limber_interp[train]', or in a checkout: pip install -e" in line
    assert not (tmp_path / "steps").exists()


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(world, folder: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--config", str(world.config("clip")), "--data", str(folder), "--out", str(tmp_path / "out"),
                 "--train-steps", "1000", "--batch-size", "3", "--gradient-accumulation-steps", "2"]  # fmt: skip
    assert main([*arguments, "--dry-run", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "out").exists()
    model = load(world.config("clip"))
    assert found["trainable"] == sum(p.numel() for p in model.projection.parameters())
    assert found["images_per_step"] == 6
    assert found["epochs"] == pytest.approx(1000 * 6 / 9)
    assert found["encodings_bytes"] == 2 * 9 * model.encoder.n_positions * model.encoder.d_encoder
    assert found["total_seconds"] == pytest.approx(found["encoding_seconds"] + 1000 * found["step_seconds"])
    assert main([*arguments, "--dry-run", "--live"]) == 0
    assert "none" in capsys.readouterr().out


def test_command_without_data(world, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(world.config("clip")), "--out", str(tmp_path)]) == 2
    assert "give --data PATH" in capsys.readouterr().err


def test_records_of_runs_are_kept(folder: Path, tmp_path: Path, config) -> None:
    run = train(config.model_copy(update={"train_steps": 1}), folder, tmp_path / "out")
    run.save(tmp_path / "run.npz")
    loaded = Record.load(tmp_path / "run.npz")
    np.testing.assert_array_equal(loaded.losses, run.losses)
    assert loaded.as_dict() == run.as_dict()
    assert run.held_out == {}
