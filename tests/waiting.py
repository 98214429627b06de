"""Waits for what comes soon, or on a machine with much other work a good deal later."""

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], object], patience_s: float = 100.0) -> None:
    """Waits until something holds; only what will never hold takes so long.

    It is looked for ever less often, as looking takes the time of what is waited for.
    """
    deadline_s, pause_s = time.monotonic() + patience_s, 0.001
    while not holds():
        assert time.monotonic() < deadline_s, "what was waited for did not come"
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, 0.05)
