"""Text from outside, such as names, labels, markers and paths, as it can be shown anywhere."""

from collections.abc import Sequence


def printable(text: str) -> str:
    """A text on one line, and without what would steer a terminal: anybody may send a marker."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def some_of(names: Sequence[str], n: int = 4) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if names[n:] else "")


def counted(n: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{n} {thing}" + "s" * (n != 1)
