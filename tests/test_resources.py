from pathlib import Path

import pytest

from limber_interp import resources
from limber_interp.errors import InputError, nearest
from limber_interp.probes.others import bundled_scenes


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package folder beside which, or in which, the shipped files can be put."""
    package = tmp_path / "somewhere" / "limber_interp"
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    monkeypatch.chdir(tmp_path)  # away from the checkout, whose own limber_weights/ would come first
    return package


@pytest.mark.parametrize("installed", [True, False])
def test_a_checkout_and_a_wheel(package, installed: bool):
    root = package if installed else package.parent
    (root / "configs").mkdir()
    scenes = root / "limber_weights" / "emoji" / "scenes" / "images"
    scenes.mkdir(parents=True)
    (scenes / "b.png").touch()
    (scenes / "a.png").touch()
    (scenes / "._a.png").touch()  # macOS puts these beside files that it copies, and they sort first
    assert resources.configs_dir() == root / "configs"
    assert resources.weights_dir() == root / "limber_weights"
    assert resources.example_image() == scenes / "a.png"
    assert bundled_scenes() == [scenes / "a.png", scenes / "b.png"]
    assert resources.resolve("limber_weights/emoji/scenes") == scenes.parent
    assert resources.resolve("limber_weights/not/there") == root / "limber_weights" / "not" / "there"


def test_the_working_directory_comes_first(package, tmp_path):
    for root in (package.parent, tmp_path):
        (root / "limber_weights").mkdir()
        (root / "limber_weights" / "a").touch()
    assert resources.resolve("limber_weights/a").absolute() == tmp_path / "limber_weights" / "a"
    assert resources.resolve(tmp_path / "x") == tmp_path / "x"
    assert resources.resolve("EleutherAI/gpt-j-6B") == Path("EleutherAI/gpt-j-6B")
    assert resources.resolve("~/x") == Path.home() / "x"


def test_no_bundled_scene(package):
    with pytest.raises(InputError, match=r"no bundled scene in .*: name an image, or make .* `make suite`"):
        resources.example_image()


def test_nearest_names():
    assert nearest("clip_liner", ["clip_linear", "beit_linear"]).startswith("clip_linear")
    assert nearest("zzz", ["b", "a"]) == "a, b"


def test_an_input_error_is_one_line():
    assert str(InputError("a:\n  b\n\n c")) == "a: b c"
