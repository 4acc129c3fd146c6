"""The group of processes in which DeepSpeed trains."""

import contextlib
import logging
import os
import socket
import sys

import torch


def meet(device: torch.device) -> None:
    """Make the process group: gloo on a CPU, nccl between GPUs. A single process makes its own group of one."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if "RANK" not in os.environ:
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        local_rank = device.index or 0  # DeepSpeed moves the layer to the GPU of that number
        alone = {"RANK": 0, "LOCAL_RANK": local_rank, "WORLD_SIZE": 1}
        os.environ |= {name: str(value) for name, value in alone.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # DeepSpeed tries compilers, and drops their complaints where standard error is what they inherit: not Jupyter's
    with contextlib.redirect_stderr(sys.__stderr__):
        import deepspeed

        # Kernels for ranks that share memory, compiled at first use: gloo does without them and without a compiler
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of the scheduler that it is about to start
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
