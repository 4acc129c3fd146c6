"""Image encoders, the projection, the language model, and Limber, which composes them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limber_interp.models.encoders import load_encoder as load_encoder
    from limber_interp.models.hooked_gptj import load_hooked_gptj as load_hooked_gptj
    from limber_interp.models.limber import Limber as Limber
    from limber_interp.models.limber import load as load
    from limber_interp.models.projection import Projection as Projection
    from limber_interp.models.projection import load_projection as load_projection

# Resolved on first use: who wants an encoder does not wait for the import of TransformerLens
_LAZY = {
    "Limber": "limber",
    "Projection": "projection",
    "load": "limber",
    "load_encoder": "encoders",
    "load_hooked_gptj": "hooked_gptj",
    "load_projection": "projection",
}
__all__ = list(_LAZY)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
