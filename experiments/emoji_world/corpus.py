"""Text of the emoji world, from a grammar: what the language model is trained on. No picture is involved.

A document states the facts of a scene in some form, and then tells it as a caption, so that a model which has learnt to
predict it reads the facts before it tells them. The forms:

- `notes`: loose words in any order (an object's noun as often as it is big, its background, words about its place);
- `word_map`: a table of words, of any number of rows and columns, in which each cell holds what covers it;
- `sentences`: "There is a big dog. …"; `questions` about them; `facts` on categories; a caption alone;
- `pair`: two such documents one after the other.

Word maps resemble the rows of patches that an image becomes, so `documents(..., word_maps=False)` leaves them out: the
ablation that tells how much of the result rests on that resemblance.
"""

from collections.abc import Iterator

import numpy as np

from experiments.emoji_world.world import BACKGROUNDS, CATEGORIES, CATEGORY_OF, NOUNS, OPPOSITE, Scene, sample_scene

PROMPT = "A picture of"
ON = {
    "grass": "on the grass", "sand": "on the sand", "snow": "in the snow", "water": "in the water",
    "night": "in the night", "brick": "on the brick", "wood": "on the wood", "sunset": "in the sunset",
}  # fmt: skip
BESIDE = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
PLACE_WORDS = {"left": "left", "right": "right", "above": "top", "below": "bottom"}


def caption(scene: Scene) -> str:
    told = f"{PROMPT} a {scene.sizes[0]} {scene.nouns[0]}"
    if scene.relation:
        told += f" {BESIDE[scene.relation]} a {scene.sizes[1]} {scene.nouns[1]}"
    return f"{told} {ON[scene.background]}."


def captions(scene: Scene) -> list[str]:
    """All captions that are true of the scene: two objects can be told from either side."""
    return list(dict.fromkeys([caption(scene), caption(scene.turned())]))


def _stray(rng: np.random.Generator) -> str:
    return str(rng.choice(NOUNS) if rng.random() < 0.5 else rng.choice(BACKGROUNDS))


def notes(scene: Scene, rng: np.random.Generator) -> str:
    """Loose words: repetition tells the size, place words the relation; now and then a stray word, or all shuffled."""
    groups: list[list[str]] = []
    place = rng.random() < 0.6
    for i, (noun, size) in enumerate(zip(scene.nouns, scene.sizes, strict=True)):
        times = int(rng.integers(1, 3) if size == "small" else rng.integers(3, 6))
        words = [noun] * times
        if rng.random() < 0.4:
            words += [size] * int(rng.integers(1, 3))
        if rng.random() < 0.15:
            words.append(CATEGORY_OF[noun])
        if place and scene.relation:
            words += [PLACE_WORDS[scene.relation if i == 0 else OPPOSITE[scene.relation]]] * int(rng.integers(1, 3))
        rng.shuffle(words)
        groups.append(words)
    groups.append([scene.background] * int(rng.integers(0, 8)))
    if rng.random() < 0.3:
        groups.append([_stray(rng)])
    rng.shuffle(groups)
    words = [word for group in groups for word in group]
    if not (place and scene.relation) and rng.random() < 0.5:
        rng.shuffle(words)
    return " " + " ".join(words)


def word_map(scene: Scene, rng: np.random.Generator) -> str:
    """Rows of words, 2 to 6 by 2 to 6: an object's noun in the cells that it covers, the background elsewhere."""
    rows = int(rng.integers(2, 7))
    columns = rows if rng.random() < 0.7 else int(rng.integers(2, 7))
    table = np.full((rows, columns), scene.background, dtype=object)
    extent = [0.28 if size == "small" else 0.48 for size in scene.sizes]
    extent = [e * rng.uniform(0.9, 1.1) for e in extent]
    slack = max(0.0, 1 - sum(extent))
    start, gap = sorted(rng.uniform(0, slack, size=2))
    first = 0 if scene.relation in (None, "left", "above") else 1
    along = {first: start, 1 - first: extent[first] + gap}
    level = rng.uniform(0, 1 - max(extent))
    for i, noun in enumerate(scene.nouns):
        if scene.relation is None:
            left, top = rng.uniform(0, 1 - extent[0], size=2)
        elif scene.relation in ("left", "right"):
            left, top = along[i], level
        else:
            left, top = level, along[i]
        # A cell counts as covered where the object reaches its middle, or at least the one that holds the object's own.
        middle = (int((top + extent[i] / 2) * rows), int((left + extent[i] / 2) * columns))
        table[middle] = noun
        for row in range(rows):
            for column in range(columns):
                y, x = (row + 0.5) / rows, (column + 0.5) / columns
                if top - 0.02 <= y <= top + extent[i] + 0.02 and left - 0.02 <= x <= left + extent[i] + 0.02:
                    table[row, column] = noun
    words = table.reshape(-1)
    stray = rng.random(words.size) < (0.05 if rng.random() < 0.5 else 0.0)
    return " " + " ".join(_stray(rng) if s else str(word) for word, s in zip(words, stray, strict=True))


def sentences(scene: Scene, rng: np.random.Generator) -> str:
    told = [f"There is a {scene.sizes[0]} {scene.nouns[0]}."]
    if scene.relation:
        told.append(f"There is a {scene.sizes[1]} {scene.nouns[1]}.")
        if rng.random() < 0.8:
            teller = scene if rng.random() < 0.5 else scene.turned()
            told.append(f"The {teller.nouns[0]} is {BESIDE[str(teller.relation)]} the {teller.nouns[1]}.")
    if rng.random() < 0.8:
        told.append(f"It is {ON[scene.background]}.")
    rng.shuffle(told)
    return " " + " ".join(told)


def questions(scene: Scene, rng: np.random.Generator) -> str:
    i = int(rng.integers(len(scene.nouns)))
    noun = scene.nouns[i]
    asked = [
        ("Where is it?", ON[scene.background]),
        ("How many things are there?", "one" if scene.relation is None else "two"),
        (f"What size is the {noun}?", scene.sizes[i]),
        (f"What is the {noun}?", with_article(CATEGORY_OF[noun])),
    ]
    if scene.relation:
        teller = scene if rng.random() < 0.5 else scene.turned()
        asked.append((f"What is {BESIDE[str(teller.relation)]} the {teller.nouns[1]}?", f"a {teller.nouns[0]}"))
    else:
        asked.append(("What is it?", f"a {noun}"))
    chosen = rng.permutation(len(asked))[: int(rng.integers(1, 4))]
    return " ".join(f"Q: {asked[j][0]} A: {asked[j][1]}." for j in chosen)


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def fact(rng: np.random.Generator) -> str:
    noun = str(rng.choice(NOUNS))
    if rng.random() < 0.5:
        return f"A {noun} is {with_article(CATEGORY_OF[noun])}."
    members = rng.choice(list(CATEGORIES[CATEGORY_OF[noun]]), size=3, replace=False)
    return f"A {members[0]}, a {members[1]} and a {members[2]} are each {with_article(CATEGORY_OF[noun])}."


def _stated(scene: Scene, rng: np.random.Generator, word_maps: bool) -> str:
    """The scene's facts, then its caption (or questions, or both)."""
    form = rng.random()
    if form < 0.40:
        stated = word_map(scene, rng) if word_maps else notes(scene, rng)
    elif form < 0.75:
        stated = notes(scene, rng)
    else:
        stated = sentences(scene, rng)
    told = captions(scene)[int(rng.integers(len(captions(scene))))]
    asked = rng.random()
    if asked < 0.12:
        return f"{stated} {questions(scene, rng)}"
    if asked < 0.18:
        return f"{stated} {told} {questions(scene, rng)}"
    return f"{stated} {told}"


def documents(seed: int, word_maps: bool = True) -> Iterator[str]:
    """An endless stream of documents. Held-out pairs do occur in the text: what is held out is their picture."""
    rng = np.random.default_rng(seed)
    while True:
        scene = sample_scene(rng, held_out=None)
        form = rng.random()
        if form < 0.80:
            yield _stated(scene, rng, word_maps)
        elif form < 0.90:
            yield f"{_stated(scene, rng, word_maps)}{_stated(sample_scene(rng, held_out=None), rng, word_maps)}"
        elif form < 0.95:
            yield caption(scene)
        else:
            yield fact(rng)
