"""A trial as pages show it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stream.client import MarkerSeen, Retrieval

_BEST = 5  # images of an answer that are shown
LabelOf = Callable[[str], str]
"""What people call an image of the gallery, by its id."""


@dataclass
class TrialCard:
    """A marker, and all that has become of it so far."""

    trial: int
    marker: MarkerSeen | None = None
    answers: dict[float, Retrieval] = field(default_factory=dict)
    """By window end."""
    outcome: str = "open"
    reason: str = ""
    painted: str | None = None
    """The file of its painting, below the session's folder."""

    @property
    def final(self) -> Retrieval | None:
        """The answer to the whole trial."""
        return next((one for one in self.answers.values() if not one.answer.provisional), None)

    def told(self, label_of: LabelOf, *, is_timed: bool) -> dict[str, Any]:
        """What is sent; `is_timed` says whether stamps and clock run together."""
        heard = self.marker or next(iter(self.answers.values()), None)
        about = heard.about if heard is not None else None
        stimulus = about.stimulus if about is not None else ""
        return {
            "kind": "trial",
            "trial": self.trial,
            "stimulus": stimulus,
            "group": about.group if about is not None else "",
            "block": about.block if about is not None else 0,
            "repeat": about.repeat if about is not None else 0,
            "onset_s": about.onset_s if about is not None else None,
            "marker": self.marker.text if self.marker is not None else "",
            # Of a blind session the stimulus is "".
            "shown": {"id": stimulus, "label": label_of(stimulus)} if stimulus else None,
            "answers": [_answer(self.answers[tmax_s]) for tmax_s in sorted(self.answers)],
            "outcome": self.outcome,
            "reason": self.reason,
            "latency_ms": self.latency_ms() if is_timed else None,
            "painted": f"/{self.painted}" if self.painted else None,
        }

    def latency_ms(self) -> float | None:
        """From the window's end to the final answer."""
        stamps = self.final.stamps if self.final is not None else {}
        if not {"window_end", "published"} <= stamps.keys():
            return None
        return round((stamps["published"] - stamps["window_end"]) * 1e3, 3)


def _answer(one: Retrieval) -> dict[str, Any]:
    return {
        "tmax_s": one.answer.tmax_s,
        "n_repeats": one.answer.n_repeats,
        "provisional": one.answer.provisional,
        "ids": one.ids[:_BEST],
        "labels": one.labels[:_BEST],
        "probabilities": [round(p, 5) for p in one.probabilities[:_BEST]],
        "confidence": round(one.confidence, 5),
        "calibrated": one.calibrated,
        "abstain": one.abstain,
        "rank": one.rank,
    }
