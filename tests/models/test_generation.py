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
