"""A folder of captioned images in LIMBER's format, for the tiny random world."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CAPTIONS = ["A picture of a dog on the grass.", "A picture of a small apple above a large boat.", "A dog."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine images: one plain colour and one caption for each remainder of three. `image_path` stands in some only."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for index in range(9):
        colour = np.zeros((64, 64, 3), dtype=np.uint8)
        colour[..., index % 3] = 200 + index
        named = index % 2 == 0
        Image.fromarray(colour).save(root / "images" / (f"{index:03d}.png" if named else f"{index:03d}.jpg"))
        (root / "image_data" / str(index // 5)).mkdir(parents=True, exist_ok=True)
        record = {"captions": [CAPTIONS[index % 3]], "metadata": {"colour": index % 3}}
        if named:
            record["image_path"] = f"images/{index:03d}.png"
        (root / "image_data" / str(index // 5) / f"{index:03d}.json").write_text(json.dumps(record))
    return root
