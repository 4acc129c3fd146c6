"""What a linear probe finds in an encoder's output: it tells encoder from projection from language model.

python -m experiments.emoji_world.probe --config emoji_beit_random_linear
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from experiments.emoji_world.scenes import pixels_of
from experiments.emoji_world.world import BACKGROUNDS, NOUNS, RELATIONS, Scene, sample_scene
from limber_interp.config import load_config
from limber_interp.models.encoders import load_encoder


def labels(scenes: list[Scene]) -> Tensor:
    """(scene, noun) float: 1 where the noun is in the scene."""
    found = torch.zeros(len(scenes), len(NOUNS))
    for row, scene in enumerate(scenes):
        for noun in scene.nouns:
            found[row, NOUNS.index(noun)] = 1
    return found


def noun_recall(scores: Tensor, truth: Tensor) -> float:
    """Share of a scene's nouns among its m highest scores, m being how many nouns it has. Chance: about 1.5 %."""
    right = [truth[row, scores[row].topk(int(truth[row].sum())).indices].mean().item() for row in range(truth.shape[0])]
    return round(float(np.mean(right)), 4)


def linear_probe(train: Tensor, scenes: list[Scene], test: Tensor, test_scenes: list[Scene], steps: int = 600) -> dict:
    """Probes encodings (scene, image_pos, d_encoder): `nouns` with one linear map for all positions (as the projection
    is), the highest score over the positions counting; background and relation from all positions side by side.
    """
    mean, scale = train.mean((0, 1)), train.std((0, 1)) + 1e-6
    train, test = (train - mean) / scale, (test - mean) / scale
    relation = [i for i, scene in enumerate(scenes) if scene.relation]
    relation_test = [i for i, scene in enumerate(test_scenes) if scene.relation]

    def fit(x: Tensor, y: Tensor, out: int, patches: bool) -> torch.nn.Linear:
        torch.manual_seed(0)
        probe = torch.nn.Linear(x.shape[-1], out)
        optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.05)
        for _ in range(steps):
            rows = torch.randint(len(x), (256,))
            scores = probe(x[rows])
            if patches:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(scores.amax(1), y[rows], reduction="none")
                loss = loss.sum(1).mean()
            else:
                loss = torch.nn.functional.cross_entropy(scores, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return probe

    with torch.enable_grad():
        nouns = fit(train, labels(scenes), len(NOUNS), patches=True)
        places = torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])
        background = fit(train.flatten(1), places, len(BACKGROUNDS), patches=False)
        related = torch.tensor([RELATIONS.index(str(scenes[i].relation)) for i in relation])
        relations = fit(train.flatten(1)[relation], related, len(RELATIONS), patches=False)
    with torch.no_grad():
        found_background = background(test.flatten(1)).argmax(1).tolist()
        found_relation = relations(test.flatten(1)[relation_test]).argmax(1).tolist()
        right_background = [BACKGROUNDS[i] == s.background for i, s in zip(found_background, test_scenes, strict=True)]
        right_relation = [
            RELATIONS[i] == test_scenes[j].relation for i, j in zip(found_relation, relation_test, strict=True)
        ]
        return {
            "nouns": noun_recall(nouns(test).amax(1), labels(test_scenes)),
            "background": round(float(np.mean(right_background)), 4),
            "relation": round(float(np.mean(right_relation)), 4),
        }


@torch.no_grad()
def probe_encoder(encode: Callable[[Tensor], Tensor], count: int = 6000, test: int = 1000) -> dict:
    """Linear probe on fresh scenes; `encode` takes pixels (batch, 3, 96, 96) in [0, 1]."""
    rng = np.random.default_rng(77)
    scenes = [sample_scene(rng) for _ in range(count + test)]
    encodings = torch.cat([encode(pixels_of(scenes[i : i + 100], rng)).float() for i in range(0, len(scenes), 100)])
    return linear_probe(encodings[:count], scenes[:count], encodings[count:], scenes[count:])


def main(arguments: list[str] | None = None) -> None:
    """Probes the encoder of a config as the package loads it: the random ones have no training stage to do so."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--config", required=True)
    args = parser.parse_args(arguments)
    encoder = load_encoder(load_config(args.config))

    def encode(pixels: Tensor) -> Tensor:
        pictures = (pixels.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        return encoder(torch.stack([encoder.preprocess(Image.fromarray(picture)) for picture in pictures]))

    print(json.dumps({"sha256": encoder.sha256, "linear probe": probe_encoder(encode)}, indent=2))


if __name__ == "__main__":
    main()
