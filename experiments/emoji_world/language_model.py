"""Trains the suite's language model: a small GPT-J with a byte-level BPE tokenizer of its own, on text alone.

python -m experiments.emoji_world.language_model --out limber_weights/emoji/lm
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

from experiments.emoji_world.corpus import PROMPT, caption, documents, notes, sentences, word_map
from experiments.emoji_world.recipe import cosine
from experiments.emoji_world.world import BACKGROUNDS, CATEGORIES, NOUNS, SIZES, sample_scene

END = "<|endoftext|>"
VOCABULARY = 768  # tokens at most; the embedding has more rows, as GPT-J's has
ROWS = 832
SHAPE = {"n_layer": 6, "n_embd": 192, "n_head": 6, "rotary_dim": 16, "n_positions": 512}


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2's. Every word of the world is one token with its leading space, which is checked."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.islice(documents(seed), 20_000), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END)
    for word in (*NOUNS, *CATEGORIES, *BACKGROUNDS, *SIZES):
        if len(fast.encode(f" {word}")) != 1:
            raise RuntimeError(f"tokenizer: {word!r} is not one token; raise VOCABULARY ({VOCABULARY})")
    return fast


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, tokens: int, word_maps: bool):
    """(ids, labels), each (batch, pos): documents of like length together, each from position 0, `END` after it."""
    end = tokenizer.eos_token_id
    stream = documents(seed, word_maps)
    rng = np.random.default_rng(seed)
    while True:
        pool = sorted(tokenizer(list(itertools.islice(stream, 8192)))["input_ids"], key=len)
        groups, group, width = [], [], 0
        for ids in pool:
            width = max(width, len(ids) + 1)
            if group and width * (len(group) + 1) > tokens:
                groups.append(group)
                group, width = [], len(ids) + 1
            group.append(ids)
        for g in rng.permutation(len(groups)):
            width = max(map(len, groups[g])) + 1
            ids = torch.full((len(groups[g]), width), end)
            labels = torch.full((len(groups[g]), width), -100)
            for row, document in enumerate(groups[g]):
                ids[row, : len(document)] = torch.tensor(document)
                labels[row, : len(document) + 1] = ids[row, : len(document) + 1]
            yield ids, labels


def accuracy(model: GPTJForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, count: int = 200) -> dict:
    """Of scenes given as text in each form: the share of true captions that are among those the model tells greedily,
    and the share of nouns, sizes, relations and backgrounds that it tells right."""
    rng = np.random.default_rng(seed)
    result = {}
    for form in (notes, word_map, sentences):
        right = {"nouns": [], "sizes": [], "relation": [], "background": []}
        for _ in range(count):
            scene = sample_scene(rng, held_out=None)
            prompt = tokenizer(f"{form(scene, rng)} {PROMPT}", return_tensors="pt")["input_ids"]
            with torch.no_grad():
                out = model.generate(prompt, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
            words = tokenizer.decode(out[0, prompt.shape[1] :]).split(".")[0].split()
            told = next((s for s in (scene, scene.turned()) if s.nouns[0] in words[:3]), scene)
            expected = caption(told).rstrip(".").split()[len(PROMPT.split()) :]
            right["nouns"] += [noun in words for noun in scene.nouns]
            right["sizes"].append(words[1:2] == expected[1:2])
            right["background"].append(words[-1:] == expected[-1:])
            if scene.relation:
                right["relation"].append(words[3:4] == expected[3:4])
        result[form.__name__] = {name: round(float(np.mean(values)), 3) for name, values in right.items()}
    return result


def train(out: Path, seed: int, steps: int, tokens: int, word_maps: bool) -> dict:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(seed)
    end = tokenizer.eos_token_id
    config = GPTJConfig(
        **SHAPE, vocab_size=ROWS, tie_word_embeddings=False, bos_token_id=end, eos_token_id=end,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPTJForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = cosine(optimizer, steps, warmup=300)
    seen, began, losses = 0, time.time(), []
    progress = tqdm(batches(tokenizer, seed + 1, tokens, word_maps), total=steps, file=sys.stderr, mininterval=10)
    for step, (ids, labels) in enumerate(progress):
        if step == steps:
            break
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen += int((labels >= 0).sum())
        losses.append(loss.item())
        if step % 100 == 99:
            progress.set_postfix(loss=f"{np.mean(losses[-100:]):.3f}", tokens=f"{seen / 1e6:.1f}M")
        if step % 1000 == 999:
            model.eval()
            print(step + 1, json.dumps(accuracy(model, tokenizer, seed + 2, 40)), file=sys.stderr, flush=True)
            model.train()
    model.eval()
    report = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens in the tokenizer": len(tokenizer),
        "rows of W_E": ROWS,
        "tokens seen": seen,
        "steps": steps,
        "loss at the end": round(float(np.mean(losses[-200:])), 4),
        "minutes": round((time.time() - began) / 60, 1),
        "told right, the facts given as text": accuracy(model, tokenizer, seed + 2),
    }
    # No token has these rows: as in GPT-J they are there and mean nothing.
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens in a batch, padding counted")
    parser.add_argument("--no-word-maps", action="store_true", help="the ablation: no document in rows and columns")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    report = train(args.out, args.seed, args.steps, args.tokens, not args.no_word_maps)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
