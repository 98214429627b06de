"""A simulated cap of 32 channels as an LSL stream, to rehearse an experiment without an amplifier.

    python amplifier.py --name cap --rate 500 --trigger PsychoPy

plays the EEG stream `cap` until Ctrl-C, in microvolts: 1/f background, alpha at the back of the
head, blinks, mains. Nobody sees your images: what is decoded from it is chance. With --trigger a
33rd channel, TRIG, has a pulse for each marker of that stream. Needs pylsl and numpy only.
"""

import argparse
import threading
import time

import numpy as np
import pylsl

LABELS = [
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4",
    "T8", "TP9", "CP5", "CP1", "CP2", "CP6", "TP10", "P7", "P3", "Pz", "P4", "P8", "PO9", "O1",
    "Oz", "O2", "PO10",
]  # fmt: skip
CHUNK_S = 0.02
LAG_S = 0.06  # samples leave so long after their stamps: so a trigger is known in time for them
PULSE_S = 0.01
MEMORY_S = np.array([3.0, 0.3, 0.03, 0.004])  # of four kinds of noise, whose sum is near to 1/f
BACKGROUND_UV = 5.0  # of each of the four
ALPHA_UV = {"O": 12.0, "PO": 12.0, "P": 8.0, "CP": 4.0, "TP": 4.0, "C": 2.0}  # else 1
BLINK_UV = {"Fp": 150.0, "F": 45.0, "FC": 15.0}  # else 3


class Cap:
    """Makes EEG sample by sample; chunks of any size are pieces of the same recording."""

    def __init__(self, rate_hz: float, line_hz: float, seed: int):
        self.random, self.rate_hz, self.line_hz = np.random.default_rng(seed), rate_hz, line_hz
        n, lobes = len(LABELS), [label.rstrip("z0123456789") for label in LABELS]
        self.alpha_uv = np.array([ALPHA_UV.get(lobe, 1.0) for lobe in lobes])
        self.blink_uv = np.array([BLINK_UV.get(lobe, 3.0) for lobe in lobes])
        self.line_uv = self.random.lognormal(0, 0.5, n)
        # Each channel's noise is half its own, and half of eight sources that all share.
        shared = self.random.standard_normal((8, n)) / np.sqrt(8)
        self.mix = BACKGROUND_UV * np.vstack([shared, np.eye(n)]) / np.sqrt(2)
        self.keep = np.exp(-1 / (MEMORY_S[:, None] * rate_hz))
        self.noise = self.random.standard_normal((4, 8 + n))
        self.turn = np.exp(2j * np.pi * 10.0 / rate_hz - 1 / (0.5 * rate_hz))  # wanes within 0.5 s
        self.alpha, self.n_made, self.blink_from = 0j, 0, int(2 * rate_hz)

    def read(self, n_samples: int) -> np.ndarray:
        """The next samples, float32 (samples, 32) in microvolts."""
        eeg = np.empty((n_samples, len(LABELS)), np.float32)
        for i in range(n_samples):
            fresh = self.random.standard_normal(self.noise.shape)
            self.noise = self.keep * self.noise + np.sqrt(1 - self.keep**2) * fresh
            push = self.random.standard_normal(2) @ (1, 1j)
            self.alpha = self.turn * self.alpha + np.sqrt(1 - abs(self.turn) ** 2) * push
            since_s = (self.n_made - self.blink_from) / self.rate_hz
            blink = 0.0 if since_s < 0 else since_s / 0.1 * np.exp(1 - since_s / 0.1)
            if since_s > 1:  # the next one comes in 2 to 8 s
                self.blink_from = self.n_made + int(self.random.uniform(2, 8) * self.rate_hz)
            mains = np.sin(2 * np.pi * self.line_hz * self.n_made / self.rate_hz)
            eeg[i] = self.noise.sum(axis=0) @ self.mix + self.alpha_uv * self.alpha.real
            eeg[i] += self.blink_uv * blink + self.line_uv * mains
            self.n_made += 1
        return eeg


def hear(name: str, pulses: list[tuple[float, int]]) -> None:
    """Takes the markers of the stream `name`: onset, and the marker's number or 1 of a text."""
    while not (found := pylsl.resolve_byprop("name", name, timeout=1.0)):
        pass
    inlet = pylsl.StreamInlet(found[0])
    offset_s = inlet.time_correction()  # of the other computer's clock
    while True:
        sample, stamp_s = inlet.pull_sample()
        code = int(sample[0]) % 256 if str(sample[0]).isdecimal() else 1
        pulses.append((stamp_s + offset_s, code))


def trigger(pulses: list[tuple[float, int]], stamps_s: np.ndarray) -> np.ndarray:
    values = np.zeros(len(stamps_s), np.float32)
    for onset_s, code in pulses[-100:]:
        values[(stamps_s >= onset_s) & (stamps_s < onset_s + PULSE_S)] = code
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description="A simulated cap as an LSL stream.")
    parser.add_argument("--name", default="cap", help="of the stream (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=500.0, help="in Hz, 100 to 2000 (default %(default)s)"
    )
    parser.add_argument(
        "--line", type=float, default=50.0, help="of the mains, in Hz (default %(default)s)"
    )
    parser.add_argument("--trigger", metavar="MARKERS", help="stream whose markers go on TRIG")
    asked = parser.parse_args()
    if not 100 <= asked.rate <= 2000:
        parser.error(f"--rate is {asked.rate:g}, give 100 to 2000")
    cap, extra = Cap(asked.rate, asked.line, seed=0), 1 if asked.trigger else 0
    pulses: list[tuple[float, int]] = []
    if extra:
        threading.Thread(target=hear, args=[asked.trigger, pulses], daemon=True).start()
    n = len(LABELS) + extra
    info = pylsl.StreamInfo(asked.name, "EEG", n, asked.rate, "float32", f"cap-{asked.name}")
    info.set_channel_labels(LABELS + ["TRIG"] * extra)
    info.set_channel_types(["eeg"] * len(LABELS) + ["stim"] * extra)
    info.set_channel_units(["microvolts"] * len(LABELS) + ["none"] * extra)
    info.desc().append_child_value("simulated", "true")
    outlet = pylsl.StreamOutlet(info)
    print(f"simulated cap '{asked.name}': {n} channels at {asked.rate:g} Hz", flush=True)
    start_s, chunk = pylsl.local_clock(), np.arange(round(CHUNK_S * asked.rate))
    try:
        while True:
            stamps_s = start_s + (cap.n_made + chunk) / asked.rate
            time.sleep(max(0.0, stamps_s[-1] + LAG_S - pylsl.local_clock()))
            columns = [cap.read(len(chunk)), *[trigger(pulses, stamps_s)] * extra]
            outlet.push_chunk(np.column_stack(columns), stamps_s.tolist())
    except KeyboardInterrupt:
        print(f"ended by Ctrl-C after {cap.n_made / asked.rate:.1f} s")


if __name__ == "__main__":
    main()
