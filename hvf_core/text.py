"""Text from outside, such as names, labels, markers and paths, as it can be shown anywhere."""


def printable(text: str) -> str:
    """A text on one line, and without what would steer a terminal: anybody may send a marker."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
