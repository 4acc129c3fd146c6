"""Every reader of files on a few broken ones, always the same; `make fuzz` tries as many as an hour has room for."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from experiments.reliability import fuzz
from experiments.reliability.readers import READERS, Reader
from limber_interp.errors import InputError

SEED, INPUTS = 0, 12


@pytest.mark.parametrize("name", READERS)
def test_broken_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    verdicts = list(fuzz.work(name, SEED, 0, INPUTS, tmp_path / "files", tmp_path / "found", lambda path: None))
    faults = [verdict for verdict in verdicts if isinstance(verdict, fuzz.Fault)]
    assert not faults, "\n".join(f"{fault.kind}\n{fault.said}" for fault in faults)
    assert len(verdicts) == INPUTS


def test_an_input_depends_on_seed_reader_and_number_alone(tmp_path: Path) -> None:
    seeds = {tmp_path / f"{i}.json": f'{{"a": [{i}, 2, "b"]}}'.encode() for i in range(3)}
    made = [fuzz.broken("a", seeds, 0, number) for number in range(40)]
    assert made == [fuzz.broken("a", seeds, 0, number) for number in range(40)]
    assert made != [fuzz.broken("a", seeds, 1, number) for number in range(40)]
    assert made != [fuzz.broken("b", seeds, 0, number) for number in range(40)]
    assert sum(content == seeds[path] for path, content in made) < 10


def write(folder: Path) -> list[Path]:
    (folder / "a.txt").write_text("sound")
    return [folder / "a.txt"]


def reading(path: Path) -> None:
    """A reader with a mistake of each kind; which, the broken file's first byte says."""
    content = path.read_bytes()
    if content == b"sound":
        return
    match (content or b"\0")[0] % 4:
        case 0:
            raise InputError("refused")
        case 1:
            raise ValueError("escaped")
        case 2:
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does over a segmentation fault, but silently


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(READERS, "mistaken", Reader(write, reading))
    return "mistaken"


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_faults_are_counted_and_kept(tmp_path: Path, mistaken: str) -> None:
    """The check above would also pass if nothing ever were a fault. The interpreter's end is one, and ends no more."""
    found = tmp_path / "found"
    tally = fuzz.fuzz(mistaken, 0, 40, 600, found, lambda line: None)
    assert tally.inputs == 40 == tally.accepted + tally.refused + sum(tally.faults.values())
    assert tally.accepted
    assert tally.refused
    kinds = {kind.partition(" at ")[0] for kind in tally.faults}
    assert kinds == {"ValueError", "ended the interpreter with status -9"}
    kept = list(found.glob("mistaken/*/fault.json"))
    assert len(kept) == sum(min(times, fuzz.KEPT) for times in tally.faults.values())
    assert all((path.parent / "a.txt").read_bytes() != b"sound" for path in kept)


def test_an_endless_reading_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time that it computes, so that a busy machine makes none; not even a reader that catches all stops it."""

    def endless(path: Path) -> None:
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))

    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    verdict = fuzz.examine(Reader(write, endless), tmp_path)
    assert isinstance(verdict, fuzz.Fault)
    assert verdict.kind.startswith("TooLong")
