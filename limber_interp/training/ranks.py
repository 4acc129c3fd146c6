"""The group of processes in which DeepSpeed trains."""

import contextlib
import importlib.util
import logging
import os
import socket
import sys
from datetime import timedelta

import torch
from torch import distributed

from limber_interp.errors import InputError
from limber_interp.extras import how_to_install
from limber_interp.ranks import PATIENCE


def check_deepspeed() -> None:
    """Look whether DeepSpeed is installed, without importing it.

    Raises:
        InputError: it is not; the line says how to install it.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            f"DeepSpeed, which takes the steps of training, is not installed: {how_to_install('train')}. The "
            "closed forms (--method ridge and its like) need none"
        )


def meet(device: torch.device, patience: timedelta = PATIENCE) -> None:
    """Make the process group: gloo on a CPU, nccl between GPUs. A single process makes its own group of one.

    Args:
        patience: how long a process waits for the others before it gives up. One of them may encode a data set or
            caption held-out images alone while the others wait, which takes longer than the ten minutes (thirty with
            gloo) that are usual. A group that is there already, made by the launcher's script, gets it too.
    """
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
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of what it is about to start
    if distributed.is_initialized():
        _set_timeout(patience)
    backend = "nccl" if device.type == "cuda" else "gloo"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=patience)


def _set_timeout(patience: timedelta) -> None:
    """Of the group that is there. Later releases of torch name the function without an underscore."""
    set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
    set_timeout(patience)
