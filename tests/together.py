"""Processes that train together, as `accelerate launch` starts them, on the CPU."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from tests.ports import free_port


def together(run: Callable[..., None], *given: Any, n: int = 2) -> list[int | None]:
    """Runs `run(rank, *given)` in `n` processes, copies of this one; how each ended."""
    start, port = multiprocessing.get_context("fork").Process, free_port()
    processes = [start(target=_launched, args=(rank, n, port, run, given)) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    return [process.exitcode for process in processes]


def _launched(rank: int, n: int, port: int, run: Callable[..., None], given: Any) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(n), "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run(rank, *given)
