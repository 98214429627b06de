"""Runs the checks: each in a thread with a limit, so that none can end or hold up the doctor."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Thread

from hvf_core.problem import Problem
from stream.doctor import lsl, machine, models, network, program, records, streams
from stream.doctor.verdict import Check, Named, Verdict

SECTIONS: Mapping[str, tuple[Check, ...]] = {
    "program": program.CHECKS,
    "machine": machine.CHECKS,
    "network": network.CHECKS,
    "LSL": lsl.CHECKS,
    "models": models.CHECKS,
    "streams": streams.CHECKS,
    "on disk": records.CHECKS,
}
# Every image is decoded, streams are waited for, gigabytes are read.
_LONG_S = {"models": 1800.0, "streams": 120.0, "on disk": 1800.0}
_LIMIT_S = 20.0


def examine(
    named: Named, doing: Callable[[str], object], sections: Iterable[str] = SECTIONS
) -> Iterator[tuple[str, Verdict]]:
    """Verdicts, each with its section, as they are found; `doing` hears which check runs."""
    for section in sections:
        checks = SECTIONS[section]
        for check in checks:
            doing(check.__name__)
            for one in verdicts(check, named, _LONG_S.get(section, _LIMIT_S)):
                yield section, one


def verdicts(check: Check, named: Named, limit_s: float) -> Iterator[Verdict]:
    """What a check says, as it says it, and that it died or took too long, where it did."""
    said: SimpleQueue[Verdict | None] = SimpleQueue()
    deadline_s = time.monotonic() + limit_s

    def fail(how: str) -> Verdict:
        way_out = "or send what --bug-report writes"
        return Verdict("FAIL", f"the check '{check.__name__}' {how}, {way_out}")

    def work() -> None:
        try:
            for one in check(named):
                said.put(one)
        except Problem as problem:
            said.put(Verdict("FAIL", str(problem)))
        except Exception as error:  # whatever it is, the other checks are wanted as well
            said.put(fail(f"ended in {type(error).__name__} ({error}): mend that"))
        said.put(None)

    Thread(target=work, daemon=True).start()
    try:
        while (one := said.get(timeout=max(0.0, deadline_s - time.monotonic()))) is not None:
            yield one
    except Empty:
        yield fail(f"did not end within {limit_s:g} s: try again when nothing else runs")
