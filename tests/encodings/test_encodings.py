import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from limber_interp.config import load_config
from limber_interp.datasets import open_dataset, read_folder
from limber_interp.encodings import encode, is_encodings, open_encodings
from limber_interp.errors import InputError
from limber_interp.models.encoders import Encoder, load_encoder
from limber_interp.models.limber import Limber


@pytest.fixture(scope="module")
def encoder(world) -> Encoder:
    return load_encoder(load_config(world.config("clip")))


@pytest.fixture
def broken(folder: Path) -> Path:
    """The nine images, of which one is broken, one is not there, and one has no caption."""
    (folder / "images/004.png").write_bytes(b"no image")
    (folder / "images/000.png").unlink()
    (folder / "image_data/1/008.json").write_text('{"captions": [""], "image_path": "images/008.png"}')
    return folder


def shards(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("0*"))}


def test_encodings_are_read_back_by_index(tiny: Limber, encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    examples = read_folder(folder)
    found = encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=4, batch_size=3)
    assert len(found) == 9
    assert sorted(shards(tmp_path / "e")) == sorted(f"0000{i}.{e}" for i in range(3) for e in ("jsonl", "safetensors"))
    direct = tiny.encode([example.image for example in examples]).numpy()
    rows = np.array([8, 0, 4, 3, 0])
    # float16 keeps 11 bits: a relative error of 2^-11, and an absolute one where numbers are tiny.
    np.testing.assert_allclose(found.encoding(rows).astype(np.float32), direct[rows], rtol=1e-3, atol=1e-3)
    assert [found.captions(i) for i in range(9)] == [example.captions for example in examples]
    assert found.kept.all()
    assert (found.n_positions, found.d_encoder) == direct.shape[1:]
    assert found.manifest["encoder"]["sha256"] == encoder.sha256
    assert found.keys == [example.key for example in examples]
    assert found.shape == direct.shape
    np.testing.assert_array_equal(found[2:100], found.encoding(np.arange(2, 9)))


def test_what_is_rejected_keeps_its_index_and_moves_nothing(
    encoder: Encoder, folder: Path, tmp_path: Path, request
) -> None:
    whole = encode(encoder, open_dataset(folder), tmp_path / "whole", shard_size=4)
    request.getfixturevalue("broken")
    found = encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=4, max_rejected=0.5)
    assert np.flatnonzero(~found.kept).tolist() == [0, 4, 8]
    kept = np.flatnonzero(found.kept)
    # The others of a batch may change the last bit of float32, and so of float16
    np.testing.assert_allclose(found.encoding(kept), whole.encoding(kept), rtol=2e-3, atol=1e-4)
    assert [found.captions(i) for i in kept] == [whole.captions(i) for i in kept]
    with pytest.raises(InputError, match="no encoding at index 4: 0/004: not an image that Pillow can open"):
        found.encoding(np.array([4]))
    assert found.shape[0] == 6
    np.testing.assert_array_equal(found[1:3], found.encoding(kept[1:3]))


def test_rejections_are_listed_the_same_on_every_run(encoder: Encoder, broken: Path, tmp_path: Path) -> None:
    written = []
    for name, size in (("a", 4), ("b", 100), ("a", 4)):
        encode(encoder, open_dataset(broken), tmp_path / name, shard_size=size, max_rejected=0.5)
        written.append((tmp_path / name / "rejected.jsonl").read_text())
    assert written[0] == written[1] == written[2]
    assert [json.loads(line) for line in written[0].splitlines()] == [
        {
            "source": str(broken),
            "index": 0,
            "key": "0/000",
            "reason": f"its image {broken}/images/000.png is not there",
        },
        {"source": str(broken), "index": 4, "key": "0/004", "reason": "not an image that Pillow can open"},
        {"source": str(broken), "index": 8, "key": "1/008", "reason": "a caption is empty or no text: ''"},
    ]


def test_too_many_rejections_stop_the_work(encoder: Encoder, broken: Path, tmp_path: Path) -> None:
    message = r"3 of 9 examples cannot be used, more than --max-rejected 30%; the first: 0/000: its image .*; all: "
    for _ in range(2):  # run again, it finds the same without encoding again
        with pytest.raises(InputError, match=message):
            encode(encoder, open_dataset(broken), tmp_path / "e", shard_size=9, max_rejected=0.3)
    assert len((tmp_path / "e/rejected.jsonl").read_text().splitlines()) == 3
    with pytest.raises(InputError, match="unfinished encodings; run limber_interp.encode again"):
        open_encodings(tmp_path / "e")
    before = shards(tmp_path / "e")
    assert len(encode(encoder, open_dataset(broken), tmp_path / "e", shard_size=9, max_rejected=0.34)) == 9
    assert shards(tmp_path / "e") == before, "a larger share takes what is there"


def test_it_goes_on_after_the_last_whole_shard(encoder: Encoder, broken: Path, tmp_path: Path) -> None:
    out, straight = tmp_path / "e", tmp_path / "straight"
    encode(encoder, open_dataset(broken), straight, shard_size=2, max_rejected=0.5)

    def cut(items, _):
        for shard in items:
            if shard == 3:
                raise KeyboardInterrupt
            yield shard

    with pytest.raises(KeyboardInterrupt):
        encode(encoder, open_dataset(broken), out, shard_size=2, max_rejected=0.5, progress=cut)
    with pytest.raises(InputError, match="unfinished encodings"):
        open_encodings(out)
    before = shards(out)
    assert len(before) == 6
    found = encode(encoder, open_dataset(broken), out, shard_size=2, max_rejected=0.5)
    assert before.items() <= shards(out).items(), "no whole shard was written again"
    for path in straight.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(found) == 9


def test_other_data_or_another_shape_does_not_go_on_there(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=4)
    with pytest.raises(InputError, match="holds encodings of another shard_size: found 4, expected 5; name another"):
        encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=5)
    (folder / "image_data/0/001.json").write_text('{"captions": ["Another."]}')
    with pytest.raises(InputError, match="holds encodings of another source: found "):
        encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=4)


def test_another_encoders_shards_are_refused(world, encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    encode(encoder, open_dataset(folder), tmp_path / "e")
    other = load_encoder(load_config(world.config("beit")))
    message = rf"encodings of emoji_clip \(sha256 {encoder.sha256[:12]}\), but the encoder is emoji_beit \(sha256 "
    with pytest.raises(InputError, match=message + other.sha256[:12]):
        open_encodings(tmp_path / "e", other)


def test_another_preprocessing_is_refused(world, encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    """The weights, and so their hash, are the same: the old encodings would have been taken for the new ones."""
    encode(encoder, open_dataset(folder), tmp_path / "e")
    changed = Path(shutil.copytree(world.encoder("clip"), tmp_path / "clip"))
    described = json.loads((changed / "open_clip_config.json").read_text())
    described["preprocess_cfg"]["mean"] = [0.0, 0.0, 0.0]
    (changed / "open_clip_config.json").write_text(json.dumps(described))
    other = load_encoder(load_config(world.config("clip"), encoder_weights=str(changed)))
    assert other.sha256 == encoder.sha256
    with pytest.raises(InputError, match=r"images were preprocessed as .*, but emoji_clip takes .*\[0.0, 0.0, 0.0\]"):
        open_encodings(tmp_path / "e", other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("00001.safetensors", b"half", "00001.safetensors: cannot be read: .*; remove the two files of this number"),
        ("00000.jsonl", b"{", "00000.jsonl: cannot be read: Expecting property name .*; remove the two files of this"),
        ("00000.jsonl", b'{"key": "a", "captions": ["A"]}\n', "found 1 lines and encodings .*, expected 5 and "),
        (
            "manifest.json",
            b"{}",
            "manifest.json: not of encodings: no encoder with its preprocessing; encode the data again",
        ),
    ],
)
def test_shards_that_were_damaged(
    encoder: Encoder, folder: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=5)
    (tmp_path / "e" / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_encodings(tmp_path / "e")


def _enlarge(batch: torch.Tensor, row: int) -> None:
    batch[row] *= 1e9


def test_an_encoding_beyond_float16_is_refused(world, folder: Path, tmp_path: Path) -> None:
    """It became infinity, and the loss NaN some thousand steps later."""
    encoder = load_encoder(load_config(world.config("clip")))
    encoder.tower.layer4.register_forward_hook(lambda layer, args, out: _enlarge(out, 2))
    with pytest.raises(InputError, match=r"0/002: its encoding is not finite in float16"):
        encode(encoder, open_dataset(folder), tmp_path / "e", batch_size=4)
    assert shards(tmp_path / "e") == {}


def test_no_room_for_the_encodings(encoder: Encoder, folder: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with caplog.at_level("INFO"), pytest.raises(InputError, match=r"e: encodings take 0\.000 GiB, 0\.000 GiB are free"):
        encode(encoder, open_dataset(folder), tmp_path / "e")
    assert "9 images x 4 positions x 256 x 2 bytes = 0.000 GiB; free: 0.0 GiB" in caplog.text
    assert list((tmp_path / "e").iterdir()) == []


def test_captions_that_cannot_be_used_are_rejected_though_they_were_stored(
    encoder: Encoder, folder: Path, tmp_path: Path
) -> None:
    """Encodings of before that rule gave a lone surrogate to the tokenizer, in the middle of training."""
    out = tmp_path / "e"
    whole = encode(encoder, open_dataset(folder), out, shard_size=5)
    lines = [json.loads(line) for line in (out / "00000.jsonl").read_text().splitlines()]
    lines[1]["captions"] = ["a dog", "a \ud83d"]
    lines[2]["captions"] = [" a bus\n"]
    (out / "00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = open_encodings(out)
    assert found.captions(1) == ()
    assert found.captions(2) == ("a bus",)
    kept = np.array([0, 2, 3, 4, 5, 6, 7, 8])
    assert np.flatnonzero(found.kept).tolist() == kept.tolist()
    np.testing.assert_array_equal(found[:], whole.encoding(kept))
    reason = r"a caption has half of a surrogate pair (U+D83D) at character 2: 'a \ud83d'"
    assert found.rejections(tmp_path / "r.jsonl").rows() == [(1, "0/001", reason)]
    again = encode(encoder, open_dataset(folder), out, shard_size=5, max_rejected=0.2)
    assert np.flatnonzero(~again.kept).tolist() == [1]
    [listed] = map(json.loads, (out / "rejected.jsonl").read_text().splitlines())
    assert (listed["index"], listed["reason"]) == (1, reason)


@pytest.mark.parametrize(
    "line", ["5", "[]", "{}", '{"key": 5, "captions": ["a"]}', '{"key": "a", "captions": "a"}',
             '{"key": "a", "captions": []}', '{"key": "a", "captions": [5]}', '{"key": "a", "rejected": 5}']
)  # fmt: skip
def test_lines_that_are_of_no_example(encoder: Encoder, folder: Path, tmp_path: Path, line: str) -> None:
    """Some raised a TypeError, and a bare string was read as one caption per letter."""
    encode(encoder, open_dataset(folder), tmp_path / "e")
    lines = (tmp_path / "e/00000.jsonl").read_text().splitlines()
    (tmp_path / "e/00000.jsonl").write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
    message = "line 3 of 00000.jsonl is none of an example: .*; remove the two files of this number"
    with pytest.raises(InputError, match=message):
        open_encodings(tmp_path / "e")
    with pytest.raises(InputError, match=message):
        encode(encoder, open_dataset(folder), tmp_path / "e")


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "x" * 5000])
def test_paths_that_are_of_no_encodings(tmp_path: Path, name: str) -> None:
    """The last raised an OSError."""
    assert not is_encodings(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [4, "256"], r"manifest.json: not of encodings: shape \[4, '256'\]"),
        ("shape", [4, -256], r"manifest.json: not of encodings: shape \[4, -256\]"),
        ("shard_size", 0, "manifest.json: not of encodings: shard_size 0"),
        (
            "source",
            {"name": "data", "count": 2.5},
            "manifest.json: not of encodings: no source with a name and a count",
        ),
        ("source", {"name": "data", "count": 2**47}, "00001.safetensors: found 4 lines .*, expected 5"),
        ("encoder", "x", "manifest.json: not of encodings: no encoder with its preprocessing"),
        ("kept", 3, "9 encodings, but the manifest says 3"),
    ],
)
def test_a_manifest_of_other_things(encoder: Encoder, folder: Path, tmp_path: Path, key, value, message: str) -> None:
    """A count of billions was looped over, and other values were raised over somewhere later."""
    encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=5)
    manifest = json.loads((tmp_path / "e/manifest.json").read_text())
    (tmp_path / "e/manifest.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(InputError, match=message):
        open_encodings(tmp_path / "e")


def test_encodings_in_another_precision(encoder: Encoder, folder: Path, tmp_path: Path) -> None:
    encode(encoder, open_dataset(folder), tmp_path / "e", shard_size=5)
    stored = load_file(tmp_path / "e/00001.safetensors")
    save_file({"encodings": stored["encodings"].to(torch.int16)}, tmp_path / "e/00001.safetensors")
    with pytest.raises(
        InputError, match=r"00001.safetensors: found 4 lines and encodings \[4, 4, 256\] in I16, expected"
    ):
        open_encodings(tmp_path / "e")
