"""Libraries that not every use needs: which extra brings them, and the line that says how to get them."""

from importlib.util import find_spec

from limber_interp.errors import InputError


def how_to_install(extra: str) -> str:
    """What installs the libraries of an extra of setup.cfg, from an index or in a checkout."""
    return f"pip install 'limber_interp[{extra}]', or in a checkout: pip install -e '.[{extra}]'"


def not_installed(module: str, extra: str, what_for: str = "") -> InputError:
    """The error that says that a library is missing, and how to get it.

    Args:
        what_for: what needs it, as the beginning of the line; none where the line that calls for it says so.
    """
    said = f"{what_for} needs {module}, which is not installed" if what_for else f"{module} is not installed"
    return InputError(f"{said}: {how_to_install(extra)}")


def require(extra: str, *modules: str, what_for: str = "") -> None:
    """Find out at no cost whether libraries are installed; nothing of them is imported.

    Args:
        modules: their names as they are imported, such as `sklearn`, without a dot.

    Raises:
        InputError: one of them is not installed.
    """
    for module in modules:
        if find_spec(module) is None:
            raise not_installed(module, extra, what_for)
