"""What does a text-only language model see, when an image is handed to it through one linear map?

>>> import limber_interp
>>> model = limber_interp.load()  # the embedded suite; load("clip_linear", lm=...) for GPT-J-6B
>>> model.caption("photo.jpg")

The public names are resolved on first use, so that importing the package imports neither torch nor a model library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limber_interp.models.limber import Limber as Limber
    from limber_interp.models.limber import load as load

__version__ = "0.1.0"
__all__ = ["Limber", "__version__", "load"]

_LAZY = {"Limber": "limber_interp.models.limber", "load": "limber_interp.models.limber"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
