import torch
from transformers import GPTJForCausalLM

from limber_interp.models.limber import Limber
from limber_interp.training.data import caption_tokens
from limber_interp.training.objective import caption_loss


def test_loss_and_gradient_equal_the_plain_computation(tiny: Limber, world) -> None:
    """Against Hugging Face's own model on the whole sequence: all logits, mask and all, then the labelled ones."""
    torch.manual_seed(0)
    captions = ["A picture of a dog on the grass.", " dog", "A large cat."]
    ids, labels = caption_tokens(tiny.vocabulary, captions, limit=50)
    soft_prompt = torch.randn(3, 4, tiny.lm.cfg.d_model, requires_grad=True)
    loss = caption_loss(tiny.lm, tiny.vocabulary.n_used, soft_prompt, ids, labels)
    (gradient,) = torch.autograd.grad(loss, soft_prompt)

    hf = GPTJForCausalLM.from_pretrained(world.lm, dtype=torch.float32).eval()
    plain_prompt = soft_prompt.detach().clone().requires_grad_()
    embeddings = torch.cat([plain_prompt, hf.transformer.wte(ids)], dim=1)
    mask = torch.cat([torch.ones(3, 4), (labels != -100).float()], dim=1)
    logits = hf(inputs_embeds=embeddings, attention_mask=mask).logits[..., : tiny.vocabulary.n_used]
    before = logits[:, 3:-1].log_softmax(-1)
    at = [(row, pos) for row in range(3) for pos in range(labels.shape[1]) if labels[row, pos] != -100]
    plain = -torch.stack([before[row, pos, labels[row, pos]] for row, pos in at]).mean()
    (plain_gradient,) = torch.autograd.grad(plain, plain_prompt)

    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    assert (gradient - plain_gradient).norm() <= 1e-5 * plain_gradient.norm()
    assert gradient.abs().amax(dim=-1).min() > 0, "every image position bears on the caption"


def test_what_follows_the_end_of_text_does_not_count(tiny: Limber) -> None:
    ids, labels = caption_tokens(tiny.vocabulary, ["A dog.", "A picture of a dog on the grass."], limit=50)
    soft_prompt = torch.randn(2, 3, tiny.lm.cfg.d_model, generator=torch.Generator().manual_seed(1))
    expected = caption_loss(tiny.lm, tiny.vocabulary.n_used, soft_prompt, ids, labels)
    changed = torch.where(labels == -100, tiny.vocabulary.id_of("cat"), ids)
    assert not torch.equal(changed, ids)
    torch.testing.assert_close(caption_loss(tiny.lm, tiny.vocabulary.n_used, soft_prompt, changed, labels), expected)
