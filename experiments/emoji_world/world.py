"""The emoji world: its nouns, and scenes as plain facts, from which both the pictures and the texts are made.

A scene is one or two nouns, each big or small, on a background; two nouns stand in a relation. Nothing here draws and
nothing here writes sentences: `scenes.py` and `corpus.py` do.
"""

import itertools
from dataclasses import dataclass

import numpy as np

CATEGORIES: dict[str, dict[str, str]] = {
    "animal": {
        "dog": "🐕", "cat": "🐈", "rabbit": "🐇", "fox": "🦊", "bear": "🐻",
        "panda": "🐼", "tiger": "🐅", "elephant": "🐘", "cow": "🐄", "frog": "🐸",
    },
    "bird": {
        "owl": "🦉", "duck": "🦆", "eagle": "🦅", "penguin": "🐧", "rooster": "🐓",
        "flamingo": "🦩", "parrot": "🦜", "peacock": "🦚", "swan": "🦢", "turkey": "🦃",
    },
    "swimmer": {
        "fish": "🐟", "octopus": "🐙", "crab": "🦀", "whale": "🐳", "shark": "🦈",
        "turtle": "🐢", "shrimp": "🦐", "squid": "🦑", "lobster": "🦞", "shell": "🐚",
    },
    "fruit": {
        "apple": "🍎", "banana": "🍌", "grape": "🍇", "melon": "🍉", "strawberry": "🍓",
        "cherry": "🍒", "lemon": "🍋", "pineapple": "🍍", "pear": "🍐", "kiwi": "🥝",
    },
    "food": {
        "pizza": "🍕", "burger": "🍔", "fries": "🍟", "taco": "🌮", "donut": "🍩",
        "cookie": "🍪", "cake": "🍰", "bread": "🍞", "cheese": "🧀", "egg": "🍳",
    },
    "vehicle": {
        "car": "🚗", "bus": "🚌", "truck": "🚚", "bicycle": "🚲", "train": "🚂",
        "rocket": "🚀", "plane": "✈", "helicopter": "🚁", "boat": "⛵", "tractor": "🚜",
    },
    "plant": {
        "tree": "🌳", "cactus": "🌵", "rose": "🌹", "sunflower": "🌻", "tulip": "🌷",
        "palm": "🌴", "mushroom": "🍄", "clover": "🍀", "pine": "🌲", "leaf": "🍁",
    },
    "clothing": {
        "hat": "🎩", "shirt": "👕", "shoe": "👟", "sock": "🧦", "dress": "👗",
        "glove": "🧤", "scarf": "🧣", "crown": "👑", "boot": "👢", "glasses": "👓",
    },
    "tool": {
        "hammer": "🔨", "key": "🔑", "scissors": "✂", "umbrella": "☂", "lamp": "💡",
        "clock": "⏰", "phone": "📱", "book": "📕", "pencil": "✏", "magnet": "🧲",
    },
    "toy": {
        "guitar": "🎸", "violin": "🎻", "trumpet": "🎺", "drum": "🥁", "balloon": "🎈",
        "gift": "🎁", "football": "⚽", "basketball": "🏀", "kite": "🪁", "dice": "🎲",
    },
}  # fmt: skip

EMOJI = {noun: emoji for members in CATEGORIES.values() for noun, emoji in members.items()}
NOUNS = tuple(EMOJI)
CATEGORY_OF = {noun: category for category, members in CATEGORIES.items() for noun in members}
BACKGROUNDS = ("grass", "sand", "snow", "water", "night", "brick", "wood", "sunset")
SIZES = ("small", "big")
RELATIONS = ("left", "right", "above", "below")  # of the first object to the second
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def _held_out_pairs() -> frozenset[frozenset[str]]:
    """One pair in twenty, the same on every machine: never drawn for training, though each noun alone is."""
    pairs = list(itertools.combinations(NOUNS, 2))
    chosen = np.random.default_rng(20221122).permutation(len(pairs))[: len(pairs) // 20]
    return frozenset(frozenset(pairs[i]) for i in chosen)


HELD_OUT_PAIRS = _held_out_pairs()


@dataclass(frozen=True)
class Scene:
    """Facts of one scene. `relation` is that of `nouns[0]` to `nouns[1]`, None where there is one object."""

    nouns: tuple[str, ...]
    sizes: tuple[str, ...]
    relation: str | None
    background: str

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(CATEGORY_OF[noun] for noun in self.nouns)

    @property
    def held_out(self) -> bool:
        return frozenset(self.nouns) in HELD_OUT_PAIRS

    def turned(self) -> "Scene":
        """The same scene, told from its second object."""
        if self.relation is None:
            return self
        return Scene(self.nouns[::-1], self.sizes[::-1], OPPOSITE[self.relation], self.background)


def sample_scene(rng: np.random.Generator, held_out: bool | None = False, like: Scene | None = None) -> Scene:
    """A random scene: one object or two, with equal chance.

    `held_out` is False for training (never a held-out pair), True for scenes of such a pair only, None for both.
    `like` keeps everything but the nouns: a batch of such scenes can be told apart by the nouns alone.
    """
    count = len(like.nouns) if like else int(rng.integers(1, 3))
    count = 2 if held_out else count
    while True:
        nouns = tuple(str(noun) for noun in rng.choice(NOUNS, size=count, replace=False))
        if held_out is None or (frozenset(nouns) in HELD_OUT_PAIRS) == held_out:
            break
    if like:
        return Scene(nouns, like.sizes, like.relation, like.background)
    sizes = tuple(str(size) for size in rng.choice(SIZES, size=count))
    relation = str(rng.choice(RELATIONS)) if count == 2 else None
    return Scene(nouns, sizes, relation, str(rng.choice(BACKGROUNDS)))
