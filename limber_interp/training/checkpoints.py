"""Checkpoints of a training run: each whole or not there, and the newest found by looking, not by a pointer to it."""

import contextlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import distributed

from limber_interp.errors import InputError, reading
from limber_interp.records import make_folder, sync

NAME = re.compile(r"step-(\d{8})")
CONTENTS = "contents.json"  # written last: the state, and the size of every other file


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk: what the run was after `step` steps."""

    path: Path
    step: int
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in a folder of their own.

    Each holds DeepSpeed's (the trained layer, its optimizer and scheduler, a part per rank), the random states of every
    rank, and the run's `state`. It is written under another name, synced and renamed once all ranks are done, so that
    a process killed at any moment leaves the earlier ones as they were.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, engine: Any, step: int, state: dict[str, Any]) -> None:
        """Write the run as it is after `step` steps, and remove all but the newest `keep`. Every rank calls this.

        Raises:
            InputError: no room, or the folder takes no files; what was half written is removed.
        """
        rank = distributed.get_rank()
        temporary = self.folder / f".step-{step:08d}.tmp"
        if rank == 0:
            make_folder(self.folder)
            for left in self.folder.glob(".step-*.tmp"):  # of a run that was killed while it wrote
                shutil.rmtree(left)
        distributed.barrier()
        try:
            engine.save_checkpoint(str(temporary), tag="engine", save_latest=False, exclude_frozen_parameters=True)
            save_file(_random_states(engine.device), temporary / f"rank-{rank}.safetensors")
            distributed.barrier()
            if rank == 0:
                _complete(temporary, {"step": step, "ranks": distributed.get_world_size(), "state": state})
                final = self.folder / f"step-{step:08d}"
                shutil.rmtree(final, ignore_errors=True)  # torn, or it would have been gone on from
                temporary.replace(final)
                sync(self.folder)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            free = shutil.disk_usage(self.folder).free  # what torch says of a full disk does not say so
            shutil.rmtree(temporary, ignore_errors=True)
            found = self.newest()
            kept = f"--resume goes on after step {found.step}" if found else "there is no earlier one"
            raise InputError(
                f"{self.folder}: no checkpoint of step {step} could be written ({free / 2**20:.1f} MiB free): {error}; "
                f"{kept}"
            ) from error
        if rank == 0:
            for checkpoint in self.whole()[: -self.keep]:
                shutil.rmtree(checkpoint.path)
        distributed.barrier()

    def whole(self) -> list[Checkpoint]:
        """Those that are complete, oldest first. A folder that lacks a file, or has a shorter one, is none."""
        found = []
        for path in sorted(self.folder.glob("step-*")):
            with contextlib.suppress(InputError), reading(path / CONTENTS, "not the contents of a checkpoint"):
                found.append(_whole(path))
        return found

    def newest(self) -> Checkpoint | None:
        """The last whole one."""
        return found[-1] if (found := self.whole()) else None

    def load(self, engine: Any, checkpoint: Checkpoint) -> None:
        """Bring engine and random states to where they were. Every rank calls this.

        Raises:
            InputError: it was written by another number of ranks, whose parts would not fit; or it holds pickles of
                other things than a checkpoint's.
        """
        if (ranks := checkpoint.state["ranks"]) != (here := distributed.get_world_size()):
            raise InputError(f"{checkpoint.path}: was written by {ranks} processes, here are {here}; start as many")
        try:
            with _no_code_from_pickles():
                engine.load_checkpoint(str(checkpoint.path), tag="engine")
        except pickle.UnpicklingError as error:
            reason = str(error).partition(".")[0]  # torch goes on to say how it could be run all the same
            line = f"{checkpoint.path}: not a checkpoint of DeepSpeed's, and nothing in it was run ({reason})"
            raise InputError(f"{line}; move it away, and --resume goes on from the one before") from error
        random = checkpoint.path / f"rank-{distributed.get_rank()}.safetensors"
        with reading(random, "not the random states of a rank", "move the checkpoint away"):
            states = load_file(random)
            torch.set_rng_state(states["cpu"])
            if "cuda" in states:
                torch.cuda.set_rng_state(states["cuda"], engine.device)


def _whole(path: Path) -> Checkpoint:
    """The checkpoint in a folder.

    Raises:
        Exception: nearly any, if a file is missing or has another size, or the contents say other things than `save`.
    """
    contents = json.loads((path / CONTENTS).read_text(encoding="utf-8"))
    step, ranks, state, files = (contents[key] for key in ("step", "ranks", "state", "files"))
    named = NAME.fullmatch(path.name)
    if named is None or step != int(named[1]) or type(ranks) is not int or ranks < 1 or not isinstance(state, dict):
        raise ValueError(f"{path}: not the contents of this checkpoint")
    if {name: (path / name).stat().st_size for name in files} != files:
        raise ValueError(f"{path}: a file of it is not whole")
    return Checkpoint(path, int(step), {**state, "ranks": ranks})


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _complete(folder: Path, contents: dict[str, Any]) -> None:
    """Sync every file, and write last what they are: with that the folder is whole."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        sync(path)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    (folder / CONTENTS).write_text(json.dumps({**contents, "files": sizes}), encoding="utf-8")
    for path in (folder / CONTENTS, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync(path)


@contextlib.contextmanager
def _no_code_from_pickles() -> Iterator[None]:
    """DeepSpeed unpickles whatever a checkpoint holds; this lets through tensors, plain values and its own three."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def member(kind: Any, name: str) -> Any:
        """In place of `getattr`, a call of which is how Python 3.11.0 to 3.11.3 pickle a member of an enum."""
        if kind is not ZeroStageEnum:
            raise pickle.UnpicklingError(f"getattr of {kind}, where a checkpoint needs members of ZeroStageEnum alone")
        return ZeroStageEnum[name]

    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        allowed = [LossScaler, ZeroStageEnum, fragment_address, (member, "builtins.getattr")]
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
