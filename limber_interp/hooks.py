"""Which hooks stand on a model."""

from torch import nn
from torch.nn.modules import module as torch_module


def hooks_on(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules on which something stands that a forward pass calls, in the model's order.

    TransformerLens's hooks count, temporary, permanent and those of `run_with_cache` alike, and torch's own
    (`register_forward_hook`, `register_forward_pre_hook`, and the global ones of all modules). Hooks on gradients do
    not: a forward pass does not call them.
    """
    found = [name or "the model itself" for name, part in model.named_modules() if _called(part)]
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        found.insert(0, "all modules")
    return tuple(found)


def some(names: tuple[str, ...]) -> str:
    """The names for a message: the first few of many."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _called(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks)
