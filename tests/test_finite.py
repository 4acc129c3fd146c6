"""Numbers that are not finite stop the work in one line that says where, before anything is written."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from limber_interp import caption, compare_encoders, encode, logit_lens, nearest_tokens, train
from limber_interp.config import load_config
from limber_interp.datasets import open_dataset
from limber_interp.datasets.questions import Question
from limber_interp.encodings import encode as write_encodings
from limber_interp.errors import InputError
from limber_interp.evaluation.captions import captions, mean_logprob
from limber_interp.evaluation.comparison import compare
from limber_interp.evaluation.questions import answers
from limber_interp.finite import not_finite
from limber_interp.models.limber import Limber, load
from limber_interp.probes import logit_lens as lens_of
from limber_interp.probes import nearest_tokens as nearest_to
from limber_interp.training.examples import Told
from limber_interp.training.held_out import held_out_losses

NAN = float("nan")


def edited(folder: Path, to: Path, edit) -> Path:
    """A copy of a folder of weights, with its tensors edited."""
    shutil.copytree(folder, to)
    (path,) = to.glob("*.safetensors")
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, {"format": "pt"})
    return to


def spoil(name: str, place=(0,), value: float = NAN):
    def edit(tensors):
        tensors[name][place] = value

    return edit


def overflow(tensors):
    """Beyond float16 after the second block, and sound in float32."""
    tensors["transformer.h.1.mlp.fc_out.bias"][:] = 6e4
    tensors["transformer.h.2.mlp.fc_out.bias"][:] = 6e4


@pytest.fixture(scope="module")
def projections(world, tmp_path_factory) -> dict[str, str]:
    """Without the hashes of what they were trained with, so that they go with changed weights."""
    root = tmp_path_factory.mktemp("bare")
    for name in ("clip", "nfresnet"):
        torch.save(load_file(world.projection(name)), root / f"{name}.ckpt")
    return {name: str(root / f"{name}.ckpt") for name in ("clip", "nfresnet")}


@pytest.fixture(scope="module")
def lms(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("spoilt")
    edits = {
        "overflow": overflow,
        "attention": spoil("transformer.h.1.attn.out_proj.weight"),
        "ln_final": spoil("transformer.ln_f.bias"),
        "unembedding": spoil("lm_head.bias"),
    }
    return {name: edited(world.lm, root / name, edit) for name, edit in edits.items()}


END = "what ln_final and the unembedding make of the last layer has numbers that are not finite in float32; check the "
WHERE = {
    "overflow": r"the language model's blocks\.2\.hook_resid_post has numbers that are not finite in float16; it ends "
    r"at 65,504: choose --dtype bfloat16 or float32 \(dtype=… in Python\), or check the language model's weights$",
    "attention": r"the language model's blocks\.1\.hook_attn_out has numbers that are not finite in float32; check the "
    r"language model's weights$",
    "ln_final": END,
    "unembedding": END,
}


@pytest.fixture(scope="module")
def spoilt(world, projections, lms):
    def spoilt(fault: str, dtype: str | None = None) -> Limber:
        dtype = dtype or ("float16" if fault == "overflow" else "float32")
        return load(world.config(), lm=lms[fault], projection=projections["clip"], dtype=dtype)

    return spoilt


@pytest.fixture
def spoilt_encoder(world, tmp_path) -> str:
    def edit(tensors):
        tensors["stages.0.0.conv1.weight"][:] = NAN

    return str(edited(world.encoder("nfresnet"), tmp_path / "nf", edit))


@pytest.mark.parametrize("fault", WHERE)
def test_every_function_names_the_place(spoilt, images, fault):
    """A caption was empty, and a lens a figure of NaN."""
    model = spoilt(fault)
    works = [
        lambda: model.caption(images[0]),
        lambda: model.caption(images[0], temperature=1.0),
        lambda: model.generate([["A picture of"], ["A dog"]]),
        lambda: captions(model, images[:1]),
        lambda: mean_logprob(model, ["A"], [3, 4]),
        lambda: lens_of(model, images[0], controls="none"),
        lambda: lens_of(model, model.embed(["A picture of"]), positions="all", controls="none"),
    ]
    for work in works:
        with pytest.raises(InputError, match=WHERE[fault]) as raised:
            work()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", WHERE)
def test_answers_and_held_out_losses(spoilt, fault):
    model = spoilt(fault)
    question = Question(Path("a.png"), "What is it?", ("a dog",), "what", "a")
    with pytest.raises(InputError, match=WHERE[fault]):
        answers(model, [question], [()], None)
    encoding = torch.zeros(2, model.encoder.n_positions, model.encoder.d_encoder)
    with pytest.raises(InputError, match=WHERE[fault]):
        held_out_losses(model, [Told(encoding, [("A dog.",), ("The cat.",)])])


@pytest.mark.parametrize("command", ["encode", "compare"])
def test_a_batch_size_below_one(world, folder, tmp_path, command):
    if command == "encode":
        with pytest.raises(InputError, match="batch_size -1: expected at least 1"):
            write_encodings(load(world.config()).encoder, open_dataset(folder), tmp_path / "out", batch_size=-1)
    else:
        with pytest.raises(InputError, match="batch_size -1: expected at least 1"):
            compare([world.config()], folder, ("caption",), out=tmp_path / "out", batch_size=-1)
    assert not (tmp_path / "out").exists()


def test_compare_encoders_names_the_place(world, projections, lms, folder, tmp_path, capsys):
    """Captions of NaN are empty, and would have been compared as such."""
    values = yaml.safe_load(world.config().read_text())
    values |= {"lm_name": str(lms["attention"]), "projection": projections["clip"]}
    (tmp_path / "clip.yml").write_text(yaml.safe_dump(values))
    args = [str(tmp_path / "clip.yml"), "--data", str(folder), "--out", str(tmp_path / "out"), "--tasks", "caption"]
    assert compare_encoders.main([*args, "--json", str(tmp_path / "out.json")]) == 2
    assert re.search(WHERE["attention"], capsys.readouterr().err.splitlines()[-1])
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_overflows_in_float16_alone_is_sound_otherwise(spoilt, images, dtype):
    model = spoilt("overflow", dtype)
    assert model.generate([images[0], "A picture of"], 2)
    assert json.loads(lens_of(model, images[0], controls="none").to_json())["images"]


def test_the_prompt_is_named(spoilt, images, tmp_path):
    model = spoilt("attention")
    images[0].save(tmp_path / "dog.png")
    with pytest.raises(InputError, match=r"^.*dog\.png: the language model's"):
        model.caption(tmp_path / "dog.png")
    with pytest.raises(InputError, match=r"^prompt 'A picture of': the language model's"):
        model.generate(["A picture of"])


def test_a_prompt_of_ones_own_that_is_not_finite(tiny, images):
    """In a batch, the row is found."""
    vectors = tiny.soft_prompt(images[:2])
    vectors[1, 2] = torch.inf
    with pytest.raises(
        InputError, match=r"^<soft prompt>: the prompt itself \(the soft prompt, .* check the encoder's"
    ):
        tiny.generate([[v, "A picture of"] for v in vectors])
    prompt = tiny.embed([[v, "A picture of"] for v in vectors])
    error = not_finite(tiny.lm, prompt.residual, prompt.attention_mask, ["first", "second"])
    assert str(error).startswith("second: ")


def test_a_hook_that_writes_nan_is_named(tiny, images):
    def spoil(values, hook):
        return values * NAN

    with (
        tiny.lm.hooks([("blocks.1.hook_mlp_out", spoil)]),
        pytest.raises(InputError, match=r"hook_mlp_out has .* or look at the hooks .* \(blocks\.1\.hook_mlp_out\)$"),
    ):
        tiny.caption(images[0])
    assert tiny.caption(images[0])


def test_an_encoders_weights(world, projections, spoilt_encoder, images):
    """The caption was empty."""
    config = load_config(world.config("nfresnet"), encoder_weights=spoilt_encoder)
    model = load(config, projection=projections["nfresnet"])
    line = r"the encoder emoji_nfresnet makes of it is not finite; check the encoder's weights"
    for work in (model.encode, model.soft_prompt, model.caption, model.image_prompts):
        with pytest.raises(InputError, match=line):
            work(images)
    for probe in (lens_of, nearest_to, captions):
        with pytest.raises(InputError, match=line):
            probe(model, images)


@pytest.mark.parametrize("fault", ["overflow", "unembedding"])
@pytest.mark.parametrize("command", [caption, logit_lens])
def test_commands_end_before_they_write(world, projections, lms, images, tmp_path, capsys, command, fault):
    images[0].save(tmp_path / "dog.png")
    out, sheet = tmp_path / "out.json", tmp_path / "sheet.png"
    args = [str(tmp_path / "dog.png"), "--config", str(world.config()), "--lm", str(lms[fault])]
    args += ["--projection", projections["clip"], "--figure", str(sheet), "--json", str(out)]
    args += ["--dtype", "float16" if fault == "overflow" else "float32"]
    assert command.main(args) == 2
    shown, err = capsys.readouterr()
    assert shown == ""
    assert re.search(WHERE[fault], err.splitlines()[-1])
    assert not out.exists()
    assert not sheet.exists()


@pytest.mark.parametrize("command", [caption, logit_lens, nearest_tokens])
def test_commands_with_a_spoilt_encoder(world, projections, spoilt_encoder, images, tmp_path, capsys, command):
    images[0].save(tmp_path / "dog.png")
    args = [str(tmp_path / "dog.png"), "--config", str(world.config("nfresnet")), "--encoder-weights", spoilt_encoder]
    args += ["--projection", projections["nfresnet"], "--json", str(tmp_path / "out.json")]
    assert command.main(args) == 2
    assert "dog.png: what the encoder" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.json").exists()


def test_encode_names_the_image(folder, spoilt_encoder, world, tmp_path, capsys):
    args = ["--data", str(folder), "--config", str(world.config("nfresnet")), "--encoder-weights", spoilt_encoder]
    assert encode.main([*args, "--out", str(tmp_path / "out")]) == 2
    assert re.search(r"0/000: its encoding is not finite", capsys.readouterr().err.splitlines()[-1])


def test_training_names_the_place(world, projections, lms, folder, tmp_path, capsys):
    """It told to lower lr, where the language model's weights were at fault."""
    args = ["--data", str(folder), "--config", str(world.config()), "--lm", str(lms["attention"]), "--train-steps", "1"]
    assert train.main([*args, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"step 0: .*the language model's blocks\.1\.hook_attn_out has numbers that are not finite", line)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_token_matrix(world, projections, tmp_path, images):
    folder = edited(world.lm, tmp_path / "lm", spoil("transformer.wte.weight", (7,)))
    model = load(world.config(), lm=folder, projection=projections["clip"])
    with pytest.raises(InputError, match="token matrix: row 7 is not finite; check the language model's weights"):
        nearest_to(model, images[0])
