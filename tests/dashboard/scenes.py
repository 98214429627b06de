"""What a session would tell a page, made up: deterministic, from a seed."""

import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.dashboard.parts import (
    CHANCE,
    EEG_HZ,
    ENDS_S,
    FIELDS,
    LABELS,
    PIECE_S,
    SCHEMA,
    STAGES,
    VERBS,
    positions,
)

GOOD = {
    "EEG": ("flows", "63 ch, 1000 Hz, age 3 ms"),
    "markers": ("flow", "last 0.4 s ago"),
    "decoder": ("answers", "200 images, compiled"),
    "painter": ("paints", "512 px, 4 steps"),
    "recorder": ("writes", "48.2 MB, recording.xdf"),
    "clock": ("steady", "offset 0.02 ± 0.04 ms, 1.2 ppm"),
}


def rate_of(hits: int, n: int) -> dict[str, float]:
    """A rate with the Wilson interval of 95 %."""
    p, z = hits / n, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"rate": p, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


@dataclass
class Scene:
    """One session at one moment: live, waiting, lost, record, finished, blind, unsure or form."""

    name: str = "live"
    seed: int = 0
    n_trials: int = 48
    now_s: float = 1000.0
    n_channels: int = 63
    state: str = field(init=False)
    values: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        states = {"waiting": "waiting", "form": "waiting", "lost": "lost", "finished": "ended"}
        self.state = states.get(self.name, "ready")
        self.values = {path: one["default"] for path, one in SCHEMA["properties"].items()}
        self.values["decoding.min_confidence"] = 0.4 if self.name == "unsure" else 0.0
        self.channels = positions()[: self.n_channels]
        self.trials = 0 if self.name in ("waiting", "form") else self.n_trials
        self._phase = np.random.default_rng(self.seed).uniform(0, 6.3, self.n_channels)

    @property
    def is_blind(self) -> bool:
        return self.name == "blind"

    def hello(self, rights: str = "control") -> dict[str, Any]:
        mode = {"record": "record", "finished": "finished", "form": "live"}.get(self.name, "demo")
        session = {
            "id": f"20261126-{self.name}",
            "title": "sub-07 · RSVP, run 2",
            "folder": "sessions",
        }
        session |= {"mode": mode, "started": "2026-11-26T12:03:00", "blind": self.is_blind}
        return {
            "kind": "hello",
            "v": 1,
            "session": session | {"simulated": mode == "demo"},
            "rights": rights,
            "now_s": self.now_s,
            "n_gallery": 0 if self.name == "record" else 200,
            "n_repeats": 8,
            "window_ends_s": ENDS_S,
            "window_s": [-0.2, 1.0],
            "chance": None if self.is_blind else CHANCE,
            "channels": self.channels,
            "rate_hz": 1000,
            "budgets_ms": {},
            "verbs": VERBS,
            "settings": {"schema": SCHEMA, "values": self.values},
            "form": {"fields": FIELDS, "needed": self.name == "form"},
        }

    def told(self) -> dict[str, Any]:
        """The kind `state`."""
        n = self.trials
        dropped = sum(self._outcome(i) == "dropped" for i in range(n))
        is_open = n > 0 and self.state == "ready"
        sums = {"markers": n + is_open, "pending": int(is_open), "decoded": n - dropped, "cut": 0}
        if self.name == "record":
            sums |= {"decoded": 0, "cut": n - dropped}
        sums |= {"dropped": dropped, "adds_up": True}
        reasons = {"rejected": dropped - dropped // 3, "gap": dropped // 3} if dropped else {}
        sentences = {
            "ready": "READY since 12:03: markers count.",
            "waiting": "Waits for stream 'BrainVision' and for a marker of 'PsychoPy'.",
            "paused": "Paused: markers are dropped until it is resumed.",
            "lost": "Stream 'BrainVision' gave nothing for 4.2 s: is the amplifier on?",
            "ended": "Ended by finish at 12:31. Its report is ready.",
        }
        return {
            "kind": "state",
            "state": self.state,
            "ready": self.state == "ready",
            "sentence": sentences.get(self.state, ""),
            "verdicts": self._verdicts(),
            "ledger": sums | {"reasons": reasons},
            "accuracy": self._accuracy(),
            "latency": self._latency() if n else [],
            "newest_sample_age_ms": 4200 if self.state == "lost" else 3.2,
            "clock": {"offset_ms": 0.02, "uncertainty_ms": 0.04, "drift_ppm": 1.2},
            "recorder": {"bytes": 48_200_000, "file": "sessions/20261126/recording.xdf"},
            "elapsed_s": self.now_s - 1000 + 754,
            "dropped_updates": 0,
            "ended": {"end": "finish", "failure": "", "report": True}
            if self.state == "ended"
            else None,
        }

    def _verdicts(self) -> list[dict[str, Any]]:
        said = {p: ["ok", word, "", detail] for p, (word, detail) in GOOD.items()}
        if self.name == "lost":
            said["EEG"] = [
                "bad",
                "lost",
                "'BrainVision' has sent nothing for 4.2 s: look at the amplifier and its program; "
                "the session goes on by itself when it is back.",
                "",
            ]
            said["clock"] = ["warn", "unsure", "No offset was measured for 12 s.", ""]
        if self.name in ("waiting", "form"):
            said["EEG"] = [
                "warn",
                "waiting",
                "No stream is called 'BrainVision'; there are: none.",
                "",
            ]
            said["markers"] = ["warn", "waiting", "No marker has ever come from 'PsychoPy'.", ""]
        if self.name == "unsure":
            said["decoder"] = [
                "warn",
                "raw",
                "The bundle is not calibrated: its probabilities only rank.",
                "",
            ]
        if self.name == "record":
            said["decoder"] = ["off", "off", "", "this session records"]
        if self.name in ("record", "unsure"):
            said["painter"] = ["off", "off", "", "nothing is painted"]
        if self.name == "finished":
            said = {p: ["off", "ended", "", detail] for p, (_, detail) in GOOD.items()}
        keys = ("level", "word", "sentence", "detail")
        return [{"part": part, **dict(zip(keys, one, strict=True))} for part, one in said.items()]

    def _accuracy(self) -> dict[str, Any] | None:
        if self.is_blind or not self.trials or self.name == "record":
            return None
        curve = [0.17, 0.31, 0.4, 0.46, 0.52, 0.55, 0.58, 0.62]
        by = [
            {
                "repeats": i + 1,
                "n": 40,
                "top1": rate_of(round(40 * p), 40),
                "top5": rate_of(round(40 * (p + 0.27)), 40),
            }
            for i, p in enumerate(curve)
        ]
        n = 320
        known = {"n": n, "mean_confidence": 0.43, "ece": 0.04}
        rates = {"top1": rate_of(144, n), "top5": rate_of(231, n)}
        return {
            "n": n,
            **rates,
            "by_repeats": by,
            "calibration": None if self.name == "unsure" else known,
        }

    def _latency(self) -> list[dict[str, Any]]:
        keys = ("p50_ms", "p95_ms", "p99_ms", "budget_ms")
        return [
            {
                "stage": stage,
                "n": 320,
                **dict(zip(keys, one, strict=True)),
                "over": 4 if stage == "answer" else 0,
            }
            for stage, one in STAGES.items()
        ]

    def _outcome(self, trial: int) -> str:
        return "dropped" if trial % 13 == 7 else "decoded"

    def trial(self, number: int, n_ends: int = len(ENDS_S)) -> dict[str, Any]:
        """The kind `trial`, with the answers up to a window end."""
        rng = np.random.default_rng([self.seed, number])
        stimulus = int(rng.integers(len(LABELS)))
        is_hit = rng.random() < 0.5
        answers = []
        for end_s, sure in list(zip(ENDS_S, (0.16, 0.34, 0.61), strict=True))[:n_ends]:
            others = rng.permutation([i for i in range(len(LABELS)) if i != stimulus])
            rank = 1 if is_hit and end_s > 0.4 else int(rng.integers(2, 40))
            rows = [int(i) for i in others[:5]]
            if rank <= 5:
                rows[rank - 1] = stimulus
            sure = float(np.clip(sure * rng.uniform(0.6, 1.35), 0.05, 0.97))
            shares = sure * np.array([1, 0.32, 0.2, 0.13, 0.08]) * [1, *rng.uniform(0.6, 1, 4)]
            answer = {
                "tmax_s": end_s,
                "n_repeats": number % 8 + 1,
                "provisional": end_s < ENDS_S[-1],
            }
            answer |= {"ids": [f"stim/{i}" for i in rows], "labels": [LABELS[i] for i in rows]}
            answer |= {
                "probabilities": [round(float(p), 3) for p in shares],
                "confidence": round(sure, 3),
            }
            answer |= {
                "calibrated": self.name != "unsure",
                "abstain": sure < self.values["decoding.min_confidence"],
            }
            answers.append(answer | {"rank": 0 if self.is_blind else rank})
        outcome = self._outcome(number) if n_ends == len(ENDS_S) else "open"
        shown = {"id": f"stim/{stimulus}", "label": LABELS[stimulus]}
        return {
            "kind": "trial",
            "trial": number,
            "stimulus": "" if self.is_blind else LABELS[stimulus],
            "group": "" if self.is_blind else f"stim/{stimulus}",
            "block": number // 24 + 1,
            "repeat": number % 8 + 1,
            "onset_s": self.now_s - 1.1 * (self.n_trials - number),
            "marker": "" if self.is_blind else f"stim/{stimulus}",
            "shown": None if self.is_blind else shown,
            "answers": [] if outcome == "dropped" or self.name == "record" else answers,
            "outcome": "cut" if self.name == "record" and outcome == "decoded" else outcome,
            "reason": ("gap" if number % 3 == 0 else "rejected") if outcome == "dropped" else "",
            "latency_ms": None if outcome == "dropped" else 1.86,
            "painted": None,
        }

    def notes(self) -> list[dict[str, Any]]:
        said = [
            ("session", "info", "READY: markers count from now on"),
            ("reader", "info", "stream 'BrainVision': 63 channels at 1000 Hz"),
        ]
        if self.name == "lost":
            said.append(("reader", "bad", "stream 'BrainVision' is lost: nothing came for 4.2 s"))
        return [
            {
                "kind": "note",
                "at_s": self.now_s - 60 + i,
                "node": node,
                "level": level,
                "text": text,
            }
            for i, (node, level, text) in enumerate(said)
        ]

    def painting(self) -> dict[str, Any]:
        newest = {
            "kind": "painting",
            "trial": self.n_trials - 1,
            "state": "preview",
            "step": 3,
            "n_steps": 4,
        }
        return newest | {"image": "/images/newest.jpg", "detail": "", "scale": 1.0, "seed": 7}

    def quality(self) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed)
        channels = []
        for i, channel in enumerate(self.channels):
            rms = float(rng.lognormal(2.3, 0.22))
            one = {
                "name": channel["name"],
                "rms_uv": rms,
                "peak_to_peak_uv": 6 * rms,
                "line_uv": 0.1 * rms,
            }
            one |= {"flat": False, "clipped": False, "level": "ok", "word": "well"}
            if i == 8:
                one |= {
                    "rms_uv": 0.1,
                    "peak_to_peak_uv": 0.3,
                    "flat": True,
                    "level": "bad",
                    "word": "flat",
                }
            if i in (20, 41):
                one |= {"rms_uv": 41.0, "line_uv": 37.0, "level": "warn", "word": "mains noise"}
            channels.append(one)
        return {"kind": "quality", "until_s": self.now_s, "line_hz": 50, "channels": channels}

    def evoked(self) -> dict[str, Any]:
        times = np.round(np.arange(-0.2, 1.0, 0.01), 3)
        return {
            "kind": "evoked",
            "n": self.trials,
            "channels": [c["name"] for c in self.channels],
            **self._mean(times, 0.25),
        }

    def trial_eeg(self, number: int) -> dict[str, Any]:
        times = np.round(np.arange(-0.2, 1.0, 0.01), 3)
        uv = self._mean(times, 3.0)["mean_uv"]
        cut = {"kind": "trial_eeg", "trial": number, "times_s": times.tolist(), "uv": uv}
        return cut | {"channels": [c["name"] for c in self.channels], "sentence": ""}

    def _mean(self, times: np.ndarray, noise_uv: float) -> dict[str, Any]:
        rng = np.random.default_rng(self.seed)
        back = np.array([0.2 + max(0.0, -c["y"]) for c in self.channels])[:, None]
        wave = 4 * np.exp(-(((times - 0.1) / 0.025) ** 2)) - 6 * np.exp(
            -(((times - 0.17) / 0.035) ** 2)
        )
        wave = wave + 3.5 * np.exp(-(((times - 0.32) / 0.09) ** 2))
        uv = back * wave + rng.normal(0, noise_uv, (len(self.channels), len(times)))
        return {"times_s": times.tolist(), "mean_uv": np.round(uv, 2).tolist()}

    def eeg(
        self,
        first_s: float,
        n: int,
        *,
        gap: bool = False,
        rejected: list[list[float]] | None = None,
    ) -> bytes:
        """A piece of EEG, as its binary frame; a marker at each whole second of it."""
        times = first_s + np.arange(n) / EEG_HZ
        rng = np.random.default_rng([self.seed, round(first_s * EEG_HZ)])
        alpha = (
            9
            * np.sin(2 * np.pi * 10 * times[:, None] + self._phase)
            * (1 + np.sin(times[:, None] * 0.7 + self._phase))
        )
        blink = (
            90
            * np.exp(-((((times[:, None] % 6.3) - 3) / 0.12) ** 2))
            * np.array([max(0.0, c["y"] - 0.4) for c in self.channels])
        )
        uv = (
            alpha
            + blink
            + rng.normal(0, 7, (n, len(self.channels)))
            + 40 * np.sin(times[:, None] * 0.4 + self._phase)
        )
        markers = [
            {"at_s": t, "text": "" if self.is_blind else LABELS[t % len(LABELS)], "trial": t - 960}
            for t in range(math.ceil(times[0] - 1e-9), math.ceil(times[0] + n / EEG_HZ - 1e-9))
        ]
        head = {
            "first_s": first_s,
            "rate_hz": EEG_HZ,
            "n_samples": n,
            "n_channels": len(self.channels),
            "markers": markers,
        }
        head |= {"rejected": rejected or [], "gap_before": gap}
        text = json.dumps(head).encode()
        text += b" " * (-(5 + len(text)) % 4)
        return b"\x01" + struct.pack("<I", len(text)) + text + uv.astype("<f4").tobytes()

    def greeting(self, rights: str = "control") -> list[dict[str, Any] | bytes]:
        """All that a page is told when it has come."""
        said: list[dict[str, Any] | bytes] = [self.hello(rights), self.told()]
        said += [self.trial(i) for i in range(self.trials)]
        said += self.notes()
        if self.trials and self.name not in ("record", "unsure"):
            said.append(self.painting())
        if self.name in ("waiting", "form", "finished"):
            return said
        end = self.now_s - 4.2 if self.name == "lost" else self.now_s
        said += [self.quality(), self.evoked()]
        said.append(self.eeg(end - 12, 700))
        return [*said, self.eeg(end - 4.6, 460, gap=True, rejected=[[end - 2.6, end - 1.6]])]

    def step(self) -> list[dict[str, Any] | bytes]:
        """What the next twentieth of a second brings."""
        piece = self.eeg(self.now_s, round(PIECE_S * EEG_HZ))
        self.now_s = round(self.now_s + PIECE_S, 6)
        said: list[dict[str, Any] | bytes] = [piece]
        tick = round(self.now_s / PIECE_S)
        if tick % 2 == 0:
            said.append(self.told())
        if tick % 20 in (6, 10, 0) and self.state == "ready":
            at = (6, 10, 0).index(tick % 20) + 1
            said.append(self.trial(self.trials, at))
            self.trials += at == 3
        if tick % 20 == 0:
            said += [self.quality(), self.evoked()]
        return said
