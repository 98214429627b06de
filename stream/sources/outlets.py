"""A pair of LSL outlets, EEG and markers, that begin when they are told to and lose nothing."""

import os
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock, pylsl
from stream.acquire.units import EEG, MICROVOLTS, Signal

_CONSUMER_WAIT_S = 60.0
_LINGER_S = 1.0  # so that consumers have the last samples before the outlets go


def eeg_outlet(
    name: str,
    channels: Sequence[str],
    rate_hz: float,
    signal: Signal = EEG,
    simulated: bool = False,
    source: str = "",
) -> "pylsl.StreamOutlet":
    """A stream of EEG or MEG (float32), which says what its channels are, and if it is made up.

    Two that may be of one name on a network differ in `source`.
    """
    kind, unit = signal.kind.upper() or "EEG", signal.unit or MICROVOLTS
    info = pylsl.StreamInfo(
        name, kind, len(channels), rate_hz, "float32", f"hvf-live-{name}{source}"
    )
    info.set_channel_labels(list(channels))
    info.set_channel_types(kind)
    info.set_channel_units(unit)
    if simulated:
        info.desc().append_child_value("simulated", "true")
    return pylsl.StreamOutlet(info)


class Outlets:
    """The streams of a player: EEG or MEG (float32) and markers (one string column).

    Args:
        name: the EEG stream's; the marker stream is called `name` + "-markers".
        signal: what the stream says that it is.
        simulated: it says, too, that nobody's EEG is in it.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[str],
        rate_hz: float,
        signal: Signal = EEG,
        simulated: bool = False,
    ):
        self.eeg_name, self.marker_name = name, f"{name}-markers"
        markers = pylsl.StreamInfo(
            self.marker_name, "Markers", 1, 0, "string", f"hvf-live-{name}-markers"
        )
        self._eeg = eeg_outlet(name, channels, rate_hz, signal, simulated)
        self._markers = pylsl.StreamOutlet(markers)

    def wait_for_consumers(self) -> None:
        """Waits until somebody listens to both streams: what is sent before is lost.

        Raises:
            Problem: nobody does within a minute.
        """
        deadline_s = time.monotonic() + _CONSUMER_WAIT_S
        for outlet, name in ((self._eeg, self.eeg_name), (self._markers, self.marker_name)):
            if not outlet.wait_for_consumers(max(0.0, deadline_s - time.monotonic())):
                raise Problem(
                    f"nobody opened the stream '{name}' within {_CONSUMER_WAIT_S:g} s; start "
                    f"`run_realtime.py live --eeg {self.eeg_name} --markers {self.marker_name}`"
                )

    def push_eeg(self, samples: np.ndarray, stamps_s: np.ndarray) -> None:
        """Samples (n, channels) with their stamps (n,) on this machine's LSL clock."""
        self._eeg.push_chunk(samples, stamps_s.tolist())

    def push_marker(self, text: str, stamp_s: float) -> None:
        self._markers.push_sample([text], stamp_s)

    def linger(self) -> None:
        """Keeps the outlets until what was pushed has arrived."""
        time.sleep(_LINGER_S)


def sleep_until(clock_s: float) -> None:
    """Sleeps until the LSL clock shows `clock_s`."""
    wait_s = clock_s - local_clock()
    if wait_s > 0:
        time.sleep(wait_s)


def wait_for_go() -> None:
    """Waits for the line `go` on standard input; the program ends with whoever was to write it."""
    if sys.stdin.readline().strip() != "go":
        raise SystemExit(1)
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _outlive_nobody() -> None:
    while os.read(0, 1):  # standard input ends with the session, however that ends
        pass
    os._exit(1)
