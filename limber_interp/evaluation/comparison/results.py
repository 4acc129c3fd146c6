"""What entries said of images, as JSON lines on disk: appended as it is said, gone on with after an interruption.

    {"comparison": 1, "data": …, "prompt": …, "entries": {name: its hashes}, …}         the run's settings
    {"entry": "emoji_clip_linear", "task": "caption", "index": 0, "key": "0/000000", "text": "a big cat …"}

Several processes write a part each, `results.part-1.jsonl`, …; `gather` puts them into the one file. Once whole, the
file is the same whatever processes wrote it and however often they were interrupted.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limber_interp.errors import InputError, reading
from limber_interp.records import make_folder, write_atomically

FILE = "results.jsonl"
FORMAT = 1


@dataclass(frozen=True)
class Said:
    """What an entry said in one task at one index of the images, or of the questions."""

    entry: str
    task: str
    index: int
    key: str
    text: str

    @property
    def place(self) -> tuple[str, str, int]:
        return self.entry, self.task, self.index

    @property
    def is_plain(self) -> bool:
        """Whether every field holds what it is declared with; a file may say anything."""
        return all(isinstance(part, str) for part in (self.entry, self.task, self.key, self.text)) and (
            type(self.index) is int
        )


class Results:
    """The results of one run in a folder.

    Raises:
        InputError: the folder holds the results of another run (the difference is named), or cannot be written.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], rank: int = 0) -> None:
        """Open what is there. The first process comes first: it puts together what an interruption has left in parts.

        Args:
            settings: plain values, whatever changes a line; under `entries` the entries by name. None for what was not
                asked: it may have been by an earlier run, or be by a later one.
        """
        self.folder = make_folder(folder)
        self.path = self.folder / FILE
        self._part = self.folder / f"results.part-{rank}.jsonl"
        self._settings = {"comparison": FORMAT, **json.loads(json.dumps(settings))}
        self._said: dict[tuple[str, str, int], Said] = {}
        if self.path.exists():
            self._read(self.path)
        if rank == 0:
            self.gather()

    def missing(self, entry: str, task: str, indices: Iterable[int]) -> bool:
        """Whether anything is still to be said of these."""
        return any((entry, task, index) not in self._said for index in indices)

    def append(self, lines: Iterable[Said]) -> None:
        """Write down what was not yet, and have it on disk."""
        new = [said for said in lines if said.place not in self._said]
        self._said.update({said.place: said for said in new})
        try:
            begun = self._part.exists()
            with self._part.open("a", encoding="utf-8") as file:
                if not begun:
                    file.write(json.dumps(self._settings) + "\n")
                file.writelines(json.dumps(asdict(said)) + "\n" for said in new)
        except OSError as error:
            raise InputError(f"{self._part}: cannot be written: {error.strerror}; name another folder") from error

    def gather(self) -> None:
        """Put what all processes wrote into the one file, in order of entry, task and index."""
        parts = sorted(self.folder.glob("results.part-*.jsonl"))
        for path in parts:
            self._read(path)
        order = {name: place for place, name in enumerate(self._settings["entries"])}
        lines = sorted(self._said.values(), key=lambda said: (order[said.entry], said.task, said.index))
        text = "".join(json.dumps(row) + "\n" for row in (self._settings, *(asdict(said) for said in lines)))
        write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8"))
        for path in parts:
            path.unlink()

    def texts(self, entry: str, task: str, indices: Iterable[int]) -> list[str]:
        """What an entry said, in the order of `indices`."""
        return [self._said[entry, task, index].text for index in indices]

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # an interruption may have torn the last line
        with reading(path, "not results of a comparison", "name another folder"):
            rows = [json.loads(line) for line in whole.splitlines()]
            said = [Said(**row) for row in rows[1:]]
            if not all(one.is_plain for one in said):
                raise TypeError("a line does not say which entry said what")
        if rows:
            self._check(path, rows[0])
        if strangers := {one.entry for one in said} - set(self._settings["entries"]):
            raise InputError(f"{path}: results of {min(strangers)!r}, which is no entry of it; name another folder")
        self._said.update({one.place: one for one in said})

    def _check(self, path: Path, found: Any) -> None:
        found = found if isinstance(found, dict) else {}
        for key in found.keys() & self._settings.keys():  # what one of the two runs did not ask, the other may
            if self._settings[key] is None:
                self._settings[key] = found[key]
            elif found[key] is None:
                found[key] = self._settings[key]
        was, now = _flat(found), _flat(self._settings)
        for key in (*now, *was):
            if was.get(key) != now.get(key):
                difference = f"{key} was {json.dumps(was.get(key))}, now {json.dumps(now.get(key))}"
                raise InputError(f"{path}: results of another run: {difference}; name another folder")


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat
