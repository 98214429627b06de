"""Standard output, until nobody reads it any more."""

from typing import IO, cast

from hvf_core.problem import let_go
from hvf_core.screen import Screen


class Output:
    """A file for a console that never fails, as where a pipe or a terminal was closed.

    Attributes:
        is_lost: whether what is written goes nowhere.
    """

    def __init__(self, file: IO[str]):
        self._file, self.is_lost = file, False
        # What it prints are names, as `[left]` or `:left:`, and no markup.
        self.console = Screen(file=cast(IO[str], self))

    def write(self, text: str) -> int:
        try:
            return self._file.write(text)
        except OSError:
            return self._lose()

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError:
            self._lose()

    def _lose(self) -> int:
        let_go(self._file)
        self.is_lost = True
        return 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)
