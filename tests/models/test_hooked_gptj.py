import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformer_lens.pretrained.weight_conversions.gptj import convert_gptj_weights
from transformers import GPTJForCausalLM
from transformers.activations import ACT2FN

from limber_interp.errors import InputError
from limber_interp.models import hooked_gptj
from limber_interp.models.hooked_gptj import hooked_views, lm_sha256, load_hooked_gptj, locate_lm
from limber_interp.models.vocabulary import Vocabulary
from limber_interp.weights import read_tensors


@pytest.fixture(scope="module")
def hf(world) -> GPTJForCausalLM:
    return GPTJForCausalLM.from_pretrained(world.lm, dtype=torch.float32).eval()


@pytest.fixture
def lm_copy(world, tmp_path) -> Path:
    return Path(shutil.copytree(world.lm, tmp_path / "lm"))


def edit_tensors(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def residual(lm, batch: int = 2, pos: int = 9) -> torch.Tensor:
    return torch.randn(batch, pos, lm.cfg.d_model, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_equal_hugging_face(world, hf):
    lm = load_hooked_gptj(world.lm)
    embeddings = residual(lm)
    expected = hf(inputs_embeds=embeddings).logits
    found = lm(embeddings, start_at_layer=0)
    assert expected.std() > 1  # a difference of 1e-4 is small against them
    assert found.shape[-1] > len(lm.tokenizer)  # the vocabulary has padding rows
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.02), (torch.float16, 0.0025)])
def test_half_precision_is_about_as_near_as_hugging_faces(world, hf, dtype: torch.dtype, bound: float):
    """Root mean squared difference to float32, as a share of the logits' standard deviation."""
    embeddings = torch.randn(4, 20, hf.config.n_embd, generator=torch.Generator().manual_seed(1))
    exact = hf(inputs_embeds=embeddings).logits
    theirs = GPTJForCausalLM.from_pretrained(world.lm, dtype=dtype).eval()(inputs_embeds=embeddings.to(dtype)).logits
    ours = load_hooked_gptj(world.lm, dtype=dtype)(embeddings.to(dtype), start_at_layer=0)
    apart = [((logits.float() - exact).square().mean().sqrt() / exact.std()).item() for logits in (ours, theirs)]
    assert apart[0] < bound
    assert apart[0] < 1.5 * apart[1]


@torch.no_grad()
def test_left_padding_changes_nothing(world, hf):
    lm = load_hooked_gptj(world.lm)
    embeddings = residual(lm, batch=1)
    padded = torch.cat([torch.zeros(1, 5, lm.cfg.d_model), embeddings], dim=1)
    mask = torch.tensor([[0] * 5 + [1] * 9])
    found = lm(padded, start_at_layer=0, attention_mask=mask)[:, 5:]
    torch.testing.assert_close(found, hf(inputs_embeds=embeddings).logits, atol=1e-4, rtol=0)


def test_weights_equal_transformer_lens_own_conversion(world, hf):
    lm = load_hooked_gptj(world.lm)
    state = lm.state_dict()
    expected = convert_gptj_weights(hf, lm.cfg)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    buffers = ("mask", "IGNORE", "rotary_sin", "rotary_cos")
    assert {name for name in state if not name.endswith(buffers)} == expected.keys()


def test_weights_are_views_of_the_file(world):
    stored = read_tensors(world.lm)
    for name, view in hooked_views(stored, hooked_gptj._read_config(world.lm)):
        assert any(view.untyped_storage().data_ptr() == t.untyped_storage().data_ptr() for t in stored.values()), name


def test_rotary_tables_and_layer_norm_keep_their_precision(world, hf):
    """In half precision, the tables that TransformerLens makes itself put the logits off; so did its LayerNorm, which
    rounds to the dtype in each module's own cfg, after a model was built in one dtype and cast to another."""
    lm = load_hooked_gptj(world.lm, dtype="bfloat16")
    assert {m.cfg.dtype for m in lm.modules() if hasattr(m, "cfg")} == {torch.bfloat16}
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    angles = torch.arange(lm.cfg.n_ctx)[:, None] / 10_000 ** (torch.arange(0, lm.cfg.rotary_dim, 2) / lm.cfg.rotary_dim)
    for block in lm.blocks:
        assert block.attn.rotary_sin.dtype == block.attn.rotary_cos.dtype == torch.float32
        torch.testing.assert_close(block.attn.rotary_sin, angles.sin().repeat_interleave(2, dim=1))
        torch.testing.assert_close(block.attn.rotary_cos, angles.cos().repeat_interleave(2, dim=1))
    single = load_hooked_gptj(world.lm)
    assert {m.cfg.dtype for m in single.modules() if hasattr(m, "cfg")} == {torch.float32}


def test_frozen_in_eval_mode_and_nothing_folded(world, hf):
    lm = load_hooked_gptj(world.lm)
    assert not any(module.training for module in lm.modules())
    assert not any(parameter.requires_grad for parameter in lm.parameters())
    assert torch.equal(lm.W_E, hf.transformer.wte.weight)
    assert torch.equal(lm.W_U, hf.lm_head.weight.T)


def test_gradients_reach_the_embeddings(world):
    """Training needs them, also where shorter prompts are padded: a fully masked row is 0 / 0 in the softmax."""
    lm = load_hooked_gptj(world.lm)
    embeddings = residual(lm).requires_grad_()
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :4] = 0
    lm(embeddings, start_at_layer=0, attention_mask=mask)[:, -1].logsumexp(-1).sum().backward()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad[0, 4:].abs().min() > 0
    assert embeddings.grad[0, :4].abs().max() == 0


def test_the_tokenizer_adds_nothing(world):
    lm = load_hooked_gptj(world.lm)
    assert lm.tokenizer("A picture of")["input_ids"] == lm.to_tokens("A picture of")[0].tolist()
    assert lm.tokenizer.bos_token_id not in lm.to_tokens("A picture of")
    assert lm.tokenizer.padding_side == "left"


# Texts


@torch.no_grad()
def hugging_face_logits(hf, ids):
    return hf(torch.tensor([ids])).logits[0]


@pytest.fixture(scope="module", params=["a row free for padding", "none free"])
def text_lm(request, world, tmp_path_factory):
    """A tiny GPT-J with free rows, and one whose rows all stand for text: 320, which is all that its tokenizer has."""
    folder = world.lm
    if request.param == "none free":
        folder = Path(shutil.copytree(world.lm, tmp_path_factory.mktemp("full") / "lm"))
        config = json.loads((folder / "config.json").read_text())
        rows = {"transformer.wte.weight", "lm_head.weight", "lm_head.bias"}

        def cut(tensors):
            for name in rows:
                tensors[name] = tensors[name][:320].clone()

        edit_tensors(folder, cut)
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 320}))
    lm = load_hooked_gptj(folder)
    assert lm.tokenizer.padding_side == ("left" if folder == world.lm else "right")
    return lm, GPTJForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


TEXTS = [
    "A picture of a dog",
    "The cat",
    "A large car is to the left of a bus<|endoftext|>The cat",
    "<|endoftext|>A dog",
]


@torch.no_grad()
@pytest.mark.parametrize("prepend_bos", [True, False])
def test_logits_of_tokens_equal_hugging_faces(text_lm, prepend_bos):
    """TransformerLens took a leading end of text for padding, and masked it: logits were off by 5.8."""
    lm, hf = text_lm
    eos = lm.tokenizer.eos_token_id
    for text in TEXTS:
        tokens = lm.to_tokens(text, prepend_bos=prepend_bos)
        assert tokens[0].tolist() == [eos] * prepend_bos + lm.tokenizer(text)["input_ids"]
        expected = hugging_face_logits(hf, tokens[0].tolist())
        torch.testing.assert_close(lm(tokens)[0], expected, atol=1e-4, rtol=0)
        if not prepend_bos:  # a text itself is read without
            torch.testing.assert_close(lm(text)[0], expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(lm.run_with_cache(text)[0][0], expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("prepend_bos", [True, False])
def test_logits_of_texts_of_unequal_lengths_equal_hugging_faces(text_lm, prepend_bos):
    lm, hf = text_lm
    ids = [[lm.tokenizer.eos_token_id] * prepend_bos + lm.tokenizer(text)["input_ids"] for text in TEXTS]
    assert len(set(map(len, ids))) > 2
    tokens = lm.to_tokens(TEXTS, prepend_bos=prepend_bos)
    found = lm(tokens)
    left = lm.tokenizer.padding_side == "left"
    for row, logits, single in zip(tokens, found, ids, strict=True):
        place = slice(len(row) - len(single), None) if left else slice(len(single))
        assert row[place].tolist() == single
        torch.testing.assert_close(logits[place], hugging_face_logits(hf, single), atol=1e-4, rtol=0)


def test_padding_stands_for_no_text(text_lm):
    lm, _ = text_lm
    if lm.tokenizer.padding_side == "left":
        assert lm.tokenizer.pad_token_id >= Vocabulary(lm.tokenizer).n_used
        assert lm.tokenizer.pad_token_id < lm.cfg.d_vocab
    else:
        assert lm.tokenizer.pad_token_id == lm.tokenizer.eos_token_id


@torch.no_grad()
def test_transformer_lens_generates_from_texts_as_hugging_face(text_lm):
    lm, hf = text_lm
    for text in (TEXTS[0], TEXTS[3]):
        tokens = lm.to_tokens(text, prepend_bos=True)
        ids = tokens[0].tolist()
        for _ in range(5):
            ids.append(int(hugging_face_logits(hf, ids)[-1].argmax()))
        found = lm.generate(
            tokens, max_new_tokens=5, do_sample=False, stop_at_eos=False, prepend_bos=False, verbose=False
        )
        assert found[0].tolist() == ids


def test_sharded_and_pickled_checkpoints_load_the_same(world, lm_copy):
    expected, sha256 = load_hooked_gptj(world.lm).state_dict(), lm_sha256(world.lm)
    tensors = load_file(lm_copy / "model.safetensors")
    (lm_copy / "model.safetensors").unlink()

    torch.save(tensors, lm_copy / "pytorch_model.bin")
    found = load_hooked_gptj(lm_copy).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert lm_sha256(lm_copy) == sha256

    # Old checkpoints hold the causal mask beside the weights
    tensors["transformer.h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    shards = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, lm_copy / shard)
    (lm_copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    found = load_hooked_gptj(lm_copy).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert lm_sha256(lm_copy) == sha256

    (lm_copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"names model-00002-of-00002.safetensors, which is not there"):
        load_hooked_gptj(lm_copy)


def test_the_hash_notices_one_value(world, lm_copy):
    def edit(tensors):
        tensors["lm_head.bias"][3] += 1

    edit_tensors(lm_copy, edit)
    assert lm_sha256(lm_copy) != lm_sha256(world.lm)


def test_auto_dtype_on_a_cpu(world, lm_copy, monkeypatch, caplog):
    edit_tensors(lm_copy, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    assert load_hooked_gptj(lm_copy, device="cpu").cfg.dtype == torch.float32

    class Memory:
        available = 100_000  # bytes; 60,000 float32 numbers take more

    monkeypatch.setattr(hooked_gptj.psutil, "virtual_memory", Memory)
    with caplog.at_level("INFO"):
        assert load_hooked_gptj(lm_copy, device="cpu").cfg.dtype == torch.bfloat16
    (line,) = (r.message for r in caplog.records)
    assert line == "language model in bfloat16: float32 takes 0.00 of the 0.00 GiB that are free"
    assert load_hooked_gptj(world.lm, device="cpu").cfg.dtype == torch.bfloat16  # a file in float32 has to fit too


def test_config_values_are_used(world, lm_copy, hf):
    lm = load_hooked_gptj(world.lm)
    assert (lm.cfg.n_layers, lm.cfg.d_model, lm.cfg.n_heads, lm.cfg.d_head) == (3, 32, 4, 8)
    assert (lm.cfg.rotary_dim, lm.cfg.d_mlp, lm.cfg.n_ctx) == (4, 128, 128)
    config = json.loads((lm_copy / "config.json").read_text())
    (lm_copy / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 0.5}))
    embeddings = residual(lm)
    with torch.no_grad():
        expected = GPTJForCausalLM.from_pretrained(lm_copy, dtype=torch.float32)(inputs_embeds=embeddings).logits
        found = load_hooked_gptj(lm_copy)(embeddings, start_at_layer=0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


# What is wrong with a folder is said in one line


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder; expected a Hugging Face GPT-J folder or a hub id"):
        load_hooked_gptj(tmp_path / "nowhere")


def test_a_revision_from_the_local_cache(world, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--someone--gpt-j"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(world.lm, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "float16").write_text(commit)
    for asked in (("someone/gpt-j", "float16"), ("someone/gpt-j@float16",)):
        assert locate_lm(*asked) == cached / "snapshots" / commit
    with pytest.raises(InputError, match="'someone/gpt-j@main': neither a folder here nor to be had from the hub"):
        locate_lm("someone/gpt-j@main")


def test_hub_id_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'nobody/no-such-model': neither a folder here nor to be had from the hub"):
        locate_lm("nobody/no-such-model")


def test_not_a_gptj(lm_copy):
    (lm_copy / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match="config.json says model_type 'gpt2', expected 'gptj'"):
        load_hooked_gptj(lm_copy)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "config.json: no such file"),
        ("tokenizer.json", "no tokenizer; expected tokenizer.json"),
        ("model.safetensors", "no weights; expected one of model.safetensors"),
    ],
)
def test_missing_file(lm_copy, missing, message):
    (lm_copy / missing).unlink()
    with pytest.raises(InputError, match=message):
        load_hooked_gptj(lm_copy)


def test_broken_tokenizer(lm_copy):
    (lm_copy / "tokenizer.json").write_text('{"version"')
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        load_hooked_gptj(lm_copy)


def test_truncated_weights(lm_copy):
    file = lm_copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(InputError, match="truncated or not a safetensors file; fetch it again"):
        load_hooked_gptj(lm_copy)


def test_wrong_shape(lm_copy):
    def edit(tensors):
        tensors["transformer.h.1.mlp.fc_in.weight"] = torch.zeros(128, 31)

    edit_tensors(lm_copy, edit)
    message = r"'transformer.h.1.mlp.fc_in.weight': found shape \(128, 31\), expected \(128, 32\)"
    with pytest.raises(InputError, match=message):
        load_hooked_gptj(lm_copy)


def test_missing_tensor(lm_copy):
    edit_tensors(lm_copy, lambda tensors: tensors.pop("lm_head.bias"))
    with pytest.raises(InputError, match="tensor 'lm_head.bias' is missing"):
        load_hooked_gptj(lm_copy)


def test_unknown_tensor(lm_copy):
    edit_tensors(lm_copy, lambda tensors: tensors.update(adapter=torch.zeros(2)))
    with pytest.raises(InputError, match="tensor 'adapter' belongs to another architecture"):
        load_hooked_gptj(lm_copy)


def test_unknown_dtype(world):
    with pytest.raises(InputError, match="dtype 'int8': expected auto, float32, float16, bfloat16"):
        load_hooked_gptj(world.lm, dtype="int8")


def edit_config(folder: Path, **changed) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_tied_embeddings_equal_hugging_faces(lm_copy, caplog, bias: bool):
    """A checkpoint of tied embeddings stores no head: it is the embedding, and its bias zero where none is stored."""
    edit_config(lm_copy, tie_word_embeddings=True)

    def untie(tensors):
        del tensors["lm_head.weight"]
        if not bias:
            del tensors["lm_head.bias"]

    edit_tensors(lm_copy, untie)
    with caplog.at_level("INFO"):
        lm = load_hooked_gptj(lm_copy)
    assert "tie_word_embeddings: the token embedding is the head, too" in caplog.text
    assert ("no bias of the head is stored, so it is zero" in caplog.text) is not bias
    embeddings = residual(lm)
    expected = GPTJForCausalLM.from_pretrained(lm_copy, dtype=torch.float32).eval()(inputs_embeds=embeddings).logits
    torch.testing.assert_close(lm(embeddings, start_at_layer=0), expected, atol=1e-4, rtol=0)
    edit_config(lm_copy, tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"tensor 'lm_head.weight' is missing"):
        load_hooked_gptj(lm_copy)


@torch.no_grad()
def test_a_head_of_its_own_is_kept_as_hugging_face_keeps_it(lm_copy):
    """With tie_word_embeddings and another head in the file, transformers ties nothing."""
    edit_config(lm_copy, tie_word_embeddings=True)
    lm = load_hooked_gptj(lm_copy)
    embeddings = residual(lm)
    expected = GPTJForCausalLM.from_pretrained(lm_copy, dtype=torch.float32).eval()(inputs_embeds=embeddings).logits
    torch.testing.assert_close(lm(embeddings, start_at_layer=0), expected, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_weights_as_a_training_script_writes_them(world, lm_copy, wrapper: str):
    tensors = load_file(lm_copy / "model.safetensors")
    (lm_copy / "model.safetensors").unlink()
    prefixed = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({wrapper: prefixed, "step": 3}, lm_copy / "pytorch_model.bin")
    lm, other = load_hooked_gptj(lm_copy), load_hooked_gptj(world.lm)
    assert torch.equal(lm(residual(lm), start_at_layer=0), other(residual(lm), start_at_layer=0))
    assert lm_sha256(lm_copy) == lm_sha256(world.lm)


@pytest.mark.parametrize("name", hooked_gptj.ACTIVATIONS)
@torch.no_grad()
def test_activations_equal_hugging_faces(world, lm_copy, name: str):
    edit_config(lm_copy, activation_function=name)
    lm = load_hooked_gptj(lm_copy)
    x = torch.linspace(-8, 8, 1001)
    torch.testing.assert_close(lm.blocks[0].mlp.act_fn(x), ACT2FN[name](x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation_function": "mish"}, "activation_function: found 'mish', expected one of gelu, .*gelu_new"),
        ({"activation_function": None}, "activation_function: found None, expected one of"),
        ({"activation_function": ["gelu"]}, r"TypeError unhashable type"),
        ({"rotary_dim": None}, "rotary_dim: found None, expected a number from 1"),
        ({"rotary_dim": 10}, "rotary_dim be even and no more than what is left for a head"),
        ({"n_head": 5}, "n_head must divide n_embd"),
        ({"n_embd": "32"}, "n_embd: found '32', expected a number"),
        ({"n_positions": 10**12}, "n_positions: found 1000000000000, expected a number from 1 to"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon: found -1.0"),
        ({"n_layer": 2}, r"weights of 3 layers, but config.json says n_layer 2"),
    ],
)
def test_a_config_that_describes_no_gptj(lm_copy, changed, message):
    """Errors of other libraries, or memory without end, before."""
    edit_config(lm_copy, **changed)
    with pytest.raises(InputError, match=message) as caught:
        load_hooked_gptj(lm_copy)
    assert str(lm_copy) in str(caught.value)


def test_a_tokenizer_that_breaks_in_use(lm_copy):
    config = json.loads((lm_copy / "tokenizer_config.json").read_text())
    (lm_copy / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": "x"}))
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        load_hooked_gptj(lm_copy)
