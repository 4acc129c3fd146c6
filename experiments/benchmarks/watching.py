"""What the benchmarks watch time and memory with."""

from pathlib import Path

import torch

GIB = 2**30


def memory() -> dict[str, float]:
    """Resident memory in GiB: all of it, the anonymous part, and the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return {name: kib[key] / 2**20 for name, key in (("all", "VmRSS"), ("anonymous", "RssAnon"), ("peak", "VmHWM"))}


def start_watching(device: str) -> float:
    """Begins to watch the peak, and gives what is held now, in GiB."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / GIB
    Path("/proc/self/clear_refs").write_text("5")
    return memory()["all"]


def peak(device: str) -> float:
    return torch.cuda.max_memory_allocated(device) / GIB if torch.device(device).type == "cuda" else memory()["peak"]


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
