"""The source of the fault bench: the demo's subject, which notes what it sends and errs on demand.

`python -m stream.bench.faults.source NAME TRIALS SOA_S`: each marker that is sent is a line of JSON
on standard output, `stamp_s` and `text`; `end` follows the last one. Lines on standard input are
`go`, `mute eeg`, `mute markers`, `speak`, `mark HEX` and `large N` (bytes), `flood N` (markers) and
`nan` (one stamp of the EEG).
"""

import ctypes
import json
import math
import sys
import threading

import numpy as np
import typer

from demo.head import CHANNELS
from demo.recordings import responses, simulate_recording
from demo.stimuli import schedule
from demo.subject import SimulatedSubject, SubjectSettings
from stream.acquire.lsl import local_clock, pylsl
from stream.sources.outlets import Outlets
from stream.sources.replay import replay

_RATE_HZ = 250.0


class Errant(Outlets):
    """Outlets that note every marker, and do as they are told from another thread."""

    def __init__(self, name: str):
        super().__init__(name, CHANNELS, _RATE_HZ)
        self._muted = ""
        self._n_wild = 0

    def push_eeg(self, samples: np.ndarray, stamps_s: np.ndarray) -> None:
        if self._n_wild:
            stamps_s[len(stamps_s) // 2], self._n_wild = math.nan, 0
        if self._muted != "eeg":
            super().push_eeg(samples, stamps_s)

    def push_marker(self, text: str, stamp_s: float) -> None:
        if self._muted != "markers":
            self._note(text, stamp_s)
            super().push_marker(text, stamp_s)

    def push_bytes(self, text: bytes) -> None:
        """A marker that pylsl does not send: any bytes."""
        stamp_s = local_clock()
        self._note(repr(text[:100]), stamp_s)
        values, lengths = (ctypes.c_char_p * 1)(text), (ctypes.c_uint32 * 1)(len(text))
        arguments = (self._markers.obj, ctypes.byref(values), ctypes.byref(lengths))
        pylsl.lib.lib.lsl_push_sample_buftp(*arguments, ctypes.c_double(stamp_s), 1)

    def obey(self) -> None:
        """Does what standard input says, until it ends."""
        for line in sys.stdin:
            match line.split():
                case ["mute", what]:
                    self._muted = what
                case ["speak"]:
                    self._muted = ""
                case ["nan"]:
                    self._n_wild = 1
                case ["mark", text]:
                    self.push_bytes(bytes.fromhex(text))
                case ["large", n]:
                    self.push_bytes(b"<b>" * (int(n) // 3))
                case ["flood", n]:
                    first_s = local_clock()
                    for i in range(int(n)):
                        self.push_marker(f"flood-{i}", first_s + i * 1e-5)

    def _note(self, text: str, stamp_s: float) -> None:
        print(json.dumps({"stamp_s": stamp_s, "text": text}), flush=True)


def main(name: str, trials: int, soa_s: float) -> None:
    """Plays the subject once it hears `go`, and stays until standard input ends."""
    shown = schedule(trials, 1, 0)
    brain = SubjectSettings(rate_hz=_RATE_HZ, seed=1)
    subject = SimulatedSubject(brain, recording_seed=10_000)
    recording = simulate_recording(subject, shown, responses(brain, shown), soa_s, name)
    outlets = Errant(name)
    sys.stdin.readline()
    errs = threading.Thread(target=outlets.obey)
    errs.start()
    outlets.wait_for_consumers()
    replay(recording, outlets, 1.0)
    print(json.dumps("end"), flush=True)
    errs.join()


if __name__ == "__main__":
    typer.run(main)
