import json
import shutil
from collections import namedtuple
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limber_interp.errors import InputError
from limber_interp.models.limber import Limber, load
from limber_interp.training.data import IGNORED, caption_tokens, encodings, order, read_folder, share


def test_reads_limbers_folder_format_with_and_without_image_path(folder: Path) -> None:
    examples = read_folder(folder)
    assert [example.image.name for example in examples[:3]] == ["000.png", "001.jpg", "002.png"]
    assert len(examples) == 9
    assert examples[4].captions == ("A picture of a small apple above a large boat.",)
    assert examples[4].metadata == {"colour": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a record"),
        ("[]", "not a record"),
        (json.dumps({"captions": "a dog"}), "not a record"),
        (json.dumps({"captions": []}), "no caption; mend the file"),
        (json.dumps({"captions": ["a", "  "]}), "a caption is empty or no text: ' '"),
        (json.dumps({"captions": ["a"], "image_path": "images/gone.png"}), r"gone\.png is not there"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "image_data/0/003.json").write_text(content)
    with pytest.raises(InputError, match=rf"003\.json: .*{message}"):
        read_folder(folder)


def test_a_folder_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="LIMBER's format"):
        read_folder(tmp_path)


def test_encodings_are_the_encoders_and_are_computed_once(tiny: Limber, folder: Path, tmp_path: Path) -> None:
    examples = read_folder(folder)
    first = encodings(tiny, examples, tmp_path / "kept", batch_size=4)
    direct = tiny.encode([example.image for example in examples])
    # float16 keeps 11 bits: a relative error of 2^-11, and an absolute one where numbers are tiny.
    np.testing.assert_allclose(first.astype(np.float32), direct.numpy(), rtol=1e-3, atol=1e-3)
    batches: list[int] = []
    again = encodings(tiny, examples, tmp_path / "kept", progress=lambda items: [batches.append(i) or i for i in items])
    assert batches == []
    np.testing.assert_array_equal(first, again)
    assert len(encodings(tiny, examples[:5], tmp_path / "kept")) == 5, "another set of images has its own file"


def test_an_unreadable_image_stops_the_work_and_leaves_nothing(tiny: Limber, folder: Path, tmp_path: Path) -> None:
    (folder / "images/004.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"004\.png"):
        encodings(tiny, read_folder(folder), tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_encodings_of_another_preprocessing_have_their_own_file(world, tiny: Limber, folder: Path, tmp_path) -> None:
    """The weights, and so their hash, are the same: the old encodings would have been taken for the new ones."""
    changed = Path(shutil.copytree(world.encoder("clip"), tmp_path / "clip"))
    described = json.loads((changed / "open_clip_config.json").read_text())
    described["preprocess_cfg"]["mean"] = [0.0, 0.0, 0.0]
    (changed / "open_clip_config.json").write_text(json.dumps(described))
    other = load(world.config("clip"), encoder_weights=changed)
    assert other.encoder.sha256 == tiny.encoder.sha256
    examples = read_folder(folder)
    assert not np.array_equal(*(encodings(model, examples, tmp_path / "kept") for model in (tiny, other)))


def _enlarge(batch: torch.Tensor, row: int) -> None:
    batch[row] *= 1e9


def test_an_encoding_beyond_float16_is_refused(world, folder: Path, tmp_path: Path) -> None:
    """It became infinity, and the loss NaN some thousand steps later."""
    model = load(world.config("clip"))
    model.encoder.tower.layer4.register_forward_hook(lambda layer, args, out: _enlarge(out, 2))
    with pytest.raises(InputError, match=r"002\.png: its encoding is not finite in float16"):
        encodings(model, read_folder(folder), tmp_path / "kept", batch_size=4)
    assert list((tmp_path / "kept").iterdir()) == []


def test_no_room_for_the_encodings(tiny: Limber, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with pytest.raises(InputError, match=r"kept: encodings take 0\.0 GiB, 0\.0 are free"):
        encodings(tiny, read_folder(folder), tmp_path / "kept")


@given(count=st.integers(1, 20), batch_size=st.integers(1, 20), seed=st.integers(0, 5))
def test_every_epoch_sees_everything_once(count: int, batch_size: int, seed: int) -> None:
    epochs = 3
    batches = list(islice(order(count, batch_size, seed), -(-count * epochs // batch_size)))
    assert all(len(batch) == batch_size for batch in batches)
    seen = np.concatenate(batches)[: count * epochs].reshape(epochs, count)
    assert (np.sort(seen, axis=1) == np.arange(count)).all()
    again = list(islice(order(count, batch_size, seed), len(batches)))
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate(again))


@given(count=st.integers(0, 40), world_size=st.integers(1, 9))
def test_the_shares_of_the_ranks_are_disjoint_and_cover_the_batch(count: int, world_size: int) -> None:
    batch = np.random.default_rng(count).permutation(count)
    shares = [share(batch, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 1


def test_labels_are_the_caption_and_one_end_of_text(tiny: Limber) -> None:
    ids, labels = caption_tokens(tiny.vocabulary, ["A dog.", "A picture of a dog."], limit=100)
    short = len(tiny.vocabulary.encode("A dog."))
    assert tiny.vocabulary.text(ids[0, :short].tolist()) == "A dog."
    assert labels[0, short] == tiny.vocabulary.eos
    assert (labels[0, short + 1 :] == IGNORED).all()
    assert (labels[0, short + 1 :]).numel() > 0
    assert torch.equal(ids[1], labels[1])
    assert labels[1, -1] == tiny.vocabulary.eos


def test_a_caption_of_one_token_has_two_labels(tiny: Limber) -> None:
    _, labels = caption_tokens(tiny.vocabulary, [" dog"], limit=100)
    assert labels.tolist() == [[tiny.vocabulary.id_of("dog"), tiny.vocabulary.eos]]


def test_a_caption_beyond_the_context_is_cut_and_has_no_end(tiny: Limber) -> None:
    _, labels = caption_tokens(tiny.vocabulary, ["A picture of a dog on the grass."], limit=4)
    assert labels.shape == (1, 4)
    assert tiny.vocabulary.eos not in labels
