"""The source of the fault bench: the demo's subject, which notes what it sends and errs on demand.

`python -m stream.bench.faults.source NAME TRIALS SOA_S`: each marker that is sent is a line of JSON
on standard output, `stamp_s` and `text`; `end` follows the last one. The first line is
`["began", STAMP_S, RATE_HZ]` of the EEG, and `["unsent", FIRST_S, LAST_S]` are stamps of samples
that were not sent. Lines on standard input are `go`, `mute eeg`, `mute markers`, `speak`,
`mark HEX` and `large N` (bytes), `flood N` (markers) and `nan` (one stamp of the EEG).
"""

import ctypes
import json
import math
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
import typer

from demo.head import CHANNELS
from demo.recordings import responses
from demo.stimuli import Stimulus, gallery_stimuli, schedule
from demo.subject import SimulatedSubject, SubjectSettings
from stream.acquire.lsl import local_clock, pylsl
from stream.sources.outlets import Outlets, sleep_until

_RATE_HZ = 250.0
_LEAD_S, _TAIL_S = 1.0, 1.5  # of EEG before the first image, and after the last one
_CHUNK = 5  # samples


class Errant(Outlets):
    """Outlets that note every marker, and do as they are told from another thread."""

    def __init__(self, name: str):
        super().__init__(name, CHANNELS, _RATE_HZ)
        self._muted = ""
        self._n_wild = 0
        self._saying = threading.Lock()

    def push_eeg(self, samples: np.ndarray, stamps_s: np.ndarray) -> None:
        if self._n_wild:
            wild = len(stamps_s) // 2
            self._say(["unsent", stamps_s[wild], stamps_s[wild]])
            stamps_s[wild], self._n_wild = math.nan, 0
        if self._muted != "eeg":
            super().push_eeg(samples, stamps_s)
        else:
            self._say(["unsent", stamps_s[0], stamps_s[-1]])

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

    def play(
        self,
        subject: SimulatedSubject,
        shown: Sequence[Stimulus],
        evoked: Mapping[str, np.ndarray],
        soa_s: float,
    ) -> None:
        """The subject's EEG as it comes, however long that lasts, and its markers."""
        onsets = [round((_LEAD_S + nth * soa_s) * _RATE_HZ) for nth in range(len(shown))]
        coming = deque(zip(onsets, shown, strict=True))
        start_s = local_clock()
        self._say(["began", start_s, _RATE_HZ])
        for first in range(0, onsets[-1] + round(_TAIL_S * _RATE_HZ), _CHUNK):
            stamps_s = start_s + np.arange(first, first + _CHUNK) / _RATE_HZ
            while coming and coming[0][0] < first + _CHUNK:
                onset, stimulus = coming.popleft()
                subject.present(onset, evoked[stimulus.id])
                sleep_until(start_s + onset / _RATE_HZ)
                self.push_marker(stimulus.id, start_s + onset / _RATE_HZ)
            samples = subject.read(_CHUNK)
            sleep_until(float(stamps_s[-1]))
            self.push_eeg(samples, stamps_s)

    def _note(self, text: str, stamp_s: float) -> None:
        self._say({"stamp_s": stamp_s, "text": text})

    def _say(self, what: object) -> None:
        with self._saying:
            print(json.dumps(what), flush=True)


def main(name: str, trials: int, soa_s: float) -> None:
    """Plays the subject once it hears `go`, and stays until standard input ends."""
    shown = schedule(trials, -(-trials // len(gallery_stimuli())), 0)
    brain = SubjectSettings(rate_hz=_RATE_HZ, seed=1)
    subject = SimulatedSubject(brain, recording_seed=10_000)
    evoked = responses(brain, shown)
    outlets = Errant(name)
    sys.stdin.readline()
    errs = threading.Thread(target=outlets.obey)
    errs.start()
    outlets.wait_for_consumers()
    outlets.play(subject, shown, evoked, soa_s)
    print(json.dumps("end"), flush=True)
    errs.join()


if __name__ == "__main__":
    typer.run(main)
