"""A run that skipped tests ends with how to get what they lack, and .ci/run does not begin without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.missing_packages import PACKAGES

REPOSITORY = Path(__file__).parents[1]
TESTS = """
import pytest

@pytest.mark.parametrize("reason", {reasons})
def test_one(reason):
    pytest.skip(reason)

def test_two():
    pass
"""


def last_lines(folder: Path, reasons: list[str]) -> str:
    """Of a run of pytest on tests that are skipped for these reasons."""
    (folder / "conftest.py").write_text("from tests.missing_packages import pytest_terminal_summary\n")
    (folder / "test_skipped.py").write_text(TESTS.format(reasons=reasons))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_ends_with_what_to_install(tmp_path: Path) -> None:
    """`make test` skipped 42 tests without a word on how to run them."""
    reasons = ["Noto Color Emoji is not installed", "tested in Chromium, which is not installed"]
    said = last_lines(tmp_path, [*reasons, reasons[0], "another torch"])
    line = "To run 3 of the skipped tests, on Debian and Ubuntu: apt-get install chromium fonts-noto-color-emoji"
    assert line in said.splitlines()


def test_a_run_that_lacks_no_package_does_not_speak_of_them(tmp_path: Path) -> None:
    assert "apt-get" not in last_lines(tmp_path, ["another torch"])


def test_the_reasons_are_those_of_the_tests() -> None:
    """Each name is in the reason of a skip somewhere: otherwise the hook would be silent about it."""
    sources = [path.read_text() for path in (REPOSITORY / "tests").rglob("*.py") if "missing_packages" not in path.name]
    for name in PACKAGES:
        assert any(f"{name} is not installed" in text or f"{name}, which is not" in text for text in sources), name


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_ci_fails_where_a_package_is_missing(tmp_path: Path) -> None:
    """Where it could not install them it went on, skipped the tests that need them, and passed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "id", "python3"):  # neither apt-get, nor make, nor chromium
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    (tools / "mktemp").write_text("#!/bin/sh\necho it went on >&2\nexit 9\n")
    (tools / "mktemp").chmod(0o755)
    done = subprocess.run(
        [tools / "bash", REPOSITORY / ".ci" / "run"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Missing here: ")
    assert {"chromium", "make"} <= set(done.stderr.partition("apt-get install ")[2].split())
    assert done.stderr.count("\n") == 1
