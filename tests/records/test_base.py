import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limber_interp.errors import InputError
from limber_interp.records import Manifest, Record, check_writable, make_folder, write_atomically


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
