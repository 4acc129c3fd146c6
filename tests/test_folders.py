from pathlib import Path

import pytest
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.folders import in_folders


def test_a_folder_stands_for_its_images(tmp_path):
    """In the order of their names; what is hidden, no image by its ending, or in a folder inside, is passed over."""
    (tmp_path / "inside").mkdir()
    for name in ("b.png", "a.JPG", "._a.JPG", "inside/c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("a dog")
    picture = Image.new("RGB", (3, 3))
    found = list(in_folders(["x.png", str(tmp_path), picture, tmp_path / "inside"]))
    assert found == ["x.png", tmp_path / "a.JPG", tmp_path / "b.png", picture, tmp_path / "inside/c.png"]


def test_no_name_is_no_folder(tmp_path, monkeypatch):
    """`Path("")` is the working directory."""
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert list(in_folders([""])) == [""]
    assert list(in_folders(["."])) == [Path("a.png")]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}: no image right in this folder; name one with images"):
        list(in_folders([tmp_path]))
