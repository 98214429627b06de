"""The tally of a session's images: the part `painting` of its summary."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, MutableSequence
from typing import Any, NamedTuple, TypeVar

from hvf_core.numbers import percentiles

Key = TypeVar("Key")


class Span(NamedTuple):
    """From one stamp to another, as a person calls it."""

    name: str
    start: str
    end: str


SPANS = {
    "first_preview_ms": Span("· window's end → preview", "window_end", "first_preview"),
    "image_ms": Span("· window's end → image", "window_end", "published"),
    "paint_ms": Span("· of which painting", "taken", "painted"),
}
_WEIGHT = {"begun": 0, "cancelled": 1, "failed": 2, "painted": 3}


Numbers = MutableSequence[float]


def numbers() -> Numbers:
    """As many as a session has trials, in a quarter of the memory of a list."""
    return array("d")


def add_spans(
    spans: Mapping[Key, Span], stamps: Mapping[str, float], to_ms: defaultdict[Key, Numbers]
) -> None:
    """Adds how long each span took that has both its stamps."""
    for key, (_, start, end) in spans.items():
        if start in stamps and end in stamps:
            to_ms[key].append((stamps[end] - stamps[start]) * 1e3)


class PaintingTally:
    """Adds up what the painter reports.

    `cancelled` trials were begun and gave way to a newer one, `superseded` ones were never begun. A
    trial counts once, for the most that came of it: with refinement it has several images.

    Args:
        is_timed: whether anything is waited for; not so in virtual time, where trials wait.
    """

    def __init__(self, is_timed: bool = True) -> None:
        self._spans = SPANS if is_timed else {"paint_ms": SPANS["paint_ms"]}
        self._states: dict[int, str] = {}
        self._spans_ms: defaultdict[str, Numbers] = defaultdict(numbers)

    def add(self, trial: int, state: str) -> None:
        """Adds that a trial was `begun`, `cancelled` or `failed`."""
        if _WEIGHT[state] >= _WEIGHT[self._states.get(trial, "begun")]:
            self._states[trial] = state

    def add_image(self, trial: int, image: Mapping[str, Any]) -> None:
        """Adds a finished image; times are those of final ones."""
        self.add(trial, "painted")
        if not image["provisional"]:
            add_spans(self._spans, image["stamps"], self._spans_ms)

    def summary(self, n_decoded: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers for the summary; the four counts add up to the trials that were decoded.

        Args:
            n_decoded: trials that had an embedding to paint.
            facts: what the painter said of itself.
        """
        counts = Counter(self._states.values())
        return {
            **{name: fact for name, fact in facts.items() if name not in SPANS},
            "painted": counts["painted"],
            "cancelled": counts["cancelled"],
            "superseded": max(0, n_decoded - len(self._states)),
            # What was begun and not heard of again died with its painter.
            "failed": counts["failed"] + counts["begun"],
            **{name: percentiles(values) for name, values in self._spans_ms.items()},
        }
