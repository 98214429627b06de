"""The terminal of all commands: it shows text as it is, whoever wrote it."""

from typing import Any

from rich.console import Console
from rich.text import Text

from hvf_core.text import printable


class Screen(Console):
    """A console that takes every string, also in tables, for text: no markup, emoji or escapes.

    A `Text` is taken as it is: what comes from outside is made `printable` before it is put there.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **how)
