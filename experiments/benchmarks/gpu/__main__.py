"""Everything about one GPU in one run, in stages; each prints and saves its tables as soon as they are known.

    python -m experiments.benchmarks.gpu                              # one card of 80 GB, at most 12 minutes
    python -m experiments.benchmarks.gpu --stages right load          # some of the stages
    python -m experiments.benchmarks.gpu --tiny --device cpu          # all of it as a rehearsal, without a card

The cheapest and most telling stages come first. Nothing is downloaded: the embedded suite is in the package, and the
GPT-J of true shape has random weights that are drawn on the card (12 GB on the disk, under `build/benchmarks`). A stage
that fails is reported with its traceback, and the others go on; the exit status is then 1.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from experiments.benchmarks.gpu import fast
from experiments.benchmarks.gpu.right import right
from experiments.benchmarks.gpu.sizes import FULL, TINY, Sizes
from experiments.benchmarks.tables import Table, heading, machine
from limber_interp.records import write_atomically


def _right(device: str, sizes: Sizes) -> Iterator[Table]:
    yield right(device, sizes)


STAGES: dict[str, Callable[[str, Sizes], Iterable[Table]]] = {
    "rates": fast.rates,
    "right": _right,
    "load": fast.load,
    "forward": fast.one_forward,
    "lens": fast.lens,
    "memory": fast.memory_of_the_lens,
    "neighbours": fast.neighbours,
    "captions": fast.captions,
    "training": fast.training,
    "encoders": fast.encoders,
    "profile": fast.profiled,
}


@dataclass(frozen=True)
class Options:
    """Measure a GPU, or rehearse the measurement."""

    stages: tuple[str, ...] = tuple(STAGES)
    """Some of these, in this order."""
    device: str = "cuda"
    """Where to measure."""
    tiny: bool = False
    """Small sizes, to rehearse every stage in a minute."""
    out: Path = Path("build/gpu")
    """Folder for one JSON file per stage."""
    minutes: float = 12.0
    """No stage begins after so many minutes."""


def main(options: Options) -> int:
    """Run the stages, and give the exit status: 1 where one failed or a check did not hold."""
    if unknown := [name for name in options.stages if name not in STAGES]:
        sys.exit(f"unknown stage {unknown[0]!r}: choose from {', '.join(STAGES)}")
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here: --tiny --device cpu rehearses the run")
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = TINY if options.tiny else FULL
    print(heading(options.device), flush=True)
    began, failed = time.monotonic(), []
    for name in options.stages:
        if (minutes := (time.monotonic() - began) / 60) > options.minutes:
            print(f"{name}: left out, {minutes:.1f} of {options.minutes:g} minutes are over", flush=True)
            continue
        if not _stage(name, options, sizes):
            failed.append(name)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; results in {options.out}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _stage(name: str, options: Options, sizes: Sizes) -> bool:
    """Run one stage, print and save what it finds while it goes on; whether it ended well."""
    began, error = time.monotonic(), None
    tables: list[Table] = []
    try:
        for table in STAGES[name](options.device, sizes):
            tables.append(table)
            print(table.markdown(), flush=True)
            _save(name, options, tables, None, began)
    except Exception:  # the card is lent for minutes: what fails is looked at afterwards
        error = traceback.format_exc()
        print(f"{name}: failed\n{error}", flush=True)
    _save(name, options, tables, error, began)
    return error is None and not any("NO" in row for table in tables for row in table.rows)


def _save(name: str, options: Options, tables: list[Table], error: str | None, began: float) -> None:
    found = {
        "stage": name,
        "tiny": options.tiny,
        "machine": machine(options.device),
        "seconds": time.monotonic() - began,
        "error": error,
        "tables": [table.as_dict() for table in tables],
    }
    write_atomically(options.out / f"{name}.json", lambda path: path.write_text(json.dumps(found, indent=1)))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
