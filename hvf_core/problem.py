"""The one kind of error that is shown to a person instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class Problem(Exception):
    """A fault that the user can mend.

    Its text is one sentence that names the thing, its value, what was expected and the way out.
    Command lines print it and exit with its status; anything else that is raised is a bug.
    """

    exit_status: ClassVar[int] = 1


class WrongUsage(Problem):
    """A command line that cannot be understood, or asks for what does not fit together."""

    exit_status = 2


@contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the program with the sentence of a `Problem`, on standard error, and its status."""
    try:
        yield
    except Problem as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(problem.exit_status) from None
