"""How long an answer takes after the last slice of a trial, beside the whole network at once.

`run_realtime.py bench decoder-latency`: MBP with 63 channels, 250 samples and the paper's width,
random weights, one trial at a time. In turn, once with the encoder warm, and once with the pause
before each that a live decoder has before a trial's last samples come (20 ms, in which caches and
cores go cold):

- one-shot: the whole trial through the torch network, then the search, with one thread or two;
- last slice: all but the last 20 ms of the trial are in; the last slice is added, the head runs in
  each engine that opens here, on one thread, then the search. Once before the pause the head runs
  as in a session.

All ways take the same trials in turn, and their cosines with the images are held against the first.
"""

from typing import Annotated

import typer


def main(trials: Annotated[int, typer.Option(min=1, help="of each way")] = 500) -> None:
    """Times one-shot and last-slice answers, interleaved, and prints one table."""
    from stream.bench.last_slice import show_ways  # here: torch takes seconds

    show_ways(trials)
