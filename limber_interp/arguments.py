"""Arguments as people give them: one thing where several are taken, numbers as an array."""

import operator
from collections.abc import Iterable
from types import UnionType
from typing import Any, Protocol, TypeAlias, TypeVar, overload, runtime_checkable

from limber_interp.errors import InputError

T = TypeVar("T")
Types: TypeAlias = type | UnionType | tuple[type, ...]


@runtime_checkable
class Numbers(Protocol):
    """A numpy array, one of its numbers, or a tensor."""

    def tolist(self) -> Any: ...


@overload
def several(given: str | Iterable[str]) -> tuple[str, ...]: ...
@overload
def several(given: T | Iterable[T], one: Types) -> tuple[T, ...]: ...
def several(given: Any, one: Types = str) -> tuple[Any, ...]:
    """The things of a sequence; a thing on its own as the only one.

    A string is a sequence too, of single letters: `targets="dog"` would follow d, o and g.

    Args:
        one: the types of a thing on its own.
    """
    return (given,) if isinstance(given, one) else tuple(given)


def integers(given: Any, name: str) -> tuple[int, ...]:
    """Whole numbers: of a sequence, a numpy array, a tensor, or one on its own.

    Args:
        name: of the argument, for messages.

    Raises:
        InputError: something else is among them. So are True and False, as a mask holds them, which Python would take
            for 1 and 0.
    """
    values = plain(given)
    return tuple(integer(value, name) for value in (values if isinstance(values, Iterable) else (values,)))


def integer(value: Any, name: str) -> int:
    """One whole number.

    Raises:
        InputError: it is none.
    """
    value = plain(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{name}: found {value!r}, expected a whole number")
    return operator.index(value)


def plain(given: Any) -> Any:
    """A numpy array or a tensor as lists of Python's numbers, or one of them; everything else as it is."""
    return given.tolist() if isinstance(given, Numbers) else given
