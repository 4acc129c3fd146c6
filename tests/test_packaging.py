"""The wheel: everything it needs travels in it, and it runs from anywhere."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import limber_interp

REPOSITORY = Path(__file__).parents[1]


def execute(*command: str | Path, cwd: Path) -> str:
    """Run a command that may not see the checkout, and return its standard output."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, since setuptools leaves its traces in the source."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("limber_interp", "configs", "limber_weights"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    # What a user fetched into the folder beside the embedded suite is not ours to distribute
    (source / "limber_weights" / "clip_linear").mkdir(exist_ok=True)
    (source / "limber_weights" / "clip_linear" / "proj.ckpt").touch()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    execute(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, which sees this one's libraries but not the checkout."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    execute(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(execute(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # A line of a .pth file adds a folder, and does not follow the .pth files in it: an editable install stays unseen
    outer = [path for path in sys.path if path.endswith("-packages")]
    (site / "outer.pth").write_text("\n".join(outer) + "\n")
    return python


def test_the_wheel_holds_what_the_repository_ships(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("limber_interp/")}
    code = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "limber_interp").rglob("*.py")}
    shipped = [*(REPOSITORY / "configs").glob("*.yml"), *(REPOSITORY / "limber_weights" / "emoji").rglob("*")]
    data = {f"limber_interp/{path.relative_to(REPOSITORY)}" for path in shipped if path.is_file()}
    assert len(data) > 12
    page = REPOSITORY / "limber_interp/plotting/page"
    pages = {str(path.relative_to(REPOSITORY)) for path in page.rglob("*") if path.is_file()}
    assert {Path(page).suffix for page in pages} == {".html", ".css", ".js"}
    assert held == code | data | pages | {"limber_interp/py.typed"}


def test_the_embedded_suite_is_under_60_megabytes():
    files = [path for path in (REPOSITORY / "limber_weights" / "emoji").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 60e6


def test_every_package_is_listed():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    listed = {name for name in setup["options"]["packages"].split() if name.startswith("limber_interp")}
    found = {
        str(path.parent.relative_to(REPOSITORY)).replace("/", ".") for path in REPOSITORY.glob("limber_interp/**/*.py")
    }
    assert listed == found | {"limber_interp.configs", "limber_interp.limber_weights"}


def test_the_installed_package_is_the_wheels(python: Path, tmp_path: Path):
    where = execute(python, "-c", "import limber_interp; print(limber_interp.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(python.parents[1])
    version = execute(
        python, "-c", "from importlib.metadata import version; print(version('limber_interp'))", cwd=tmp_path
    )
    assert version.strip() == limber_interp.__version__


def test_nearest_tokens_from_another_folder(python: Path, tmp_path: Path):
    command = (python, "-m", "limber_interp.nearest_tokens", "--json", "-", "--figure", "figure.png")
    found = json.loads(execute(*command, cwd=tmp_path))
    assert found["command"] == "nearest_tokens"
    assert found["manifest"]["config"]["name"] == "emoji_clip_linear"
    assert Path(found["images"][0]["image"]).is_relative_to(python.parents[1])
    assert os.listdir(tmp_path) == ["figure.png"]
