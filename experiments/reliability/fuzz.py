"""Gives broken files to every reader: each has to be read, or refused in one line (`InputError`).

    python -m experiments.reliability.fuzz --minutes 60                     # shared over all readers; `make fuzz`
    python -m experiments.reliability.fuzz --only images --inputs 2000 --seed 7
    python -m experiments.reliability.fuzz --again build/fuzz               # those that failed, once more

Another exception, a crash of the interpreter, more than 5 seconds of computing or more than 1 GiB for one input is a
fault: its input is kept in the folder `--found`, with the exception beside it (three of each kind at most). The status
is 1 if there is any. An input is made by `mutations.py` from those of `readers.py`; it depends on the seed, the
reader's name and the input's number alone.
"""

import argparse
import json
import logging
import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from experiments.reliability.mutations import mutate
from experiments.reliability.readers import READERS, Reader
from limber_interp.errors import InputError

SECONDS = 5.0  # of computing, per input
STUCK = 120.0  # seconds after which a process that says nothing is ended: compiled code takes no alarm
GIBIBYTES = 1.0
ADDRESSED = 8.0  # GiB that a process may ask for beyond its start, so that no input can fill the machine
LONGEST = 5000  # characters of a line
KEPT = 3  # inputs of one kind of fault
EVERY = 20.0  # seconds between lines of progress
WHERE = Path("limber_interp")


class TooLong(BaseException):
    """An input took too long. No `Exception`, so that no reader takes it for a broken file."""


@dataclass
class Tally:
    """What became of a reader's inputs. `faults` counts by kind: the exception, and where it was raised."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: "Fault | bool") -> None:
        self.inputs += 1
        if isinstance(verdict, Fault):
            self.faults[verdict.kind] += 1
        elif verdict:
            self.accepted += 1
        else:
            self.refused += 1

    def __str__(self) -> str:
        faults = sum(self.faults.values())
        return f"{self.inputs:8,} inputs {self.accepted:8,} accepted {self.refused:8,} refused {faults:6,} faults"


@dataclass(frozen=True)
class Fault:
    """An input that was neither read nor refused."""

    kind: str
    said: str


def examine(reader: Reader, path: Path) -> Fault | bool:
    """Whether a file is accepted; or the fault."""
    before = _peak()
    try:
        with _limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(path)
        verdict: Fault | bool = True
    except InputError as error:
        verdict = False
        if "\n" in str(error) or len(str(error)) > LONGEST:
            verdict = Fault("InputError of several lines, or an endless one", str(error))
    except (Exception, TooLong) as error:
        verdict = Fault(f"{type(error).__name__} at {_place(error)}", traceback.format_exc()[-6000:])
    if _peak() - before > GIBIBYTES:
        return Fault(f"took more than {GIBIBYTES:g} GiB", str(verdict))
    return verdict


def _peak() -> float:
    """Most memory that this process ever used, in GiB. What was asked for and never touched does not count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)


def _place(error: BaseException) -> str:
    """The innermost lines of ours and of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if WHERE.name in Path(frame.filename).parts] or frames
    return " < ".join(dict.fromkeys(f"{Path(f.filename).name}:{f.lineno}" for f in (frames[-1], ours[-1])))


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TooLong after so many seconds of computing: however busy the machine is."""

    def ring(*_: Any) -> None:
        raise TooLong(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def broken(name: str, seeds: dict[Path, bytes], seed: int, number: int) -> tuple[Path, bytes]:
    """Input so many of a reader: which of its files, and what stands in it."""
    random = Random(f"{seed} {name} {number}")
    path = random.choice(list(seeds))
    others = [other for other in seeds if other.suffix == path.suffix]
    content = seeds[path]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = mutate(content, seeds[random.choice(others)], random)
    return path, content


def sound(reader: Reader, folder: Path) -> dict[Path, bytes]:
    """The sound files of a reader, written and read once."""
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # formats that are deprecated are read all the same
        seeds = {path: path.read_bytes() for path in reader.write(folder)}
        for path in seeds:
            reader.read(path)
    return seeds


def work(
    name: str, seed: int, start: int, inputs: int, folder: Path, found: Path, say: Callable[[Any], object]
) -> Iterator[Fault | bool]:
    """What becomes of a reader's inputs from number `start` on; before each one is read, its file is said."""
    reader = READERS[name]
    seeds = sound(reader, folder)
    for number in range(start, inputs):
        path, content = broken(name, seeds, seed, number)
        path.write_bytes(content)
        say(path)
        verdict = examine(reader, path)
        if isinstance(verdict, Fault):
            keep(found, name, number, path, folder, verdict)
        path.write_bytes(seeds[path])
        yield verdict


def keep(found: Path, name: str, number: int, path: Path, folder: Path, fault: Fault) -> None:
    """Keep a failing input, unless there are enough of its kind."""
    of_reader = found / name.replace("/", "-")
    kinds = [json.loads(file.read_text())["kind"] for file in of_reader.glob("*/fault.json")]
    if kinds.count(fault.kind) >= KEPT:
        return
    place = of_reader / f"{number:07d}"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place / path.name)
    described = {"reader": name, "file": str(path.relative_to(folder)), "kind": fault.kind, "said": fault.said}
    (place / "fault.json").write_text(json.dumps(described, indent=1))


def fuzz(name: str, seed: int, inputs: int, seconds: float, found: Path, tell: Callable[[str], object]) -> Tally:
    """Examine inputs of one reader, in a process of its own, which is started again where an input ends it."""
    tally, deadline, told = Tally(), time.monotonic() + seconds, time.monotonic()
    while tally.inputs < inputs and time.monotonic() < deadline:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
            folder = Path(root) / "files"
            child, pipe = _started(name, seed, tally.inputs, inputs, folder, found)
            ended, read = None, None  # how the process did, and the file that it reads
            while ended is None and (time.monotonic() < deadline or read is not None):
                try:
                    message = pipe.recv() if pipe.poll(STUCK) else "took no alarm"
                except EOFError:
                    child.join()
                    ended = f"ended the interpreter with status {child.exitcode}"
                    break
                if message == "took no alarm":
                    ended = message
                elif isinstance(message, Path):
                    read = message
                else:
                    read = None
                    tally.add(message)
                if time.monotonic() - told > EVERY:
                    tell(f"{name:20s} {tally}")
                    told = time.monotonic()
            child.kill()
            child.join()
            if read is not None and ended is not None:
                fault = Fault(ended, "")
                keep(found, name, tally.inputs, read, folder, fault)
                tally.add(fault)
            elif ended is not None and tally.inputs < inputs:
                raise RuntimeError(f"{name}: beside its inputs: {ended}")
    return tally


def _started(name: str, *given: Any) -> tuple[Any, Any]:
    forking = multiprocessing.get_context("fork")
    here, there = forking.Pipe(duplex=False)
    child = forking.Process(target=_child, args=(there, name, *given), daemon=True)
    child.start()
    there.close()  # so that its end is seen
    return child, here


def _child(pipe: Any, *given: Any) -> None:
    torch.set_num_threads(1)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = own + int(ADDRESSED * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for verdict in work(*given, pipe.send):
        pipe.send(verdict)


def again(found: Path) -> int:
    """Read those once more that failed; how many fail again."""
    failed = 0
    for described in sorted(found.glob("*/*/fault.json")):
        fault = json.loads(described.read_text())
        name, file = fault["reader"], Path(fault["file"])
        with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
            folder = Path(root) / "files"
            sound(READERS[name], folder)
            shutil.copy(described.parent / file.name, folder / file)
            verdict = examine(READERS[name], folder / file)
        failed += isinstance(verdict, Fault)
        said = verdict.kind if isinstance(verdict, Fault) else "accepted" if verdict else "refused"
        print(f"{described.parent}: {said}")
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="in all, shared over the readers")
    parser.add_argument("--inputs", type=int, default=sys.maxsize, help="of each reader, at most")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the clock's unless given; it is printed")
    parser.add_argument("--only", nargs="+", default=sorted(READERS), metavar="READER", help=", ".join(READERS))
    parser.add_argument("--found", type=Path, default=Path("build/fuzz"), help="folder for the inputs that fail")
    parser.add_argument("--again", type=Path, metavar="FOUND", help="read the inputs in this folder once more instead")
    args = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # what readers say of broken files is not what is asked here
    transformers_logging.disable_progress_bar()
    if args.again is not None:
        return min(1, again(args.again))
    names = [name for name in READERS if any(name.startswith(asked) for asked in args.only)]
    if not names:
        parser.error(f"no reader of that name; there are {', '.join(READERS)}")
    print(f"seed {args.seed}, {len(names)} readers, faults go to {args.found}", flush=True)
    faults = 0
    for name in names:
        seconds = 60 * args.minutes / len(names)
        tally = fuzz(name, args.seed, args.inputs, seconds, args.found, lambda line: print(line, flush=True))
        print(f"{name:20s} {tally}  done", flush=True)
        for kind, times in tally.faults.most_common():
            print(f"    {times:6,} {kind}", flush=True)
        faults += sum(tally.faults.values())
    print(f"seed {args.seed}: {faults:,} faults", flush=True)
    return min(1, faults)


if __name__ == "__main__":
    sys.exit(main())
