"""The checks that the page of a session shows: `python -m stream.doctor.beside FOLDER [--over]`.

Each verdict is a line of JSON on standard output. The process gives way to every other one, and
ends once its standard input does: with the page that has started it.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

from hvf_core.problem import one_sentence
from hvf_core.swift import give_way

WHILE_IT_RUNS = ("machine", "network", "LSL", "streams")
"""What may change during a session. Program and models are what they were when it has verified
them, and to load them again would take cores from it."""
AFTERWARDS = ("on disk",)
_WAIT_S = 5.0  # for streams that are there: a person is waiting


def lines(folder: Path, *, is_over: bool) -> Iterator[str]:
    """What is found of the session in a folder, and of this machine while it runs.

    Raises:
        Problem: there is no session.
    """
    from stream.doctor.run import examine
    from stream.doctor.verdict import Named, as_line
    from stream.pipeline.wire.config import LiveSource, SessionSettings, read_config

    config = read_config(folder / "config.json")
    source = None  # a file has no streams
    if isinstance(config.source, LiveSource):
        source = config.source.model_copy(update={"wait_s": _WAIT_S})
    settings = SessionSettings() if is_over else config.model_copy(update={"source": source})
    sections = AFTERWARDS if is_over else WHILE_IT_RUNS
    for section, verdict in examine(Named(settings, session=folder), lambda _: None, sections):
        yield as_line(section, verdict)


def _end_with_the_page() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """The process of the checks."""
    give_way()
    Thread(target=_end_with_the_page, daemon=True).start()
    for line in lines(Path(sys.argv[1]), is_over="--over" in sys.argv):
        print(line, flush=True)


if __name__ == "__main__":
    with one_sentence():
        main()
