"""The processes that share a piece of work: one, or as many as a launcher (`torchrun`, `accelerate`) has started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait as long as the slowest takes for its share


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is. The first one alone writes what is common, and says what there is to say."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of_environment(cls) -> "Ranks":
        """As the launcher says; one process where there is none."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

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

    def total(self, value: float, device: torch.device) -> float:
        """The sum of one number per process."""
        if self.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return total.item()

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
