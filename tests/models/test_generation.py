import logging
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers import GPTJForCausalLM, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from limber_interp.errors import InputError
from limber_interp.models.generation import generate, token_probabilities

# One vocabulary of logits, with ties and ones far below the rest
LOGITS = hnp.arrays("float32", st.integers(1, 40), elements=st.floats(-30, 30, width=32)).map(torch.from_numpy)


@given(LOGITS, st.floats(0.01, 1), st.floats(0.1, 3))
def test_top_p_keeps_the_smallest_set_with_that_mass(logits, top_p, temperature):
    before = token_probabilities(logits, temperature).double()
    after = token_probabilities(logits, temperature, top_p=top_p)
    kept = after > 0
    mass = before[kept].sum()
    assert mass >= top_p - 1e-6
    # Smallest: without its least probable member it would not reach p, and none outside is more probable than one in it
    assert kept.sum() == 1 or mass - before[kept].min() < top_p + 1e-6
    assert kept.all() or before[~kept].max() <= before[kept].min()
    torch.testing.assert_close(after[kept], (before[kept] / mass).float(), rtol=1e-4, atol=1e-6)


@given(LOGITS, st.floats(0.1, 3), st.data())
def test_top_k_keeps_k(logits, temperature, data):
    k = data.draw(st.integers(1, len(logits)))
    before, after = token_probabilities(logits, temperature), token_probabilities(logits, temperature, top_k=k)
    kept = after > 0
    assert kept.sum() <= k
    assert kept.all() or before[~kept].max() <= before[kept].min()
    assert after.sum() == pytest.approx(1, abs=1e-5)


def test_a_correct_nucleus_is_not_limbers():
    """LIMBER keeps what is left when the mass p is taken away: at 0.9 the top 10 % of the mass."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert token_probabilities(logits, 1.0, top_p=0.9).tolist() == pytest.approx(
        [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]
    )
    assert token_probabilities(logits, 1.0, top_p=0.1).tolist() == [1, 0, 0, 0]


def test_the_order_is_that_of_transformers():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * 3
    expected = TemperatureLogitsWarper(0.7)(None, logits)
    expected = TopKLogitsWarper(20)(None, expected)
    expected = TopPLogitsWarper(0.8)(None, expected).softmax(-1)
    torch.testing.assert_close(token_probabilities(logits, 0.7, 20, 0.8), expected)


@pytest.fixture(scope="module")
def prompts(tiny):
    texts = [["A picture of a dog"], ["The cat"], ["A large car is to the left of a"]]
    return [tiny.embed(text) for text in texts], tiny.embed(texts)


def continued(tiny, prompt, **kwargs):
    words = tiny.vocabulary
    return generate(tiny.lm, prompt.residual, prompt.attention_mask, words.n_used, words.eos, **kwargs)


def test_greedy_equals_hugging_face(world, tiny, prompts):
    hf = GPTJForCausalLM.from_pretrained(world.lm, dtype=torch.float32).eval()
    for single in prompts[0]:
        ids, embeddings = [], single.residual
        for _ in range(8):
            logits = hf(inputs_embeds=embeddings).logits[0, -1, : tiny.vocabulary.n_used]
            ids.append(logits.argmax().item())
            embeddings = torch.cat([embeddings, hf.transformer.wte(logits.argmax()[None, None])], dim=1)
        assert tiny.vocabulary.eos not in ids
        assert continued(tiny, single, max_new_tokens=8) == [ids]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.3, "top_k": 50, "top_p": 0.95, "seed": 5}])
def test_cache_and_batch_change_nothing(tiny, prompts, sampling):
    singles, batch = prompts
    expected = [continued(tiny, single, use_cache=False, **sampling)[0] for single in singles]
    assert len({tuple(ids) for ids in expected}) == 3
    assert continued(tiny, batch, **sampling) == expected
    assert continued(tiny, batch, use_cache=False, **sampling) == expected


def test_a_seed_repeats_and_another_does_not(tiny, prompts):
    batch = prompts[1]
    state = torch.get_rng_state()
    first, again, other = (continued(tiny, batch, temperature=1.5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_without_a_token_are_never_chosen(tiny, prompts):
    def raise_padding_rows(logits, hook):
        logits[..., tiny.vocabulary.n_used :] = 1000  # by far the most probable
        return logits

    with tiny.lm.hooks([("unembed.hook_out", raise_padding_rows)]):
        for temperature in (0.0, 1.0):
            ids = continued(tiny, prompts[1], temperature=temperature)
            assert max(id for row in ids for id in row) < tiny.vocabulary.n_used


def test_stops_at_the_end_of_text(tiny, prompts):
    batch, words = prompts[1], tiny.vocabulary
    ids = continued(tiny, batch, max_new_tokens=12)
    stop = ids[0][3]  # taken as the end of text, each row ends before its first one, the others go on
    stopped = generate(tiny.lm, batch.residual, batch.attention_mask, words.n_used, stop, max_new_tokens=12)
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in ids]
    assert len(stopped[0]) <= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature -1.0: expected 0"),
        ({"temperature": float("nan")}, "temperature nan: expected 0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k 0: expected 1 to 320"),
        ({"temperature": 1.0, "top_k": 321}, "top_k 321: expected 1 to 320"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p 0.0: expected more than 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p 1.5: expected more than 0, and 1 at most"),
        ({"top_p": 0.9}, "change nothing at temperature 0"),
        ({"max_new_tokens": 0}, "max_new_tokens 0: expected 1 to"),
        ({"max_new_tokens": 125}, "the prompt takes .* of the model's 128 positions"),
    ],
)
def test_settings_out_of_range(tiny, prompts, settings, message):
    with pytest.raises(InputError, match=message):
        continued(tiny, prompts[1], **settings)


def test_a_continuation_ends_with_a_stop(tiny, images):
    """The same tokens as without, up to the first of the stops, in a batch whose rows end at different places."""
    prompts = [*([image, "A picture of"] for image in images), ["A dog on"], ["The cat"]]
    whole = tiny.generate(prompts, 12)
    stops = {whole[0][5], whole[3][1]}
    expected = [ids[: next((i + 1 for i, id in enumerate(ids) if id in stops), len(ids))] for ids in whole]
    assert len({len(ids) for ids in expected}) > 1
    assert tiny.generate(prompts, 12, stops=stops) == expected
    assert tiny.vocabulary.containing(["dog", "boat"]) == {
        id for id in range(tiny.vocabulary.n_used) if {"dog", "boat"} & {tiny.vocabulary.decode(id).strip()}
    }


# Hooks


def hooked_hugging_face(world, embeddings, n_used, steps):
    """Hugging Face's own greedy search with its cache, where the first four positions of the second layer's output are
    zero in the pass over the prompt alone: what a hook on `blocks.1.hook_resid_post` means, computed independently."""
    hf = GPTJForCausalLM.from_pretrained(world.lm, dtype=torch.float32).eval()

    def zero(module, given, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] > 1:
            hidden[:, :4] = 0

    hf.transformer.h[1].register_forward_hook(zero)
    ids = hf.generate(
        inputs_embeds=embeddings,
        attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long),
        do_sample=False,
        use_cache=True,
        max_new_tokens=steps,
        suppress_tokens=list(range(n_used, hf.config.vocab_size)),
        pad_token_id=0,
    )
    return ids.tolist()


def zero_image(residual, hook):
    residual[:, [0, 1, 2, 3]] = 0  # a list of positions: with a cache, an IndexError on the second token
    return residual


@contextmanager
def standing(lm, how):
    """One hook that zeroes the image positions of blocks.1.hook_resid_post, set in one of the ways there are."""
    name = "blocks.1.hook_resid_post"
    match how:
        case "hooks":
            with lm.hooks([(name, zero_image)]):
                yield
            return
        case "add_hook":
            lm.add_hook(name, zero_image)
        case "permanent":
            lm.add_perma_hook(name, zero_image)
        case "torch":
            handle = lm.blocks[1].register_forward_hook(lambda module, given, out: zero_image(out, None))
        case "torch, before":
            handle = lm.blocks[2].register_forward_pre_hook(lambda module, given: (zero_image(given[0], None),))
    try:
        yield
    finally:
        lm.reset_hooks(including_permanent=True)
        if how.startswith("torch"):
            handle.remove()


@pytest.mark.parametrize("how", ["hooks", "add_hook", "permanent", "torch", "torch, before"])
def test_hooks_on_positions_of_the_prompt_equal_hugging_faces(world, tiny, images, how):
    """Under the cache the hook hit every new token as well."""
    prompts = [[image, "A picture of"] for image in images]
    embedded = tiny.embed(prompts)
    expected = hooked_hugging_face(world, embedded.residual, tiny.vocabulary.n_used, 8)
    assert not any(tiny.vocabulary.eos in ids for ids in expected)
    plain = tiny.generate(embedded, 8)
    with standing(tiny.lm, how):
        assert tiny.generate(embedded, 8) == expected != plain
        assert tiny.generate(embedded, 8, use_cache=False) == expected
        assert tiny.generate(prompts[1], 8) == [expected[1]]
        captions = [tiny.vocabulary.text(ids).strip() for ids in expected]
        assert tiny.caption(images, max_new_tokens=8) == captions
        with pytest.raises(InputError, match=r"use_cache=True: hooks stand on the language model \(blocks\.[12]"):
            tiny.caption(images, use_cache=True)
    assert tiny.generate(embedded, 8, use_cache=True) == plain


def test_the_log_says_once_that_there_is_no_cache(tiny, prompts, caplog):
    with caplog.at_level(logging.INFO, "limber_interp"):
        for _ in range(2):
            with tiny.lm.hooks([("blocks.0.hook_resid_pre", zero_image), ("blocks.2.hook_mlp_out", zero_image)]):
                continued(tiny, prompts[1], max_new_tokens=2)
                continued(tiny, prompts[1], max_new_tokens=2)
            continued(tiny, prompts[1], max_new_tokens=2)
    line = "hooks stand on the language model (blocks.0.hook_resid_pre, blocks.2.hook_mlp_out): it generates without a "
    assert [record.message for record in caplog.records] == [line + "cache, slower"] * 2


def test_a_hook_that_writes_in_place_does_not_change_the_prompt(tiny, images):
    """On the first block's input it wrote into the prompt itself, once more for each new token."""
    prompt = tiny.embed([images[0], "A picture of"])
    before = prompt.residual.clone()

    def add(residual, hook):
        residual[:, :4] *= -3

    def added(residual, hook):
        return torch.cat([residual[:, :4] * -3, residual[:, 4:]], dim=1)

    name = "blocks.0.hook_resid_pre"
    found = []
    for hook in (add, added):
        with tiny.lm.hooks([(name, hook)]):
            found.append(tiny.generate(prompt, 6))
        tiny.run_with_hooks(prompt, [(name, hook)])
    assert found[0] == found[1] != tiny.generate(prompt, 6)
    assert torch.equal(prompt.residual, before)


@pytest.mark.parametrize("name", ["ln_final.hook_normalized", "unembed.hook_in", "unembed.hook_out"])
def test_hooks_on_the_models_end_see_all_positions_too(tiny, prompts, name):
    """The end of the model is otherwise computed at the last position alone."""
    seen = []
    with tiny.lm.hooks([(name, lambda values, hook: seen.append(tuple(values.shape[:2])))]):
        continued(tiny, prompts[1], max_new_tokens=3)
    batch, pos = prompts[1].residual.shape[:2]
    assert seen == [(batch, pos + i) for i in range(3)]


# What is drawn


@contextmanager
def uniform(lm):
    """Logits that say nothing, so that what is drawn shows the random numbers alone."""
    with lm.hooks([("unembed.hook_out", lambda logits, hook: torch.zeros_like(logits))]):
        yield


def test_different_prompts_draw_different_numbers(tiny, prompts):
    """Every row had a generator with the same seed, so that all captions of a batch ended in the same words."""
    with uniform(tiny.lm):
        drawn = continued(tiny, prompts[1], temperature=1.0, max_new_tokens=6)
        assert len({tuple(ids) for ids in drawn}) == 3
        alone = [continued(tiny, single, temperature=1.0, max_new_tokens=6)[0] for single in prompts[0]]
        twice = continued(tiny, tiny.embed([["The cat"], ["The cat"]]), temperature=1.0, max_new_tokens=6)
    assert alone == drawn
    assert twice == [drawn[1]] * 2


def test_samples_of_one_prompt_differ(tiny, prompts):
    with uniform(tiny.lm):
        drawn = [continued(tiny, prompts[0][0], temperature=1.0, sample=i)[0] for i in range(4)]
        again = continued(tiny, prompts[0][0], temperature=1.0)[0]
    assert len({tuple(ids) for ids in drawn}) == 4
    assert drawn[0] == again


@pytest.mark.parametrize("temperature", [1e-38, 1e-45, 5e-324])
def test_a_temperature_next_to_zero_is_greedy(tiny, prompts, temperature):
    """The logits became infinite, and the sampler stopped."""
    assert continued(tiny, prompts[1], temperature=temperature) == continued(tiny, prompts[1])


def test_the_highest_temperature_is_uniform():
    logits = torch.tensor([3.0, -4.0, -torch.inf])  # the last one forbidden
    assert token_probabilities(logits, 1e308).tolist() == [0.5, 0.5, 0.0]


def test_a_hook_may_forbid_tokens(tiny, prompts):
    """Minus infinity is a logit like others, and not taken for a fault."""
    greedy = continued(tiny, prompts[1], max_new_tokens=3)
    used = {id for ids in greedy for id in ids}

    def forbid(logits, hook):
        logits[..., list(used)] = -torch.inf
        return logits

    with tiny.lm.hooks([("unembed.hook_out", forbid)]):
        for temperature in (0.0, 1.0):
            found = continued(tiny, prompts[1], max_new_tokens=3, temperature=temperature)
            assert not used & {id for ids in found for id in ids}
