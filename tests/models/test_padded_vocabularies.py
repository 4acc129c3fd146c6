"""GPT-Js as people have them: rows without a name, names without a row, fillers and signs at any place.

Fillers are given rows that would win everywhere, so that one of them in a result shows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPTJForCausalLM

from limber_interp.errors import InputError
from limber_interp.evaluation.captions import mean_logprob
from limber_interp.models.hooked_gptj import load_hooked_gptj
from limber_interp.models.limber import Limber, load
from limber_interp.probes import logit_lens, nearest_tokens
from limber_interp.training.closed_form import fit
from limber_interp.training.data import caption_tokens
from limber_interp.training.objective import caption_loss
from tests.conftest import World

N_TEXT = 320  # tokens of the tiny world's tokenizer
FILLERS = [f"<|extratoken_{i}|>" for i in range(1, 8)]
TEXT = "A picture of a dog"


def written(world: World, folder: Path, words: Sequence[str] = (), signs: Sequence[str] = (), rows: int = 0) -> Path:
    """The tiny language model with tokens added: `signs` as special ones. Its rows are as many as its tokens, or `rows`
    without a new size of the tokenizer. Of the tokens that stand for no text the head's bias is 100."""
    tokenizer, lm = AutoTokenizer.from_pretrained(world.lm), GPTJForCausalLM.from_pretrained(world.lm)
    tokenizer.add_tokens(list(words))
    if signs:
        tokenizer.add_special_tokens({"additional_special_tokens": list(signs)})
    lm.resize_token_embeddings(rows or len(tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        zebra = torch.randn(2, lm.config.n_embd, generator=generator)
        lm.lm_head.bias[N_TEXT:] = 100
        if "zebra" in words and (id := tokenizer.convert_tokens_to_ids("zebra")) < len(lm.lm_head.bias):
            lm.transformer.wte.weight[id], lm.lm_head.weight[id] = zebra
            lm.lm_head.bias[id] = 0.5
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(world: World, tmp_path_factory: pytest.TempPathFactory):
    """A Limber on a language model; its projection comes in LIMBER's format, which does not say what it is for."""
    projection = tmp_path_factory.mktemp("projection") / "proj.ckpt"
    torch.save(load_file(world.projection()), projection)

    def load_with(**settings) -> Limber:
        folder = written(world, tmp_path_factory.mktemp("lm"), **settings)
        return load(world.config(), lm=folder, projection=projection)

    return load_with


@pytest.fixture(scope="module")
def unpadded(loaded, images) -> dict[str, np.ndarray | torch.Tensor]:
    """Of a language model with one row for each of its tokenizer's tokens."""
    return everything(loaded(rows=N_TEXT), images)


def everything(model: Limber, images: list[Image.Image]) -> dict[str, np.ndarray | torch.Tensor]:
    """What a vocabulary goes into. Ids as they are, so that two models must agree on them."""
    lens = logit_lens(model, images, k=8, targets=["dog"], controls="fast", n_draws=2)
    near = nearest_tokens(model, images, k=8, targets=["dog"], controls="fast", n_draws=2, metric="centred_cosine")
    found: dict[str, np.ndarray | torch.Tensor] = {
        "norms": np.array(list(near.token_norms.values())),
        "words": np.array([lens.images[0].targets[0].n_words, near.images[0].targets[0].n_words]),
    }
    for i, (told, close) in enumerate(zip(lens.images, near.images, strict=True)):
        reading, (target,), (other,) = told.reading, told.targets, close.targets
        found |= {f"lens ids {i}": reading.token_ids, f"logprobs {i}": reading.logprobs, f"kl {i}": reading.kl}
        found |= {f"entropy {i}": reading.entropy, f"lens ranks {i}": target.ranks, f"p {i}": target.p_words}
        found |= {f"near ids {i}": close.token_ids, f"scores {i}": close.scores, f"ranks {i}": other.ranks}
        found |= {f"noise {i}": close.controls[0].scores, f"lens noise {i}": told.controls[0].top_logprobs}
    prompt = [images[0], "A picture of"]
    for temperature in (0.0, 1.0):
        (ids,) = model.generate(prompt, 12, temperature, use_cache=False)
        found[f"said at {temperature}"] = np.array(ids)
        found[f"logprob at {temperature}"] = np.array(mean_logprob(model, prompt, ids))
    ids, labels = caption_tokens(model.vocabulary, [TEXT, "A dog."], 20)
    rows, soft_prompts = model.vocabulary.rows, model.soft_prompt(images[:2]).requires_grad_()
    loss = caption_loss(model.lm, rows, soft_prompts, ids, labels)
    loss.backward()
    assert soft_prompts.grad is not None
    return found | {"loss": loss.detach(), "gradient": soft_prompts.grad}


def assert_same(found: dict, expected: dict) -> None:
    """Numbers are the same up to the order of a sum, on which a library decides by how a matrix lies in memory."""
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "padding",
    [
        {"words": FILLERS},
        {"words": FILLERS, "signs": ["[PAD]"]},
        {"words": [*FILLERS, "[PAD]", "<image>"]},
        {"signs": ["<|image|>"]},
        {"rows": N_TEXT + 30},
        {"words": FILLERS, "rows": N_TEXT + 30},
        {"words": FILLERS, "rows": N_TEXT + 1},
        {"words": FILLERS, "rows": N_TEXT},
        {"words": FILLERS, "signs": ["[PAD]"], "rows": N_TEXT + 5},
    ],
    ids=lambda padding: " ".join(f"{name} {len(v) if isinstance(v, list) else v}" for name, v in padding.items()),
)
def test_padding_changes_nothing(loaded, unpadded, images, padding):
    """With `[PAD]` behind the fillers' names all rows counted as used, and fillers were among the nearest tokens; with
    more names than rows, as GPT-J's tokenizer has for a GPT-J shrunk to its 50,257 tokens, nothing loaded.

    Among these are LIMBER's own size, 50,258 rows of which one is `<|image|>`, and a `[PAD]` without a row."""
    assert_same(everything(loaded(**padding), images), unpadded)


def test_fillers_before_a_word_change_nothing(loaded, images):
    """A word added behind the fillers, and trained: the tokens are a set with a gap, and ids stay the vocabulary's."""
    packed, gap = loaded(words=["zebra"]), loaded(words=[*FILLERS, "zebra"], signs=["[PAD]"])
    id = packed.vocabulary.id_of("zebra")
    assert (id, gap.vocabulary.id_of("zebra")) == (N_TEXT, N_TEXT + len(FILLERS))
    assert (packed.vocabulary.n_used, gap.vocabulary.n_used) == (N_TEXT + 1, N_TEXT + 1)
    expected, found = everything(packed, images), everything(gap, images)
    said = [name for name in expected if " ids " in name or name.startswith("said")]
    assert any((expected[name] == id).any() for name in said), "the word behind the gap is never named"
    for name in said:
        expected[name] = np.where(expected[name] == id, N_TEXT + len(FILLERS), expected[name])
    assert_same(found, expected)

    (close,) = nearest_tokens(gap, images[0], k=2, targets=["zebra"], controls="none", metric="dot").images
    (alike,) = nearest_tokens(packed, images[0], k=2, targets=["zebra"], controls="none", metric="dot").images
    np.testing.assert_array_equal(close.targets[0].ranks, alike.targets[0].ranks)
    assert close.targets[0].token_id == N_TEXT + len(FILLERS)
    encodings = packed.encode(images).numpy()
    fits = [fit(model, [[TEXT], ["A zebra."], ["A cat."]], encodings, "procrustes") for model in (packed, gap)]
    torch.testing.assert_close(fits[0].weight, fits[1].weight)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"words": ["zebra"], "rows": N_TEXT}, rf"1 token without a row .* 'zebra' \({N_TEXT}\): it has {N_TEXT} rows"),
        (
            {"words": [*FILLERS, "zebra", "gnu"], "rows": N_TEXT + 7},
            rf"2 tokens without a row .* 'gnu' \({N_TEXT + 8}\)",
        ),
        ({"rows": N_TEXT - 20}, "20 tokens without a row"),
    ],
)
def test_words_without_a_row_are_refused(world, tmp_path, settings, line):
    with pytest.raises(InputError, match=f"{tmp_path / 'lm'}: the tokenizer has {line}"):
        load_hooked_gptj(written(world, tmp_path / "lm", **settings))


def test_a_text_that_names_no_text_is_refused(loaded, images):
    """An untrained row in a prompt would be read without a word; of a token without a row, torch fails."""
    model = loaded(words=FILLERS, signs=["[PAD]"], rows=N_TEXT + 3)
    for name in ("<|extratoken_1|>", "<|extratoken_7|>", "[PAD]"):
        with pytest.raises(InputError, match="which stands for no text here; remove it"):
            model.embed([images[0], f"A {name} picture"])
        with pytest.raises(InputError, match="is not one token of the vocabulary"):
            logit_lens(model, images[0], targets=[name], target_first_token=False, controls="none")
