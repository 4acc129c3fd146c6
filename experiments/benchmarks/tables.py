"""What a benchmark gives: a table that reads on a terminal and pastes into a README, and the machine it is of."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info


@dataclass(frozen=True)
class Table:
    """One result of a benchmark.

    Attributes:
        title: what was measured, with its sizes.
        columns: headings, units included.
        rows: one per method, in the columns' order; numbers are rounded only where they are shown.
        notes: what has to be said beside the numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table in Markdown: text to the left, numbers to the right."""
        first = self.rows[0] if self.rows else ("",) * len(self.columns)
        marks = ("---" if isinstance(cell, str) else "---:" for cell in first)
        lines = [self.columns, tuple(marks), *(tuple(map(_shown, row)) for row in self.rows)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([self.title, table, *self.notes]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"title": self.title, "columns": self.columns, "rows": self.rows, "notes": self.notes}


def _shown(cell: str | float | int) -> str:
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 1 else f"{cell:,.2f}" if abs(cell) < 100 else f"{cell:,.0f}"
    return str(cell)


def machine(device: str = "cpu", threads: int | None = None) -> dict[str, str]:
    """What the numbers are of: processor, caches, BLAS, load, versions, and the card where there is one.

    A ratio can hold on one processor alone, so that no table means anything without these lines.
    """
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores" + (f", {threads} threads" if threads else ""),
        "caches": ", ".join(_caches()) or "unknown",
        "blas": ", ".join(_libraries()) or "unknown",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()) + " (1, 5 and 15 minutes)",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
    }
    if torch.device(device).type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found["card"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return found


def heading(device: str = "cpu", threads: int | None = None) -> str:
    """`machine` as lines to print above a table."""
    return "\n".join(f"{key}: {value}" for key, value in machine(device, threads).items()) + "\n"


def _processor() -> str:
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # no Linux
        lines = ()
    found = dict(tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
    family = f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else ""
    return found.get("model name", platform.processor() or "unknown processor") + family


def _caches() -> list[str]:
    caches = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            caches.append(f"L{(index / 'level').read_text().strip()} {(index / 'size').read_text().strip()}")
    return caches


def _libraries() -> list[str]:
    """torch's own product, and what else multiplies in this process."""
    mkl = ["torch: MKL"] if torch.backends.mkl.is_available() else ["torch: no MKL"]
    others = {f"{info['internal_api']} {info['version']}" for info in threadpool_info() if info["user_api"] == "blas"}
    return mkl + sorted(others)
