import logging

import pytest
import torch
from torch import Tensor, nn
from transformers import GPTJForCausalLM

from limber_interp.models.limber import Limber
from limber_interp.training.data import IGNORED, caption_tokens
from limber_interp.training.memory import Checkpointing, frozen_dtype, kept_bytes
from limber_interp.training.objective import caption_loss
from limber_interp.weights import tensors_sha256

CAPTIONS = ["A picture of a dog on the grass.", " dog", "A large cat."]
SWITCHES = pytest.mark.parametrize("asked", ["on", "off"])


def tokens(model: Limber, captions: list[str], prompt_pos: int = 4) -> tuple[Tensor, Tensor]:
    """As training cuts them: the last token is only predicted, and takes no position."""
    return caption_tokens(model.vocabulary, captions, model.lm.cfg.n_ctx - prompt_pos + 1)


def plain_loss(hf: GPTJForCausalLM, n_used: int, soft_prompt: Tensor, ids: Tensor, labels: Tensor) -> Tensor:
    """Hugging Face's own model on the whole sequence: all positions' logits, each against the next one's label."""
    embeddings = torch.cat([soft_prompt, hf.transformer.wte(ids)], dim=1)
    every = torch.cat([torch.full(soft_prompt.shape[:2], -100), labels], dim=1)
    mask = torch.cat([torch.ones(soft_prompt.shape[:2]), (labels != -100).float()], dim=1)
    n_ctx = hf.config.n_positions
    logits = hf(inputs_embeds=embeddings[:, :n_ctx], attention_mask=mask[:, :n_ctx]).logits[..., :n_used]
    following = every[:, 1 : logits.shape[1] + 1]
    return nn.functional.cross_entropy(logits[:, : following.shape[1]].transpose(1, 2), following, ignore_index=-100)


@pytest.fixture(scope="module")
def hf(world) -> GPTJForCausalLM:
    return GPTJForCausalLM.from_pretrained(world.lm, dtype=torch.float32).eval()


@SWITCHES
@pytest.mark.parametrize("captions", [CAPTIONS, [" dog"], [" cat dog" * 100, "A dog."]], ids=["mixed", "one", "long"])
def test_loss_and_gradient_equal_the_plain_computation(tiny: Limber, hf, captions, asked) -> None:
    generator = torch.Generator().manual_seed(0)
    ids, labels = tokens(tiny, captions)
    encodings = torch.randn(len(captions), 4, 7, generator=generator)
    layer = nn.Linear(7, tiny.lm.cfg.d_model)
    used, both = tiny.vocabulary.n_used, list(layer.parameters())
    loss = caption_loss(tiny.lm, used, layer(encodings), ids, labels, Checkpointing(asked))
    plain = plain_loss(hf, used, layer(encodings), ids, labels)
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    gradients, expected = torch.autograd.grad(loss, both), torch.autograd.grad(plain, both)
    for gradient, plain_gradient in zip(gradients, expected, strict=True):
        assert (gradient - plain_gradient).norm() <= 1e-5 * plain_gradient.norm()


def test_every_image_position_bears_on_the_caption(tiny: Limber) -> None:
    ids, labels = tokens(tiny, CAPTIONS)
    generator = torch.Generator().manual_seed(0)
    soft_prompt = torch.randn(3, 4, tiny.lm.cfg.d_model, generator=generator, requires_grad=True)
    caption_loss(tiny.lm, tiny.vocabulary.n_used, soft_prompt, ids, labels).backward()
    assert soft_prompt.grad.abs().amax(dim=-1).min() > 0


def test_labels_are_the_caption_and_one_end_of_text(tiny: Limber) -> None:
    ids, labels = tokens(tiny, CAPTIONS)
    eos = tiny.vocabulary.eos
    for caption, row, row_ids in zip(CAPTIONS, labels, ids, strict=True):
        told = [*tiny.vocabulary.encode(caption), eos]
        assert row[row != IGNORED].tolist() == row_ids[: len(told)].tolist() == told
        assert (row[len(told) :] == -100).all()
    assert (labels[1] != IGNORED).sum() == 2, "a caption of one token: it, and the end of text"


def test_a_caption_longer_than_the_context_is_cut_and_has_no_end_to_learn(tiny: Limber) -> None:
    ids, labels = tokens(tiny, [" cat dog" * 100], prompt_pos=4)
    assert 4 + ids.shape[1] - 1 == tiny.lm.cfg.n_ctx
    assert torch.equal(ids, labels)
    assert tiny.vocabulary.eos not in labels


def test_what_follows_the_end_of_text_does_not_count(tiny: Limber) -> None:
    ids, labels = caption_tokens(tiny.vocabulary, ["A dog.", "A picture of a dog on the grass."], limit=50)
    soft_prompt = torch.randn(2, 3, tiny.lm.cfg.d_model, generator=torch.Generator().manual_seed(1))
    expected = caption_loss(tiny.lm, tiny.vocabulary.n_used, soft_prompt, ids, labels)
    changed = torch.where(labels == -100, tiny.vocabulary.id_of("cat"), ids)
    assert not torch.equal(changed, ids)
    torch.testing.assert_close(caption_loss(tiny.lm, tiny.vocabulary.n_used, soft_prompt, changed, labels), expected)


@SWITCHES
def test_a_step_with_dropout_on_the_prompt_changes_the_projection_alone(tiny: Limber, images, asked) -> None:
    frozen = (tiny.encoder, tiny.lm)
    before = [tensors_sha256(module.state_dict()) for module in frozen]
    encodings = tiny.encode(images)
    layer = nn.Linear(encodings.shape[-1], tiny.lm.cfg.d_model)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    weight = layer.weight.detach().clone()
    soft_prompt = layer(encodings)
    soft_prompt.retain_grad()
    dropped = nn.functional.dropout(soft_prompt, 0.5)
    caption_loss(tiny.lm, tiny.vocabulary.n_used, dropped, *tokens(tiny, CAPTIONS), Checkpointing(asked)).backward()
    optimizer.step()
    assert torch.equal(soft_prompt.grad == 0, dropped == 0)
    assert not torch.equal(layer.weight, weight)
    assert [tensors_sha256(module.state_dict()) for module in frozen] == before
    assert all(p.grad is None and not p.requires_grad for module in frozen for p in module.parameters())
    assert not any(part.training for module in frozen for part in module.modules())


@SWITCHES
def test_hooks_act_on_loss_and_gradient(tiny: Limber, asked) -> None:
    """The blocks run again in the backward pass, where a hook has to act as it did before."""
    ids, labels = tokens(tiny, CAPTIONS)
    soft_prompt = torch.randn(3, 4, tiny.lm.cfg.d_model, generator=torch.Generator().manual_seed(2))

    def run(checkpointing: Checkpointing | None) -> tuple[Tensor, Tensor]:
        prompt = soft_prompt.clone().requires_grad_()
        loss = caption_loss(tiny.lm, tiny.vocabulary.n_used, prompt, ids, labels, checkpointing)
        return loss.detach(), torch.autograd.grad(loss, prompt)[0]

    untouched = run(None)
    with tiny.lm.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", lambda value, hook: 2 * value)]):
        expected, found = run(None), run(Checkpointing(asked))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[1], untouched[1])


def kept(model: Limber, checkpointing: Checkpointing, soft_prompt: Tensor, ids: Tensor, labels: Tensor) -> int:
    """Bytes of what autograd saves of one loss, but for the model's own tensors."""
    own = {t.untyped_storage().data_ptr() for t in (*model.lm.parameters(), *model.lm.buffers())}
    found: dict[int, tuple[int, Tensor]] = {}  # held, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        caption_loss(model.lm, model.vocabulary.n_used, soft_prompt, ids, labels, checkpointing)
    return sum(size for size, _ in found.values())


def test_logits_are_kept_of_labelled_positions_alone(tiny: Limber) -> None:
    prompt = torch.randn(3, 60, tiny.lm.cfg.d_model, requires_grad=True)
    ids, labels = tokens(tiny, [" dog"] * 3, prompt_pos=60)
    sizes = []
    tiny.lm.ln_final.hook_normalized.add_hook(lambda value, hook: sizes.append(value.shape))
    try:
        caption_loss(tiny.lm, tiny.vocabulary.n_used, prompt, ids, labels)
    finally:
        tiny.lm.reset_hooks()
    assert sizes == [(1, 6, tiny.lm.cfg.d_model)], "three captions of a token and an end of text"


def test_what_the_blocks_keep_is_estimated(tiny: Limber) -> None:
    prompt = torch.randn(3, 60, tiny.lm.cfg.d_model, requires_grad=True)
    ids, labels = tokens(tiny, CAPTIONS, prompt_pos=60)
    of_blocks = kept(tiny, Checkpointing("off"), prompt, ids, labels) - kept(
        tiny, Checkpointing("on"), prompt, ids, labels
    )
    assert kept_bytes(tiny.lm, 3, 60 + ids.shape[1] - 1) == pytest.approx(of_blocks, rel=0.1)


def test_auto_keeps_what_fits_and_says_so_once(tiny: Limber, monkeypatch, caplog) -> None:
    checkpointing = Checkpointing("auto")
    with caplog.at_level(logging.INFO, logger="limber_interp"):
        assert [checkpointing.wanted(tiny.lm, 2, 50) for _ in range(2)] == [False, False]
        monkeypatch.setattr("limber_interp.training.memory.free_bytes", lambda device: 2**20)
        assert [checkpointing.wanted(tiny.lm, 2, 50) for _ in range(2)] == [True, True]
        with torch.no_grad():
            assert not checkpointing.wanted(tiny.lm, 2, 50)
    assert [line.split(":")[0] for line in caplog.messages] == [
        "gradient checkpointing off (auto)", "gradient checkpointing on (auto)"
    ]  # fmt: skip


def test_in_which_dtype_the_frozen_model_is_kept() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert frozen_dtype("auto", gpu, bf16=True) == torch.bfloat16
    assert frozen_dtype("auto", gpu, bf16=False) == frozen_dtype("auto", cpu, bf16=True) == torch.float32
    assert frozen_dtype("float16", gpu, bf16=True) == "float16"
