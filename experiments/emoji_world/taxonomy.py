"""Writes the words of the emoji world, in groups, for measures of what captions tell.

    python -m experiments.emoji_world.taxonomy --out limber_weights/emoji/taxonomy.json

Nouns are grouped by category, and these once more, so that a wrong noun can be near, less near or far: Wu-Palmer
similarity is 0.75 within a category, 0.5 within a group of categories, 0.25 otherwise.
"""

import argparse
import json
from pathlib import Path

from experiments.emoji_world.corpus import BESIDE
from experiments.emoji_world.world import BACKGROUNDS, CATEGORIES, SIZES
from limber_interp.records import write_atomically

GROUPS = {
    "living": ("animal", "bird", "swimmer", "plant"),
    "edible": ("fruit", "food"),
    "made": ("vehicle", "clothing", "tool", "toy"),
}
AXES = {"horizontal": ("left", "right"), "vertical": ("above", "below")}


def words() -> dict[str, dict]:
    """Nouns, modifiers and relations, as captions tell them."""
    return {
        "nouns": {name: {category: list(CATEGORIES[category]) for category in group} for name, group in GROUPS.items()},
        "modifiers": {"size": list(SIZES), "background": list(BACKGROUNDS)},
        "relations": {axis: [BESIDE[relation] for relation in relations] for axis, relations in AXES.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    write_atomically(args.out, lambda file: file.write_text(json.dumps(words(), indent=1) + "\n"))


if __name__ == "__main__":
    main()
