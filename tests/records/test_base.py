import io
import json
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float, Int

from limber_interp.errors import InputError
from limber_interp.records import (
    ImageTokens,
    Manifest,
    NearestTokens,
    Record,
    Target,
    base,
    check_writable,
    make_folder,
    write_atomically,
)


@dataclass(frozen=True)
class Reading(Record):
    tokens: tuple[tuple[str, ...], ...]
    scores: np.ndarray
    names: np.ndarray
    grid: tuple[int, int] | None
    controls: dict[str, Any]
    manifest: Manifest


@dataclass(frozen=True)
class OtherReading(Record):
    scores: np.ndarray


@dataclass(frozen=True)
class Shaped(Record):
    token_ids: Int[np.ndarray, "pos k"]
    scores: Float[np.ndarray, "pos k"]


@pytest.fixture
def reading() -> Reading:
    manifest = Manifest(
        config={"encoder_name": "beit", "image_seq_len": None},
        hashes={"lm": "ab", "projection": None},
        dtype="float32",
        device="cpu",
        seed=0,
        preprocessing={"mean": [0.5, 0.5, 0.5]},
        images={"a.png": "cd"},
        notes=("projection unverified",),
    )
    scores = np.array([[0.5, np.nan], [np.inf, -1.0]], dtype=np.float32)
    names = np.array([" dog", "</script>"])
    controls = {"noise": np.arange(3), "draws": 1.5, "none": None, "nested": [(1, 2), {"k": np.zeros(2)}]}
    return Reading(((" dog", "é\n"),), scores, names, (1, 2), controls, manifest)


def test_a_record_survives_the_disk(tmp_path, reading):
    path = tmp_path / "reading.npz"
    reading.save(path)
    for cls in (Reading, Record):
        again = cls.load(path)
        assert type(again) is Reading
        assert (again.tokens, again.grid, again.manifest) == (reading.tokens, reading.grid, reading.manifest)
        np.testing.assert_array_equal(again.scores, reading.scores)
        assert again.scores.dtype == np.float32
        np.testing.assert_array_equal(again.names, reading.names)
        np.testing.assert_array_equal(again.controls["noise"], [0, 1, 2])
        assert again.controls["nested"][0] == (1, 2)
        np.testing.assert_array_equal(again.controls["nested"][1]["k"], [0, 0])
    assert os.listdir(tmp_path) == ["reading.npz"]


def test_a_record_is_no_pickle(tmp_path, reading):
    reading.save(tmp_path / "reading.npz")
    with np.load(tmp_path / "reading.npz", allow_pickle=False) as file:
        assert all(not file[key].dtype.hasobject for key in file.files)
    with pytest.raises(TypeError, match="not of Python objects"):
        OtherReading(np.array([{}], dtype=object)).save(tmp_path / "objects.npz")


def test_json_is_strict_and_names_what_is_not_finite_null(reading):
    values = json.loads(reading.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert values["scores"] == [[0.5, None], [None, -1.0]]
    assert values["tokens"] == [[" dog", "é\n"]]
    assert values["controls"]["nested"] == [[1, 2], {"k": [0.0, 0.0]}]
    assert values["manifest"]["hashes"] == {"lm": "ab", "projection": None}


def test_json_of_a_file_name_that_is_not_utf8(tmp_path):
    """Such a name comes as lone surrogates, which no file in UTF-8 can hold."""
    name = os.fsdecode(b"caf\xe9.png")
    text = OtherReading(np.array([name])).to_json()
    (tmp_path / "out.json").write_text(text, encoding="utf-8")
    assert json.loads(text)["scores"] == [name]


def test_a_manifest_names_the_installed_versions(reading):
    from importlib.metadata import version

    import limber_interp

    versions = reading.manifest.versions
    assert versions["limber_interp"] == limber_interp.__version__
    assert versions["torch"] == version("torch")
    assert versions["transformer_lens"] == version("transformer-lens")


def test_loading_what_is_no_record(tmp_path, reading):
    with pytest.raises(InputError, match=r"none\.npz: not a record.*No such file"):
        Record.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(InputError, match=r"text\.npz: not a record"):
        Record.load(tmp_path / "text.npz")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(1))
    with pytest.raises(InputError, match=r"arrays\.npz: not a record"):
        Record.load(tmp_path / "arrays.npz")
    reading.save(tmp_path / "reading.npz")
    with pytest.raises(InputError, match="holds a Reading, expected a OtherReading"):
        OtherReading.load(tmp_path / "reading.npz")
    whole = (tmp_path / "reading.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"torn\.npz: not a record"):
        Record.load(tmp_path / "torn.npz")


def rewritten(path: Path, edit) -> Path:
    """The record with its JSON text edited."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["record"] = np.array(edit(str(arrays["record"])))
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("found", "instead", "said"),
    [
        ('" dog"', "3", r"Reading\.tokens\.0\.0: Input should be a valid string"),
        (
            '"grid": {"$tuple": [1, 2]}',
            '"grid": {"$tuple": [1, 2, 3]}',
            r"Reading\.grid\S*: Tuple should have at most 2",
        ),
        ('"scores": {"$array": "array_0"}', '"scores": 3', r"Reading\.scores: Input should be an instance of ndarray"),
        ('"$record": "Manifest"', '"$record": "Nobody"', "KeyError 'Nobody'"),
        ('"dtype"', '"type"', "TypeError"),
        ('"$array": "array_0"', '"$array": "array_9"', "KeyError 'array_9'"),
    ],
)
def test_a_record_with_a_field_that_is_none(tmp_path, reading, found, instead, said):
    """They were loaded, and broke whatever used them later."""
    reading.save(tmp_path / "reading.npz")

    def edit(text: str) -> str:
        assert text.count(found) == 1
        return text.replace(found, instead)

    with pytest.raises(InputError, match=rf"reading\.npz: not a record of limber_interp: .*{said}"):
        Record.load(rewritten(tmp_path / "reading.npz", edit))


def test_a_dimension_has_one_size_in_a_record(tmp_path):
    Shaped(np.zeros((3, 2), int), np.zeros((3, 2))).save(tmp_path / "whole.npz")
    assert Record.load(tmp_path / "whole.npz").scores.shape == (3, 2)
    for ids, scores in ((np.zeros((3, 2), int), np.zeros((3, 1))), (np.zeros((3, 2)), np.zeros((3, 2)))):
        Shaped(ids, scores).save(tmp_path / "shaped.npz")
        with pytest.raises(InputError, match=r"Shaped\.(token_ids|scores): Input should be an instance of (Int|Float)"):
            Record.load(tmp_path / "shaped.npz")


def test_a_token_without_a_text(tmp_path):
    image = ImageTokens("a.png", None, np.array([[0, 1]]), np.zeros((1, 2)), np.zeros(1))
    manifest = Manifest({}, {}, "float32", "cpu", 0, {})
    record = NearestTokens("cosine", "W_E", 2, (image,), {"0": " a", "1": " b"}, {}, manifest)
    record.save(tmp_path / "whole.npz")
    assert NearestTokens.load(tmp_path / "whole.npz").text(1) == " b"
    replace(record, tokens={"0": " a"}).save(tmp_path / "record.npz")
    with pytest.raises(InputError, match=r"record\.npz: not a record of limber_interp: a\.png: token 1 has no text"):
        Record.load(tmp_path / "record.npz")


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_an_array_that_says_it_is_larger_than_its_file(tmp_path):
    """numpy would ask for the memory first."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header((10**13,)) + bytes(80))
    with pytest.raises(InputError, match=r"x\.npz: .*a\.npy: shape \(10000000000000,\) of float64 is not what its 208"):
        Record.load(tmp_path / "x.npz")


def test_an_archive_that_was_made_to_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "BOMB_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((2**18,)) + bytes(2**21))
    with pytest.raises(InputError, match=r"x\.npz: .*: it would unpack to 0\.0 GiB, as no record does"):
        Record.load(tmp_path / "x.npz")


def test_a_text_of_what_is_no_character(tmp_path, reading):
    """numpy makes a str of any numbers, and whatever writes it later fails."""
    reading.save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays["array_1"] = np.frombuffer(np.array([0x110000] * 9, np.uint32).tobytes(), "<U9")
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=r"x\.npz: not a record of limber_interp: array_1: holds what is no text"):
        Record.load(tmp_path / "x.npz")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.txt"
    write_atomically(path, lambda temporary: temporary.write_text("old"))

    def torn(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, torn)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_the_temporary_name_keeps_the_ending_and_the_folder(tmp_path):
    seen = []
    write_atomically(tmp_path / "figure.svg", lambda temporary: (seen.append(temporary), temporary.touch()))
    assert seen[0].suffix == ".svg"
    assert seen[0].parent == tmp_path


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", lambda temporary: temporary.write_text("x"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x"


def test_check_writable(tmp_path):
    check_writable(tmp_path / "new.json")
    (tmp_path / "old.json").write_text("kept")
    check_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "kept"
    assert os.listdir(tmp_path) == ["old.json"]

    with pytest.raises(InputError, match=r"is a folder; name a file"):
        check_writable(tmp_path)
    with pytest.raises(InputError, match=r"cannot be written: No such file or directory"):
        check_writable(tmp_path / "missing" / "new.json")
    with pytest.raises(InputError, match=r"cannot be written: Not a directory"):
        check_writable(tmp_path / "old.json" / "new.json")
    with pytest.raises(InputError, match=r"cannot be written: File name too long"):
        check_writable(tmp_path / ("n" * 300 + ".json"))
    with pytest.raises(InputError, match=r"cannot write a \.bmp file; use \.png, \.pdf"):
        check_writable(tmp_path / "a.bmp", (".png", ".pdf"))


def test_a_device_is_never_replaced():
    """A rename over /dev/null, as root, would replace the device of the whole machine by a file."""
    with pytest.raises(InputError, match="is no regular file"):
        write_atomically("/dev/null", lambda temporary: temporary.write_text("x"))
    assert not Path("/dev/null").is_file()


def test_make_folder(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        with pytest.raises(InputError, match=rf"{path}: cannot be made: .*; name another folder"):
            make_folder(tmp_path / path)


def test_a_score_that_is_no_number_is_null_in_json_whatever_the_record(tmp_path: Path) -> None:
    """Records that write their JSON themselves raised a ValueError over it, when all else was done."""
    manifest = Manifest({}, {}, "float32", "cpu", 0, {})
    scores = np.array([[0.5, np.nan]])
    image = ImageTokens("a.png", None, np.array([[0, 1]]), scores, np.array([np.inf]))
    record = NearestTokens("cosine", "W_E", 2, (image,), {"0": " a", "1": " b"}, {}, manifest)
    record.save(tmp_path / "a.npz")
    (found,) = json.loads(Record.load(tmp_path / "a.npz").to_json())["images"]
    assert found["scores"] == [[0.5, None]]
    assert found["norms"] == [None]


def test_a_target_that_is_held_against_fewer_than_none(tmp_path: Path) -> None:
    """One in n + 1 is the smallest p-value, and -1 others divided by zero."""
    target = Target("dog", " dog", 3, np.array([1]), 0.5, -1, None, 0)
    target.save(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: not a record of .*target 'dog': held against -1 words and 0 images"):
        Record.load(tmp_path / "a.npz")
