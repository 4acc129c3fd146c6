"""Trains the suite's CLIP, contrastive and from scratch, with open_clip's ModifiedResNet and text tower.

    python -m experiments.emoji_world.clip --out limber_weights/emoji/encoders/clip

Most batches share background, sizes and relation, and draw their nouns from a few: they can be told apart only by
*both* nouns. On random batches the background and one noun are enough, and the spatial features keep little else.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor
from tqdm import tqdm

from experiments.emoji_world.corpus import captions
from experiments.emoji_world.probe import probe_encoder
from experiments.emoji_world.recipe import cosine, save_half
from experiments.emoji_world.scenes import IMAGE_SIZE, pixels_of
from experiments.emoji_world.world import NOUNS, Scene, sample_scene

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
FEW_NOUNS = 24  # 276 pairs: most pairs of a batch then share a noun with another


def vocabulary() -> list[str]:
    """Words of the captions, by their place: the text tower's own tokens. 0 pads, the last one ends a caption, as
    open_clip looks for the highest id."""
    rng = np.random.default_rng(0)
    words = {w for _ in range(20_000) for text in captions(sample_scene(rng, None)) for w in _words(text)}
    return ["<pad>", *sorted(words), "<end>"]


def _words(text: str) -> list[str]:
    return text.lower().rstrip(".").split()


def tokenize(texts: list[str], words: list[str], context: int) -> Tensor:
    ids = torch.zeros(len(texts), context, dtype=torch.long)
    index = {word: i for i, word in enumerate(words)}
    for row, text in enumerate(texts):
        found = [index[word] for word in _words(text)] + [len(words) - 1]
        ids[row, : len(found)] = torch.tensor(found)
    return ids


def contrastive_scenes(rng: np.random.Generator, count: int) -> list[Scene]:
    """One in four batches is random; the others share all but their nouns, which in pairs come from a few."""
    if rng.random() < 0.25:
        return [sample_scene(rng) for _ in range(count)]
    like = sample_scene(rng)
    while like.relation is None and rng.random() < 0.4:  # two objects more often: they are the harder ones
        like = sample_scene(rng)
    few = set(rng.choice(NOUNS, size=FEW_NOUNS, replace=False)) if like.relation else set(NOUNS)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = sample_scene(rng, like=like)
        if few.issuperset(scene.nouns):
            scenes.append(scene)
        elif like.relation:
            pair = tuple(str(n) for n in rng.choice(sorted(few), size=2, replace=False))
            scene = Scene(pair, like.sizes, like.relation, like.background)
            if not scene.held_out:
                scenes.append(scene)
    return scenes


def spatial(model: CLIP, pixels: Tensor) -> Tensor:
    """The tower without its attention pooling: (batch, image_pos, d_encoder)."""
    tower = model.visual
    x = tower.layer4(tower.layer3(tower.layer2(tower.layer1(tower.stem(pixels)))))
    return x.flatten(2).transpose(1, 2)


def normalise(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def train(out: Path, seed: int, steps: int, batch: int) -> dict:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    words = vocabulary()
    model_cfg = {
        "embed_dim": 192,
        "vision_cfg": {"layers": [2, 2, 4, 2], "width": 32, "image_size": IMAGE_SIZE, "head_width": 32},
        "text_cfg": {"context_length": 20, "vocab_size": len(words), "width": 128, "heads": 4, "layers": 2},
    }
    model = CLIP(**model_cfg).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = cosine(optimizer, steps)
    began, hits = time.time(), []
    progress = tqdm(range(steps), file=sys.stderr, mininterval=10, desc="clip")
    for step in progress:
        scenes = contrastive_scenes(rng, batch)
        told = [text[int(rng.integers(len(text)))] for text in map(captions, scenes)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image = model.encode_image(normalise(pixels_of(scenes, rng)), normalize=True)
            text = model.encode_text(tokenize(told, words, model.context_length), normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * image.float() @ text.float().T
        # Scenes that are told alike are not each other's negatives.
        key = [frozenset(captions(scene)) for scene in scenes]
        same = torch.tensor([[a == b for b in key] for a in key]).float()
        target = same / same.sum(1, keepdim=True)
        loss = (-(target * logits.log_softmax(1)).sum(1).mean() - (target * logits.log_softmax(0)).sum(0).mean()) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        hits.append(same[torch.arange(batch), logits.argmax(1)].mean().item())
        if step % 50 == 49:
            progress.set_postfix(loss=f"{loss.item():.3f}", hit=f"{np.mean(hits[-50:]):.3f}")
    model.eval()
    report = {
        "parameters of the image tower": sum(p.numel() for p in model.visual.parameters()),
        "pictures seen": steps * batch,
        "right caption in the batch, last 200 steps": round(float(np.mean(hits[-200:])), 3),
        "minutes": round((time.time() - began) / 60, 1),
        "linear probe": probe_encoder(lambda pixels: spatial(model, normalise(pixels))),
    }
    save_half(model, out)
    preprocess_cfg = {"mean": MEAN, "std": STD}
    (out / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}, indent=1)
    )
    (out / "vocabulary.json").write_text(json.dumps(words))
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(json.dumps(train(args.out, args.seed, args.steps, args.batch), indent=2))


if __name__ == "__main__":
    main()
