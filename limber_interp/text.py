"""Showing text that a model wrote: a token may be any bytes."""


def printable(text: str) -> str:
    """`text` on one line: control characters and line ends escaped, so that no token drives a terminal or a figure."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def visible(token: str) -> str:
    """A token with its spaces shown, most of all the leading one: `␣dog` and `dog` are two tokens."""
    return printable(token).replace(" ", "␣")
