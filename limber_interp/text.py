"""Showing text that a model wrote: a token may be any bytes."""


def printable(text: str) -> str:
    """`text` on one line: control characters and line ends escaped, so that no token drives a terminal or a figure."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
