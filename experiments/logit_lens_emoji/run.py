"""Where does a patch become a word? Objects' nouns among the five best tokens at the objects' own patches, by layer.

    python -m experiments.logit_lens_emoji.run

Writes results.json and figure.png beside this file, and prints the table of its README.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

import limber_interp
from experiments.emoji_world.scenes import IMAGE_SIZE, write
from experiments.emoji_world.suite import CONFIGS
from experiments.logit_lens_emoji.measured import K, best_tokens, object_positions, prompts
from experiments.logit_lens_emoji.shown import draw, table
from limber_interp.datasets import Example, read_folder
from limber_interp.models import Limber
from limber_interp.records import write_atomically

HERE = Path(__file__).parent


def shares(model: Limber, examples: list[Example], seed: int) -> dict[str, np.ndarray]:
    """Of each scene the share of its objects' patches with their noun among the K best, (scenes, 1 + layers)."""
    wanted = []  # per scene: (position, noun) of every object patch
    for example in examples:
        objects = zip(example.metadata["nouns"], example.metadata["boxes"], strict=True)
        ids = [(model.vocabulary.id_of(noun), object_positions(model, box, IMAGE_SIZE)) for noun, box in objects]
        wanted.append([(position, id) for id, positions in ids for position in positions])
    found = {}
    for name, soft_prompts in prompts(model, examples, seed).items():
        ids = best_tokens(model, soft_prompts)
        hits = [[(ids[:, i, p] == id).any(-1) for p, id in pairs] for i, pairs in enumerate(wanted)]
        found[name] = np.stack([np.mean(of_scene, axis=0) for of_scene in hits])
    return found


def interval(values: np.ndarray, seed: int, n: int = 2000) -> np.ndarray:
    """Mean over scenes with its 95 % bootstrap interval, scenes drawn with replacement: (3, 1 + layers)."""
    drawn = np.random.default_rng(seed).integers(len(values), size=(n, len(values)))
    means = np.stack([values[row].mean(axis=0) for row in drawn])
    return np.stack([values.mean(axis=0), *np.quantile(means, (0.025, 0.975), axis=0)])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args(arguments)
    folder = Path(f"build/logit_lens_emoji/scenes_{args.scenes}")
    if not folder.exists():
        write(folder, seed=4, count=args.scenes, held_out=None)  # no seed of the suite's own scenes
    examples = read_folder(folder)
    results = {"k": K, "scenes": len(examples), "seed": args.seed, "configs": {}, "manifests": {}}
    for config in tqdm(CONFIGS, unit="encoder"):
        model = limber_interp.load(config, dtype="float32")
        found = {name: interval(values, args.seed) for name, values in shares(model, examples, args.seed).items()}
        results["configs"][config] = {name: np.round(values, 4).tolist() for name, values in found.items()}
        results["manifests"][config] = dataclasses.asdict(model.manifest(seed=args.seed))
    text = json.dumps(results, indent=1)
    write_atomically(args.out / "results.json", lambda path: path.write_text(text))
    draw(results, args.out / "figure.png")
    print(table(results))


if __name__ == "__main__":
    main()
