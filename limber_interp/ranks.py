"""The processes that share a piece of work: one, or as many as a launcher (`torchrun`, `accelerate`) has started."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from limber_interp.errors import InputError

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait as long as the slowest takes for its share


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is. The first one alone writes what is common, and says what there is to say."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_environment(cls) -> "Ranks":
        """As the launcher says; one process where there is none.

        Raises:
            InputError: `RANK` and `WORLD_SIZE` are not both given, are no numbers, or do not fit each other. A process
                that took itself for the only one would do the others' work, and write over what they write.
        """
        given = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE") if name in os.environ}
        if not given:
            return cls()
        said = ", ".join(f"{name}={value}" for name, value in given.items())
        advice = "start the processes by torchrun, deepspeed or accelerate, or unset both variables to run alone"
        if len(given) == 1:
            (missing,) = {"RANK", "WORLD_SIZE"} - given.keys()
            raise InputError(f"environment: found {said}, and no {missing}; {advice}")
        try:
            rank, world_size = int(given["RANK"]), int(given["WORLD_SIZE"])
        except ValueError as error:
            raise InputError(f"environment: found {said}, expected two whole numbers; {advice}") from error
        if not 0 <= rank < world_size:
            raise InputError(f"environment: found {said}, expected a RANK from 0 to WORLD_SIZE - 1; {advice}")
        return cls(rank, world_size)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, device: str | torch.device) -> str | torch.device:
        """`auto` is a GPU of one's own where several processes share a machine that has some."""
        if self.world_size > 1 and str(device) in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"
        return device

    @contextmanager
    def met(self) -> Iterator[None]:
        """Within it the processes can wait for each other (over gloo: no tensor is exchanged)."""
        own = self.world_size > 1 and not distributed.is_initialized()
        if own:
            distributed.init_process_group("gloo", timeout=PATIENCE)
        try:
            yield
        finally:
            if own:
                distributed.destroy_process_group()

    def totals(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sums over the processes of each of some numbers."""
        if self.world_size == 1:
            return [float(value) for value in values]
        totals = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(totals)
        return totals.tolist()

    def gathered(self, value: T) -> list[T]:
        """Every process's, in the order of the ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    @contextmanager
    def missing(self, where: str) -> Iterator[None]:
        """Within it a process that waits for one that is gone says so, instead of what its sockets say."""
        try:
            yield
        except RuntimeError as error:
            if self.world_size > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error)):
                raise RuntimeError(f"{where}: another process of this run is gone; its own line says why") from error
            raise

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block while the others wait, and then they: what it wrote, they read.

        If it fails in there, so do they: the launcher ends them.
        """
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()
