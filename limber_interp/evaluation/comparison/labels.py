"""What is known of an image beside its captions, from the metadata of its example."""

from collections.abc import Sequence
from typing import Any

from limber_interp.datasets import Example
from limber_interp.images import load_image

# Keys of the embedded suite's scenes under the names of the facts. Other keys stand for themselves
NAMES = {"categories": "category", "sizes": "size"}
NO_LABELS = {"nouns", "questions", "boxes"}  # too many to be learned from few images, or no names


def labels_of(examples: Sequence[Example]) -> dict[str, list[str | None]]:
    """Fact -> its label for each image.

    A fact is a text or a whole number in the metadata, or a list that holds just one: of two things' sizes no label is
    the image's. `position` is the quadrant of the one thing's box.
    """
    keys = dict.fromkeys(key for example in examples for key in example.metadata if key not in NO_LABELS)
    found = {NAMES.get(key, key): [_label(example.metadata.get(key)) for example in examples] for key in keys}
    found["position"] = [_quadrant(example) for example in examples]
    return {fact: labels for fact, labels in found.items() if any(labels)}


def nouns_of(examples: Sequence[Example]) -> list[list[str]]:
    """The nouns of each image, where the metadata has them."""
    found = [example.metadata.get("nouns", []) for example in examples]
    return [[noun for noun in nouns if isinstance(noun, str)] if isinstance(nouns, list) else [] for nouns in found]


def _label(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)


def _quadrant(example: Example) -> str | None:
    match example.metadata.get("boxes"):
        case [[float() | int() as left, float() | int() as top, float() | int() as right, float() | int() as bottom]]:
            width, height = load_image(example.image).size
            row = "top" if top + bottom < height else "bottom"
            return f"{row} {'left' if left + right < width else 'right'}"
    return None
