"""Trains the suite's two supervised encoders to name the nouns of a picture: words as classes, as ImageNet's are.

    python -m experiments.emoji_world.supervised --encoder nfresnet --out limber_weights/emoji/encoders/nfresnet
    python -m experiments.emoji_world.supervised --encoder beit_ft --init limber_weights/emoji/encoders/beit \
        --out limber_weights/emoji/encoders/beit_ft

`nfresnet` is timm's norm-free ResNet from scratch; `beit_ft` goes on from the self-supervised BEiT.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import BeitModel

from experiments.emoji_world import beit
from experiments.emoji_world.probe import labels, noun_recall, probe_encoder
from experiments.emoji_world.recipe import cosine, save_half
from experiments.emoji_world.scenes import IMAGE_SIZE, pixels_of
from experiments.emoji_world.world import NOUNS, sample_scene

ARCHITECTURE = "nf_resnet50"
# Narrow on purpose: the wider the pooled vector of a random one, the more of the objects' colours a linear map can read
# from it (experiments/LOG.md), and the random control is to hear little.
MODEL_ARGS = {"depths": [1, 2, 3, 1], "channels": [48, 96, 144, 192], "stem_chs": 32}


def nfresnet() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """The norm-free ResNet and its pooled output as one position; pixels in [0, 1], no normalisation."""
    model = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, **MODEL_ARGS)
    model = model.to(memory_format=torch.channels_last)
    return model, lambda pixels: model(pixels.contiguous(memory_format=torch.channels_last))[:, None]


def beit_ft(init: Path) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    model = BeitModel.from_pretrained(init, add_pooling_layer=False, dtype=torch.float32)
    return model, lambda pixels: beit.spatial(model, pixels)


def train(encoder: str, init: Path | None, out: Path, seed: int, steps: int, batch: int) -> dict:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, encode = nfresnet() if encoder == "nfresnet" else beit_ft(init)
    model.train()
    with torch.no_grad():
        d_encoder = encode(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)).shape[-1]
    head = nn.Linear(d_encoder, len(NOUNS))
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *head.parameters()], lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05
    )
    schedule = cosine(optimizer, steps)
    began, recalls = time.time(), []
    progress = tqdm(range(steps), file=sys.stderr, mininterval=10, desc=encoder)
    for step in progress:
        scenes = [sample_scene(rng) for _ in range(batch)]
        truth = labels(scenes)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = head(encode(pixels_of(scenes, rng)).mean(1))
        # Softmax over the nouns with the present ones as target: it learns far faster than one yes or no per noun.
        loss = -(truth / truth.sum(1, keepdim=True) * scores.float().log_softmax(1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recalls.append(noun_recall(scores.detach(), truth))
        if step % 50 == 49:
            progress.set_postfix(loss=f"{loss.item():.3f}", recall=f"{np.mean(recalls[-50:]):.3f}")
    model.eval()
    if encoder == "nfresnet":
        save_half(model, out)
        config = {"architecture": ARCHITECTURE, "model_args": MODEL_ARGS, "image_size": IMAGE_SIZE}
        (out / "config.json").write_text(json.dumps(config, indent=1))
    else:
        beit.save(model, out)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "pictures seen": steps * batch,
        "nouns told right, last 200 steps": round(float(np.mean(recalls[-200:])), 3),
        "minutes": round((time.time() - began) / 60, 1),
        "linear probe": probe_encoder(encode),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=("nfresnet", "beit_ft"), required=True)
    parser.add_argument("--init", type=Path, help="beit_ft: the folder of the BEiT to go on from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    if args.encoder == "beit_ft" and args.init is None:
        parser.error("--encoder beit_ft: --init is missing; name the folder of the BEiT to go on from")
    torch.set_num_threads(args.threads)
    report = train(args.encoder, args.init, args.out, args.seed, args.steps, args.batch)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
