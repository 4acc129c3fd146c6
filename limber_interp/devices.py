"""Where a model computes, and in what it is built."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from limber_interp.errors import InputError

_BUILDING = threading.RLock()  # the default dtype is the whole process's


@contextmanager
def building(device: str = "cpu") -> Iterator[None]:
    """Build modules in float32 on a device, whatever torch's defaults are (`torch.set_default_dtype`, `_device`).

    Libraries build their modules in these, so that the same seed would draw other weights. One thread at a time; of
    both, enter `threads.drawing` first, or two threads could wait for each other.
    """
    with _BUILDING:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            with torch.device(device):
                yield
        finally:
            torch.set_default_dtype(before)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is the GPU if there is one, and the CPU otherwise.

    Raises:
        InputError: there is no such device, or none that torch can use here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)  # a device that torch knows can still lack its driver, or be one too many
    except (RuntimeError, AssertionError) as error:  # an assertion is how a torch without CUDA refuses
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {str(device)!r} cannot be used here; take auto, cpu or cuda: {reason}") from error
    return chosen
