"""Where a model computes."""

import torch

from limber_interp.errors import InputError


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
