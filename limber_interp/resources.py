"""Where the files that ship with the package lie: in a checkout beside it, in an installed wheel inside it."""

import os
from pathlib import Path

from limber_interp.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds `configs/` and `limber_weights/`."""
    return _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent


def configs_dir() -> Path:
    return root() / "configs"


def weights_dir() -> Path:
    return root() / "limber_weights"


def example_image() -> Path:
    """The bundled scene that commands use when no image is given: the first, by name.

    Raises:
        InputError: the embedded suite is not here.
    """
    folder = weights_dir() / "emoji" / "scenes" / "images"
    images = sorted(path for path in folder.glob("*") if path.is_file() and path.name[0] != ".")
    if not images:
        raise InputError(f"no bundled scene in {folder}: name an image, or make the embedded suite with `make suite`")
    return images[0]


def resolve(path: str | Path) -> Path:
    """Turn a path from a config into one to open.

    An absolute path stays. A relative one is taken from the working directory if something is there, then from the
    folder that holds `limber_weights/`. Where neither exists, the place where shipped weights belong is returned for a
    path under `limber_weights/`, and `path` itself otherwise; whether it exists is for the caller to check.
    """
    path = Path(path).expanduser()
    if path.is_absolute() or os.path.exists(path):  # pathlib raises on a name that is too long
        return path
    shipped = root() / path
    return shipped if os.path.exists(shipped) or path.parts[:1] == ("limber_weights",) else path
