"""What the doctor says, and of what: a fact, whether it is well, and the way out where it is not.

A check is a function from what was named to its verdicts; what it raises becomes one that FAILs.
Checks stand in the `CHECKS` of their modules, so that a further one takes one file.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hvf_core.problem import Problem
from stream.pipeline.wire.config import SessionSettings

FINISH = "`run_realtime.py finish FOLDER`"
"""Where a verdict names this way out, it is what comes next."""


class Verdict(NamedTuple):
    """One line of the doctor's; with `warn` a session runs, and may run badly."""

    state: Literal["ok", "warn", "FAIL"]
    text: str


@dataclass(frozen=True)
class Named:
    """What is to be looked at: the settings of a session to come, and what lies on disk."""

    settings: SessionSettings
    recording: Path | None = None
    session: Path | None = None


Check = Callable[[Named], Iterator[Verdict]]


def verdict(fact: str, *troubles: tuple[object, str]) -> Verdict:
    """`ok`, or `warn` with the way out of the first trouble that is there."""
    for is_there, way_out in troubles:
        if is_there:
            return Verdict("warn", f"{fact}: {way_out}")
    return Verdict("ok", fact)


def refused(look: Callable[[], object]) -> Iterator[Verdict]:
    """FAIL where something raises a `Problem`, after which the check goes on."""
    try:
        look()
    except Problem as problem:
        yield Verdict("FAIL", str(problem))


def as_line(section: str, one: Verdict) -> str:
    """A verdict for programs: a line of JSON with its section, state and text."""
    return json.dumps({"section": section, **one._asdict()})
