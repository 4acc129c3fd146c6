"""The processes of one training run: one, or as many as a launcher has started."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this is. The first one alone writes, and says what there is to say."""

    rank: int
    world_size: int

    @property
    def first(self) -> bool:
        return self.rank == 0

    @classmethod
    def of_environment(cls) -> "Ranks":
        """As the launcher says (`torchrun`, `deepspeed`); one process where there is none."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def device(self, device: str | torch.device) -> str | torch.device:
        """`auto` is a GPU of one's own where several processes share a machine that has some."""
        if self.world_size > 1 and str(device) in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"
        return device

    def meet(self, device: torch.device) -> None:
        """Make the process group: gloo on a CPU, nccl between GPUs. A single process makes its own group of one."""
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if "RANK" not in os.environ:
            with closing(socket.socket()) as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            local_rank = device.index or 0  # DeepSpeed moves the layer to the GPU of that number
            alone = {"RANK": 0, "LOCAL_RANK": local_rank, "WORLD_SIZE": 1}
            os.environ |= {name: str(value) for name, value in alone.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        import deepspeed

        # Kernels for ranks that share memory, compiled at first use: gloo does without them and without a compiler
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "nccl" if device.type == "cuda" else "gloo"
        deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)

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
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block while the others wait, and then they: what it wrote, they read.

        If it fails in there, so do they: the launcher ends them.
        """
        if self.world_size > 1 and not self.first:
            distributed.barrier()
        yield
        if self.world_size > 1 and self.first:
            distributed.barrier()
