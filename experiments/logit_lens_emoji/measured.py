"""What is measured: object patches, soft prompts and their controls, the best tokens at every layer."""

import numpy as np
import torch
from torch import Tensor

from limber_interp.datasets import Example
from limber_interp.models import Limber
from limber_interp.probes.controls import Substitutes, derangement, generator
from limber_interp.probes.layers import capture, read_layers
from limber_interp.probes.lens import EmbeddingLens, UnembeddingLens, read

K = 5
DRAWS = ("noise", "random_map", "random_encoder")
BATCH = 50


def object_positions(model: Limber, box: list[int], image_size: int) -> list[int]:
    """Positions of the patches that lie in the box by half or more, or else of the one that does most; all positions of
    an encoder that pools the image."""
    if model.encoder.grid is None:
        return list(range(model.projection.n_tokens))
    rows, cols = model.encoder.grid
    edges_x, edges_y = np.linspace(0, image_size, cols + 1), np.linspace(0, image_size, rows + 1)
    left, top, right, bottom = box
    inside_x = np.clip(np.minimum(edges_x[1:], right) - np.maximum(edges_x[:-1], left), 0, None) / np.diff(edges_x)
    inside_y = np.clip(np.minimum(edges_y[1:], bottom) - np.maximum(edges_y[:-1], top), 0, None) / np.diff(edges_y)
    covered = np.outer(inside_y, inside_x).ravel()
    return np.flatnonzero(covered >= min(0.5, covered.max())).tolist()


@torch.no_grad()
def best_tokens(model: Limber, soft_prompts: Tensor) -> np.ndarray:
    """Ids of the K best tokens, (1 + layers, scenes, pos, K): first the nearest rows of W_E, then layer by layer."""
    used, none = model.vocabulary.rows, torch.empty(0, dtype=torch.int64)
    lens, nearest = UnembeddingLens(model.lm, used), EmbeddingLens(model.lm.W_E, "cosine", used)
    found = []
    for batch in soft_prompts.split(BATCH):
        prompt = model.embed([[rows] for rows in batch])
        every = [range(batch.shape[1])] * len(batch)
        layers = read_layers(lens, capture(model, lens, prompt, every), K, none, none).ids
        both = torch.cat([read(nearest, batch.flatten(0, 1), K).ids[None], layers])
        found.append(both.unflatten(1, batch.shape[:2]))
    return torch.cat(found, dim=1).numpy()


@torch.no_grad()
def prompts(model: Limber, examples: list[Example], seed: int) -> dict[str, Tensor]:
    """Soft prompts (scenes, pos, d_model): the image's own, and one of each control."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("image", *DRAWS)}
    substitutes = Substitutes(model, seed)
    for index, example in enumerate(examples):
        pixels = model.preprocess([example.image])
        encoding = model.encode(pixels)
        soft_prompt = model.projection(encoding)
        found["image"].append(soft_prompt)
        for name in DRAWS:
            stream = generator(seed, name, index)
            found[name].append(substitutes.draw(name, 1, stream, pixels[0], encoding[0], soft_prompt[0]))
    stacked = {name: torch.cat(rows) for name, rows in found.items()}
    partners = derangement(len(examples), generator(seed, "derangement", 0))
    mean = stacked["image"].mean(0, keepdim=True)
    return {**stacked, "mean_prompt": mean.expand_as(stacked["image"]), "other_images": stacked["image"][partners]}
