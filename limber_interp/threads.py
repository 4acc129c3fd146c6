"""What one thread at a time may do: use a model on which hooks can be set, and draw from torch's global generator.

Hooks are set on the model itself, so that they fire in the forward pass of whoever runs it; the global generator gives
its numbers to whoever asks. Two threads would get each other's hooks and numbers, with nothing to show for it.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator

import torch
from torch import nn

# Of models that are still there. Beside the model, not in it: a lock can be neither copied nor pickled
_locks: "weakref.WeakKeyDictionary[nn.Module, threading.RLock]" = weakref.WeakKeyDictionary()
_making = threading.Lock()
_drawing = threading.RLock()


@contextlib.contextmanager
def using(model: nn.Module) -> Iterator[None]:
    """Keep other threads from using the model meanwhile; the thread that has it may ask again."""
    with _making:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        yield


@contextlib.contextmanager
def drawing(seed: int | None = None) -> Iterator[None]:
    """Draw from torch's global generator on the CPU, from the seed if one is given, and leave it as it was before.

    Threads take turns here. What another library or the user's own thread draws meanwhile cannot be kept apart.
    """
    with _drawing, torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed() would seed the GPUs too
        yield
