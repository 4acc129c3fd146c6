import shutil

import pytest
import torch
from transformers import GPTJForCausalLM

import limber_interp
from limber_interp.config import load_config
from limber_interp.errors import InputError
from limber_interp.evaluation.captions import captions
from limber_interp.images import image_hash
from limber_interp.models.limber import Limber, load
from limber_interp.models.projection import load_projection
from limber_interp.models.prompt import Prompt, Text
from limber_interp.probes import logit_lens, nearest_tokens


@pytest.fixture(scope="module")
def hf(world) -> GPTJForCausalLM:
    return GPTJForCausalLM.from_pretrained(world.lm, dtype=torch.float32).eval()


# The chain, done by hand


@torch.no_grad()
def test_the_chain_equals_its_parts(world, tiny, images, hf):
    projection = load_projection(world.projection("clip"), tiny.encoder.d_encoder, 32)
    pixels = torch.stack([tiny.encoder.preprocess(image) for image in images])
    features = tiny.encoder.tower(pixels).flatten(2).transpose(1, 2)
    soft_prompt = features @ projection.linear.weight.T + projection.linear.bias
    torch.testing.assert_close(tiny.encode(images), features)
    torch.testing.assert_close(tiny.soft_prompt(images), soft_prompt)
    torch.testing.assert_close(tiny.soft_prompt(tiny.preprocess(images)), soft_prompt)

    ids = tiny.lm.tokenizer("A picture of", return_tensors="pt")["input_ids"]
    by_hand = torch.cat([soft_prompt[1:2], hf.transformer.wte(ids)], dim=1)
    prompt = tiny.embed([images[1], "A picture of"])
    torch.testing.assert_close(prompt.residual, by_hand)

    expected = hf(inputs_embeds=by_hand).logits
    logits, cache = tiny.run_with_cache(prompt, names_filter="blocks.0.hook_resid_pre")
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert torch.equal(cache["blocks.0.hook_resid_pre"], prompt.residual)
    torch.testing.assert_close(tiny.run_with_hooks([images[1], "A picture of"]), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_prompts_of_different_length_equal_each_alone(tiny, images, hf):
    prompts = [[images[0], "A picture of"], ["The dog"], [images[1], "A dog", images[2], "A large cat is"]]
    batch = tiny.embed(prompts)
    logits = tiny.run_with_hooks(batch)
    for i, parts in enumerate(prompts):
        single = tiny.embed(parts)
        n_pos, n_padding = single.layouts[0].n_pos, batch.layouts[i].n_padding
        assert n_padding + n_pos == batch.residual.shape[1]
        assert batch.attention_mask[i].tolist() == [0] * n_padding + [1] * n_pos
        assert batch.residual[i, :n_padding].abs().sum() == 0
        expected = hf(inputs_embeds=single.residual).logits[0]
        torch.testing.assert_close(logits[i, n_padding:], expected, atol=1e-4, rtol=0)


def test_layouts_say_what_stands_where(tiny, images, tmp_path):
    images[0].save(tmp_path / "a.png")
    batch = tiny.embed([[tmp_path / "a.png", "A picture of", images[1]], ["The dog"]])
    first, second = batch.layouts
    n_text = len(tiny.vocabulary.encode("A picture of"))
    assert [(s.kind, len(s), s.grid) for s in first.segments] == [
        ("image", 4, (2, 2)),
        ("text", n_text, None),
        ("image", 4, (2, 2)),
    ]
    assert first.segments[0].source == str(tmp_path / "a.png")
    assert first.n_padding == 0
    assert second.n_padding == first.n_pos - len(tiny.vocabulary.encode("The dog"))
    torch.testing.assert_close(batch.residual[0, list(first.image_positions(1))], tiny.soft_prompt(images[1])[0])
    assert torch.equal(batch.residual[0, first.patch(1, 0)], batch.residual[0, 2])


def test_a_soft_prompt_of_ones_own(tiny, images):
    vectors = tiny.soft_prompt(images[0])[0]
    own, image = tiny.embed([vectors, "A picture of"]), tiny.embed([images[0], "A picture of"])
    assert torch.equal(own.residual, image.residual)
    assert own.layouts[0].image().grid == (2, 2)
    assert tiny.embed([vectors[:3], "A"]).layouts[0].image().grid is None


def test_a_pooled_encoder_has_several_positions_and_no_grid(world, images):
    model = load(world.config("nfresnet"))
    assert model.soft_prompt(images).shape == (3, 3, 32)
    assert model.embed([images[0]]).layouts[0].image().grid is None


def test_everything_is_frozen_and_in_eval_mode(world, images):
    for name in ("clip", "nfresnet", "beit"):
        model = load(world.config(name))
        for part in (model.encoder, model.projection, model.lm):
            assert not any(module.training for module in part.modules())
            assert not any(parameter.requires_grad for parameter in part.parameters())
        assert torch.equal(model.soft_prompt(images), model.soft_prompt(images))


def test_gradients_with_respect_to_the_prompt(tiny, images):
    prompt = tiny.embed([images[0], "A picture of"])
    prompt.residual.requires_grad_()
    tiny.run_with_hooks(prompt)[0, -1, 5].backward()
    assert prompt.residual.grad.abs().sum(-1).min() > 0


def test_hooks_intervene_and_leave(tiny, images):
    prompt = tiny.embed([images[0], "A picture of"])
    plain = tiny.run_with_hooks(prompt)
    cut = tiny.run_with_hooks(prompt, fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: z * 0)])
    assert not torch.allclose(cut, plain)
    assert torch.equal(tiny.run_with_hooks(prompt), plain)


# Captions


def test_captions_of_a_batch_equal_one_by_one(tiny, images):
    told = tiny.caption(images)
    assert told == [tiny.caption(image) for image in images]
    assert told == tiny.caption(images, use_cache=False)
    assert len(set(told)) > 1
    assert tiny.caption(images[0], prompt="") != told[0]


def test_a_caption_by_hand(tiny, images):
    embeddings, ids = tiny.embed([images[0], "A picture of"]).residual, []
    for _ in range(6):
        logits = tiny.lm(embeddings, start_at_layer=0)[0, -1, : tiny.vocabulary.n_used]
        ids.append(logits.argmax().item())
        embeddings = torch.cat([embeddings, tiny.lm.W_E[None, None, ids[-1]]], dim=1)
    assert tiny.caption(images[0], max_new_tokens=6) == tiny.lm.tokenizer.decode(ids).strip()


def test_sampled_captions_repeat_with_their_seed(tiny, images):
    first, again, other = (tiny.caption(images, temperature=1.5, top_p=0.9, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_sampled_captions_of_a_batch_equal_one_by_one(tiny, images):
    """What is drawn depends on the picture, and not on the last bits of its soft prompt, which a batch changes."""
    sampling = {"temperature": 1.5, "top_p": 0.9, "seed": 3}
    told = tiny.caption(images, **sampling)
    assert told == [tiny.caption(image, **sampling) for image in images]
    continuations = tiny.generate([[image, "A picture of"] for image in images], **sampling)
    assert [tiny.vocabulary.text(ids).strip() for ids in continuations] == told


def test_what_is_drawn_depends_on_the_picture_and_the_prompt(tiny, images, tmp_path):
    images[0].save(tmp_path / "a.png")
    keys = [tiny.embed(parts).keys()[0] for parts in ([images[0], "A"], [tmp_path / "a.png", "A"])]
    assert keys[0] == keys[1], "the same picture, whatever it came from"
    shown = tiny.image_prompts(images)
    assert tiny.embed([[part, "A"] for part in shown]).keys()[0] == keys[0]
    vectors = tiny.soft_prompt(images[0])[0]
    others = [[images[1], "A"], [images[0], "The"], ["A", images[0]], [images[0]], [vectors, "A"], [vectors + 1, "A"]]
    assert len({keys[0], *(tiny.embed(parts).keys()[0] for parts in others)}) == 7


def test_several_captions_of_an_image(tiny, images):
    sampling = {"temperature": 2.0, "max_new_tokens": 6}
    several = tiny.caption(images, **sampling, n_samples=3)
    assert [drawn[0] for drawn in several] == tiny.caption(images, **sampling)
    assert len({caption for drawn in several for caption in drawn}) == 9
    assert tiny.caption(images[1], **sampling, n_samples=3) == several[1]
    assert tiny.caption(images[1], n_samples=1) == [tiny.caption(images[1])]
    with pytest.raises(InputError, match=r"n_samples 2 at temperature 0 \(greedy\): all would be the same"):
        tiny.caption(images, n_samples=2)
    with pytest.raises(InputError, match="n_samples 0: expected at least 1"):
        tiny.caption(images, n_samples=0)


# Loading


def test_the_public_name(world):
    assert limber_interp.load is load
    assert limber_interp.Limber is Limber


def test_other_dtypes(world, tiny, images):
    half = load(world.config("clip"), dtype="bfloat16")
    assert half.embed([images[0]]).residual.dtype == half.dtype == torch.bfloat16
    assert half.soft_prompt(images).dtype == torch.float32
    assert torch.equal(half.soft_prompt(images), tiny.soft_prompt(images))
    error = (half.run_with_hooks([images[0], "A"]).float() - tiny.run_with_hooks([images[0], "A"])).abs().max()
    assert 0 < error < 0.5  # logits of this model span about 20


def test_an_untrained_projection(world, images):
    model = load(world.config("clip"), projection="none")
    assert model.projection.linear.weight.shape == (32, 256)
    again = load(load_config(world.config("clip")), projection="none")
    assert torch.equal(model.projection.linear.weight, again.projection.linear.weight)
    other = load(world.config("clip"), projection="none", seed=1)
    assert not torch.equal(model.projection.linear.weight, other.projection.linear.weight)
    assert model.notes == ("untrained projection",)


def test_a_manifest_of_one_image(tiny, images, tmp_path):
    """A path was taken for as many images as it has letters."""
    path = tmp_path / "a.png"
    images[0].save(path)
    assert tiny.manifest(str(path)).images == {str(path): image_hash(images[0])}


def test_manifest(world, tiny, images, tmp_path):
    images[0].save(tmp_path / "a.png")
    manifest = tiny.manifest([tmp_path / "a.png", images[1], images[1]], seed=7)
    assert manifest.hashes == {
        "projection": tiny.projection.sha256,
        "encoder": tiny.encoder.sha256,
        "lm": tiny.lm_sha256,
    }
    assert (manifest.dtype, manifest.device, manifest.seed, manifest.notes) == ("float32", "cpu", 7, ())
    assert manifest.config["encoder_name"] == "emoji_clip"
    assert manifest.images == {
        str(tmp_path / "a.png"): image_hash(images[0]),
        "<RGB image, 64 x 64> [1]": image_hash(images[1]),
        "<RGB image, 64 x 64> [2]": image_hash(images[1]),
    }
    manifest.to_json()


def test_a_projection_without_a_manifest_is_unverified(world, tiny, tmp_path, caplog):
    assert tiny.verified
    torch.save(tiny.projection.linear.state_dict(), tmp_path / "proj.ckpt")
    model = load(world.config("clip"), projection=tmp_path / "proj.ckpt")
    assert not model.verified
    assert "unverified projection" in model.manifest().notes[0]
    assert "unverified projection" in caplog.text


def test_a_projection_for_other_random_weights_says_so(world, tiny, tmp_path, caplog):
    """LIMBER's random encoders were drawn without a seed: its published projection for one fits no other."""
    path = tmp_path / "proj.ckpt"
    projection = load(world.config("nfresnet")).projection
    torch.save(projection.linear.state_dict(), path)
    config = load_config(world.config("nfresnet"), pretrained_img_encoder=False)
    load(config, projection=path)
    assert "trained with other random weights than those drawn here; expect noise" in caplog.text


def test_a_projection_for_another_encoder(world, tmp_path):
    config = load_config(world.config("clip"), pretrained_img_encoder=False)
    with pytest.raises(InputError, match="trained with encoder .*, found emoji_clip .*: use the projection"):
        load(config)


def test_a_projection_for_another_kind_of_encoder(world):
    found = r"found emoji_clip \(d_encoder 256, n_positions 4\)"
    with pytest.raises(InputError, match=rf"with encoder emoji_beit \(d_encoder 24, n_positions 16\), {found}: use"):
        load(world.config("clip"), projection=world.projection("beit"))


def test_a_projection_for_another_language_model(world, tmp_path):
    folder = shutil.copytree(world.lm, tmp_path / "lm")
    model = GPTJForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.bias[0] += 1
    model.save_pretrained(folder)
    with pytest.raises(InputError, match="trained with lm .*, found .*lm"):
        load(world.config("clip"), lm=folder)


def test_no_projection_named(world):
    config = load_config(world.config("clip")).model_copy(update={"projection": None})
    with pytest.raises(InputError, match="names no projection: give --projection, or .none. for"):
        load(config)


# Prompts that mean nothing


@pytest.mark.parametrize("prompt", [[], [""], [[]], [["A"], []]])
def test_empty_prompt(tiny, prompt):
    with pytest.raises(InputError, match="empty prompt"):
        tiny.embed(prompt)


def test_a_path_that_would_be_read_as_text(tiny, images, tmp_path):
    images[0].save(tmp_path / "a.png")
    for text in (str(tmp_path / "a.png"), "https://example.org/a.png"):
        with pytest.raises(InputError, match="would be read as text, but names an image"):
            tiny.embed([text, "A picture of"])


def test_a_prompt_is_text_whatever_files_there_are(tiny, images, tmp_path, monkeypatch):
    """Every text was refused that was the name of a file in the working directory."""
    expected = tiny.caption(images[0]), tiny.caption(images[0], prompt="A dog.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "A picture of").touch()
    images[1].save("A dog.png")
    assert tiny.caption(images[0]) == expected[0]
    assert tiny.caption(images[0], prompt="A dog.png") == expected[1]
    assert tiny.embed(["A picture of"]).layouts[0].segments[0].source == "A picture of"
    for text in ("A dog.png", "https://example.org/a.png"):
        assert tiny.embed([Text(text)]).layouts[0].segments[0].source == text
        assert captions(tiny, images[:1], prompt=text, max_new_tokens=1).prompt == text
        assert logit_lens(tiny, images[0], prompt=text, controls="none").prompt == text
    with pytest.raises(InputError, match="'A dog.png' would be read as text, but names an image: give pathlib.Path"):
        tiny.embed(["A dog.png", "A picture of"])


def test_a_long_text_is_no_file_name(tiny):
    """pathlib raises where it is asked whether 300 letters are a file."""
    text = "A dog. " * 15
    assert len(text * 3) > 255
    assert tiny.embed([text]).layouts[0].segments[0].source == text
    with pytest.raises(InputError, match="the language model has 128"):
        tiny.embed([text * 20])


def test_a_part_that_stands_alone_is_the_prompt(tiny, images):
    """A bare string was taken apart into a prompt of its single letters."""
    for part in ("The dog", images[0], tiny.soft_prompt(images[0])[0]):
        assert torch.equal(tiny.embed(part).residual, tiny.embed([part]).residual)
    with pytest.raises(InputError, match="found lists and bare parts side by side"):
        tiny.embed([["The dog"], "The cat"])


def test_a_soft_prompt_of_another_width(tiny):
    with pytest.raises(InputError, match=r"soft prompt: found shape \(4, 31\), expected \(prompt_pos, 32\)"):
        tiny.embed([torch.zeros(4, 31)])


def test_more_positions_than_the_model_has(tiny, images):
    with pytest.raises(InputError, match="prompt of 132 positions: the language model has 128"):
        tiny.embed([images[0]] * 33)


def test_no_image(tiny):
    with pytest.raises(InputError, match="no image given"):
        tiny.soft_prompt([])


def test_no_such_image(tiny, tmp_path):
    with pytest.raises(InputError, match="no such image file"):
        tiny.caption(str(tmp_path / "none.png"))


def test_a_prompt_is_built_from_rows_of_its_layouts(tiny):
    single = tiny.embed(["The dog"])
    stacked = Prompt.stack(list(single.residual), single.layouts)
    assert torch.equal(stacked.residual, single.residual)


def test_a_language_model_is_loaded_once(world, tiny: Limber) -> None:
    other = load(world.config("nfresnet"), beside=tiny)
    assert other.lm is tiny.lm
    assert other.lm_sha256 == tiny.lm_sha256
    assert other.encoder.name == "emoji_nfresnet"
    assert load(world.config("nfresnet")).lm is not tiny.lm


@pytest.fixture
def other_defaults():
    """A notebook that computes in float64, and builds on another device."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tensors_of(model: Limber) -> dict[str, torch.Tensor]:
    buffers = dict(model.lm.named_buffers())  # the rotary tables are in no state dict
    parts = (model.encoder.state_dict(), model.projection.state_dict(), model.lm.state_dict(), buffers)
    return {f"{i}.{name}": tensor for i, part in enumerate(parts) for name, tensor in part.items()}


@pytest.mark.parametrize(
    ("name", "changed"), [("clip", {}), ("nfresnet", {"projection": "none"}), ("beit", {}), ("clip", {"drawn": True})]
)
def test_torchs_default_dtype_changes_no_model(world, images, other_defaults, name, changed):
    """Encoders were built in it, and drawn weights differed: the projection's own encoder was taken for another."""
    config = load_config(world.config(name), projection=changed.get("projection"))
    if "drawn" in changed:
        config = config.model_copy(update={"pretrained_img_encoder": False, "projection": "none"})
    found = load(config)
    torch.set_default_dtype(torch.float32)
    expected = load(config)
    for name, tensor in tensors_of(expected).items():
        assert tensors_of(found)[name].dtype == tensor.dtype, name
        assert torch.equal(tensors_of(found)[name], tensor), name
    soft_prompts, captions = expected.soft_prompt(images), expected.caption(images)
    near = nearest_tokens(expected, images[0], controls="fast", n_draws=2).as_dict()["images"]
    lens = logit_lens(expected, images[0], controls="fast", n_draws=2).as_dict()["images"]
    torch.set_default_dtype(torch.float64)
    assert torch.equal(found.soft_prompt(images), soft_prompts)
    assert found.caption(images) == captions
    assert nearest_tokens(found, images[0], controls="fast", n_draws=2).as_dict()["images"] == near
    assert logit_lens(found, images[0], controls="fast", n_draws=2).as_dict()["images"] == lens
    assert torch.get_default_dtype() == torch.float64  # the notebook's own stays


def test_torchs_default_device_changes_no_model(world, tiny):
    with torch.device("meta"):
        found = load(world.config("clip"), device="cpu")
    assert {tensor.device.type for tensor in tensors_of(found).values()} == {"cpu"}
    assert found.encoder.sha256 == tiny.encoder.sha256
