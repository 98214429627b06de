"""The one kind of error that is shown to a person instead of a traceback."""


class Problem(Exception):
    """A fault that the user can mend.

    Its text is one sentence that names the thing, its value, what was expected and the way out.
    Command lines print it and exit with 1; anything else that is raised is a bug.
    """
