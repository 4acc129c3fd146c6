"""Trains the suite's BEiT, from scratch on pictures alone: masked image modelling on k-means codes of the patches.

    python -m experiments.emoji_world.beit --out limber_weights/emoji/encoders/beit

BEiT's own codes come from DALL-E's tokenizer (Bao et al., 2021, arXiv 2106.08254); k-means on the patches stands in for
it. No word enters: this is the encoder without linguistic supervision.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from tqdm import tqdm
from transformers import BeitConfig, BeitForMaskedImageModeling, BeitModel

from experiments.emoji_world.probe import probe_encoder
from experiments.emoji_world.recipe import cosine, save_half
from experiments.emoji_world.scenes import IMAGE_SIZE, pixels_of
from experiments.emoji_world.world import sample_scene

PATCH = 24
CODES = 512
MASKED = 0.4  # share of the patches, BEiT's own
SHAPE = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 768}


def normalise(pixels: Tensor) -> Tensor:
    """Mean and standard deviation 0.5, as BEiT's image processor has them."""
    return (pixels - 0.5) / 0.5


def patches_of(pixels: Tensor) -> Tensor:
    """(batch, patch, 3 · 12 · 12): each patch at half its resolution, so that codes mean form and colour, not grain."""
    small = torch.nn.functional.avg_pool2d(pixels, 2)
    side = PATCH // 2
    return torch.nn.functional.unfold(small, side, stride=side).transpose(1, 2)


def spatial(model: BeitModel, pixels: Tensor) -> Tensor:
    """(batch, image_pos, d_encoder): the last hidden state without the class token."""
    return model(normalise(pixels)).last_hidden_state[:, 1:]


def save(model: BeitModel, out: Path) -> None:
    save_half(model, out)
    processor = {
        "image_processor_type": "BeitImageProcessor",
        "do_resize": True, "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "resample": 3, "do_center_crop": False, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=1))


def train(out: Path, seed: int, steps: int, batch: int) -> dict:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    began = time.time()
    sample = patches_of(pixels_of([sample_scene(rng) for _ in range(1500)], rng)).flatten(0, 1)
    codebook = MiniBatchKMeans(CODES, random_state=seed, n_init=1, batch_size=4096).fit(sample.numpy())
    centres = torch.from_numpy(codebook.cluster_centers_).float()
    config = BeitConfig(
        **SHAPE, image_size=IMAGE_SIZE, patch_size=PATCH, vocab_size=CODES, use_mask_token=True,
        use_relative_position_bias=True, use_mean_pooling=False, layer_scale_init_value=0.1, drop_path_rate=0.0,
    )  # fmt: skip
    model = BeitForMaskedImageModeling(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = cosine(optimizer, steps)
    right: list[float] = []
    progress = tqdm(range(steps), file=sys.stderr, mininterval=10, desc="beit")
    for step in progress:
        pixels = pixels_of([sample_scene(rng) for _ in range(batch)], rng)
        codes = torch.cdist(patches_of(pixels), centres).argmin(-1)
        masked = torch.rand(codes.shape).argsort(1) < int(MASKED * codes.shape[1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(normalise(pixels), bool_masked_pos=masked).logits
        loss = torch.nn.functional.cross_entropy(logits.float()[masked], codes[masked])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        right.append((logits[masked].argmax(-1) == codes[masked]).float().mean().item())
        if step % 50 == 49:
            progress.set_postfix(loss=f"{loss.item():.3f}", right=f"{np.mean(right[-50:]):.3f}")
    model.eval()
    save(model.beit, out)
    return {
        "parameters": sum(p.numel() for p in model.beit.parameters()),
        "pictures seen": steps * batch,
        "masked codes told right, last 200 steps": round(float(np.mean(right[-200:])), 3),
        "minutes": round((time.time() - began) / 60, 1),
        "linear probe": probe_encoder(lambda pixels: spatial(model.beit, pixels)),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    print(json.dumps(train(args.out, args.seed, args.steps, args.batch), indent=2))


if __name__ == "__main__":
    main()
