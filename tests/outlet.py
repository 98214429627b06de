"""A small amplifier and stimulus PC in one process, to be frozen, killed and restarted by tests.

`python -m tests.outlet NAME N_CHANNELS RATE_HZ TEXT`: the streams NAME and NAME-markers, for ever;
the marker TEXT every 0.3 s. Sample values are the sample's number.
"""

import itertools
import sys

import numpy as np

from stream.acquire.lsl import local_clock
from stream.sources.outlets import Outlets, sleep_until

CHUNK_S = 0.02
MARKER_EVERY_S = 0.3


def main(name: str, n_channels: int, rate_hz: float, text: str) -> None:
    outlets = Outlets(name, [f"C{i + 1}" for i in range(n_channels)], rate_hz)
    chunk = max(1, round(CHUNK_S * rate_hz))
    start_s = local_clock()
    next_marker_s = start_s + 1.0
    for first in itertools.count(0, chunk):
        numbers = np.arange(first, first + chunk)
        stamps_s = start_s + numbers / rate_hz
        sleep_until(stamps_s[-1])
        while next_marker_s <= stamps_s[-1]:
            outlets.push_marker(text, next_marker_s)
            next_marker_s += MARKER_EVERY_S
        samples = np.repeat(numbers[:, None], n_channels, axis=1).astype(np.float32)
        outlets.push_eeg(samples, stamps_s)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
