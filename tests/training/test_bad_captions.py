"""Captions that the tokenizer refuses are left out where the data are read, in every use of them, and listed."""

import json
from pathlib import Path

import numpy as np
import pytest

from limber_interp.config import load_config
from limber_interp.datasets import open_dataset, open_questions
from limber_interp.encodings import encode
from limber_interp.evaluation.comparison.answering import usable_questions
from limber_interp.models.limber import Limber
from limber_interp.training.engine import train
from limber_interp.training.examples import Live, Stored, in_batches
from limber_interp.training.held_out import held_out_losses

REASON = r"a caption has half of a surrogate pair (U+D83D) at character 6: 'a dog \ud83d'"


@pytest.fixture
def coco(folder: Path) -> Path:
    """The nine images, with a caption for each; the second one's ends in half of a surrogate pair."""
    found = sorted((folder / "images").iterdir())
    captions = ["a dog \ud83d" if i == 1 else f"a dog in picture {i}\n" for i in range(9)]
    images = [{"id": i, "file_name": path.name} for i, path in enumerate(found)]
    told = [{"image_id": i, "caption": caption} for i, caption in enumerate(captions)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": told}))
    return folder / "captions.json"


@pytest.mark.parametrize("live", [False, True])
def test_training_goes_on_without_the_example_and_names_it(world, coco: Path, tmp_path: Path, live: bool) -> None:
    """It had stopped with a TypeError of the tokenizer that named no example, and the held-out data with another one
    after the last step, before the projection was saved."""
    config = load_config(
        world.config("clip"), name="tiny", train_steps=3, batch_size=9, zero_stage=0, warmup_num_steps=2,
        whiten=False, projection="none",
    )  # fmt: skip
    run = train(config, coco, tmp_path / "out", held_out=coco, max_rejected=0.2, live=live)
    assert (run.examples, run.rejected) == (8, 1)
    assert np.isfinite(run.held_out["right"])
    assert Path(run.projection).exists()
    [listed] = map(json.loads, (tmp_path / "out/tiny.rejected.jsonl").read_text().splitlines())
    assert listed == {"source": str(coco), "index": 1, "key": "1", "reason": REASON}


def test_what_is_read_for_training_and_held_out_data(tiny: Limber, coco: Path, tmp_path: Path) -> None:
    stored = Stored(encode(tiny.encoder, open_dataset(coco), tmp_path / "e", max_rejected=0.2))
    for examples in (stored, Live(tiny.encoder, open_dataset(coco))):
        read = examples.read(np.arange(3))
        assert read.places.tolist() == [0, 2]
        assert read.captions == [("a dog in picture 0",), ("a dog in picture 2",)], "in one line"
        assert {index: str(rejected) for index, rejected in read.rejected.items()} == {1: f"1: {REASON}"}
        assert np.isfinite(held_out_losses(tiny, in_batches(examples))["right"])


def test_questions_for_a_comparison(folder: Path) -> None:
    for index, answer in enumerate(["a dog", "a\0dog"]):
        path = folder / f"image_data/0/00{index}.json"
        record = json.loads(path.read_text())
        record["metadata"]["questions"] = [{"question": "What?", "answers": [answer], "kind": "what"}]
        path.write_text(json.dumps(record))
    questions, rejected = usable_questions(open_questions(folder))
    assert [question.key for question in questions] == ["0/000#0"]
    assert rejected == [
        r"question 0/001#0: the question, its kind or an answer has the control character (U+0000) at character 1: "
        r"'a\x00dog'"
    ]
