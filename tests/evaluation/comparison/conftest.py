import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limber_interp.evaluation.comparison import compare
from limber_interp.records import Comparison

WORDS = {
    "nouns": {"living": {"animal": ["dog", "cat"]}, "made": {"thing": ["car", "boat"], "food": ["apple"]}},
    "modifiers": {"size": ["small", "large"]},
    "relations": {"place": ["on", "above", "below"]},
}
ANSWERS = ["a dog", "an apple", "a dog"]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(WORDS))
    return path


@pytest.fixture
def asked(folder: Path) -> Path:
    """The folder of nine images with two questions on each."""
    for i, path in enumerate(sorted((folder / "image_data").glob("*/*.json"))):
        record = json.loads(path.read_text())
        record["metadata"]["questions"] = [
            {"question": "What is it?", "answers": [ANSWERS[i % 3]], "kind": "what"},
            {"question": "Where is it?", "answers": ["on the grass"], "kind": "where"},
        ]
        path.write_text(json.dumps(record))
    return folder


@pytest.fixture
def run(world, asked: Path, words: Path) -> Callable[..., Comparison]:
    """`compare` of two of the tiny world's configs, with few words said of each image."""

    def run(out: Path, tasks: tuple[str, ...] = ("caption",), **settings: Any) -> Comparison:
        common = {"max_new_tokens": 5, "shots": (0, 1), "batch_size": 4, "words": words}
        configs = [world.config("clip"), world.config("nfresnet")]
        record = compare(configs, asked, tasks, out=out, **{**common, **settings})
        assert record is not None
        return record

    return run
