"""The one kind of error that is shown to a person instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Problem(Exception):
    """A fault that the user can mend.

    Its text is one sentence that names the thing, its value, what was expected and the way out.
    Command lines print it and exit with 1; anything else that is raised is a bug.
    """


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the program with the sentence of a `Problem`, on standard error, and exit status 1."""
    try:
        yield
    except Problem as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(1) from None
