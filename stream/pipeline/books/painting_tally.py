"""The tally of a session's images: the part `painting` of its summary."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from hvf_core.numbers import percentiles

# From one stamp of an image to another.
SPANS = {
    "first_preview_ms": ("readable", "first_preview"),
    "image_ms": ("readable", "published"),
    "paint_ms": ("taken", "painted"),
}
SPAN_NAMES = {
    "first_preview_ms": "· last sample → preview",
    "image_ms": "· last sample → image",
    "paint_ms": "· of which painting",
}
COUNTS = ("painted", "cancelled", "superseded", "failed")
_WEIGHT = {"begun": 0, "cancelled": 1, "failed": 2, "painted": 3}


class PaintingTally:
    """Adds up what the painter reports.

    `cancelled` trials were begun and gave way to a newer one, `superseded` ones were never begun. A
    trial counts once, for the most that came of it: with refinement it has several images.
    """

    def __init__(self) -> None:
        self._states: dict[int, str] = {}
        self._spans_ms: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, trial: int, state: str) -> None:
        """Adds that a trial was `begun`, `cancelled` or `failed`."""
        if _WEIGHT[state] >= _WEIGHT[self._states.get(trial, "begun")]:
            self._states[trial] = state

    def add_image(self, trial: int, image: Mapping[str, Any]) -> None:
        """Adds a finished image; times are those of final ones."""
        self.add(trial, "painted")
        if image["provisional"]:
            return
        stamps = image["stamps"]
        for name, (start, end) in SPANS.items():
            if start in stamps and end in stamps:
                self._spans_ms[name].append((stamps[end] - stamps[start]) * 1e3)

    def summary(self, n_decoded: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers for the summary; the four counts add up to the trials that were decoded.

        Args:
            n_decoded: trials that had an embedding to paint.
            facts: what the painter said of itself.
        """
        counts = Counter(self._states.values())
        return {
            "painted": counts["painted"],
            "cancelled": counts["cancelled"],
            "superseded": max(0, n_decoded - len(self._states)),
            # What was begun and not heard of again died with its painter.
            "failed": counts["failed"] + counts["begun"],
            **{name: percentiles(values) for name, values in self._spans_ms.items()},
            **facts,
        }
