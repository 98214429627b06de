"""What a session comes to: the numbers of summary.json, and the one table a person wants to see."""

import hashlib
import platform
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from stream.acquire.ledger import Ledger
from stream.pipeline.config import SessionConfig

# Stage: from one stamp to another.
STAGES = {
    "lsl": ("last_sample", "readable"),
    "cut": ("readable", "cut"),
    "hop": ("cut", "received"),
    "embed": ("received", "embedded"),
    "search": ("embedded", "searched"),
    "publish": ("searched", "published"),
    "total": ("readable", "published"),
}
_STAGE_NAMES = {
    "lsl": "· sampled → readable (LSL)",
    "cut": "· cut, preprocess",
    "hop": "· to the decoder",
    "embed": "· embed",
    "search": "· search",
    "publish": "· publish",
    "total": "last sample → answer",
}
_LIVE_STAGES = {"lsl"}  # need stamps that run with the clock
_PACKAGES = ("hvf-live", "torch", "faiss-cpu", "numpy", "pylsl", "pyzmq", "mne")


class Tally:
    """Adds up the answers of a session as they come."""

    def __init__(self, config: SessionConfig, n_way: int):
        self._config = config
        self._n_way = n_way
        self._ranks: defaultdict[int, list[int]] = defaultdict(list)  # by number of repeats
        self._latency_ms: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, rank: int, n_repeats: int, stamps: Mapping[str, float]) -> None:
        """Adds an answer; rank 0 means that what was shown is not in the gallery."""
        if rank:
            self._ranks[n_repeats].append(rank)
        self.add_latency(stamps)

    def add_latency(self, stamps: Mapping[str, float]) -> None:
        for stage, (start, end) in STAGES.items():
            if start in stamps and end in stamps:
                if stage in _LIVE_STAGES and not self._config.realtime:
                    continue
                self._latency_ms[stage].append((stamps[end] - stamps[start]) * 1e3)

    def summary(self, ledger: Ledger, end: str) -> dict[str, Any]:
        """All of `summary.json`."""
        ranks = [rank for some in self._ranks.values() for rank in some]
        return {
            "session": self._config.session,
            "end": end,
            "markers": ledger.markers,
            "decoded": ledger.outcomes["decoded"],
            "cut": ledger.outcomes["cut"],
            "dropped": dict(sorted(ledger.reasons.items())),
            "n_way": self._n_way,
            "n": len(ranks),
            "top1": _top(ranks, 1),
            "top5": _top(ranks, 5),
            "chance": 1 / self._n_way if self._n_way else None,
            "by_repeats": {
                str(n): {"n": len(some), "top1": _top(some, 1), "top5": _top(some, 5)}
                for n, some in sorted(self._ranks.items())
            },
            "latency_ms": {
                stage: _percentiles(values) for stage, values in self._latency_ms.items()
            },
            "seed": self._config.seed,
            "bundle": _checksum(self._config.bundle, "bundle.json"),
            "gallery": _checksum(self._config.gallery, "gallery.json"),
            "versions": {"python": platform.python_version()}
            | {package: version(package) for package in _PACKAGES},
        }


def _top(ranks: list[int], k: int) -> float | None:
    return sum(rank <= k for rank in ranks) / len(ranks) if ranks else None


def _percentiles(values: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    rounded = {"p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {name: round(float(value), 4) for name, value in rounded.items()}


def _checksum(folder: Path | None, manifest: str) -> str | None:
    """SHA-256 of the manifest, which holds those of all other files."""
    return hashlib.sha256((folder / manifest).read_bytes()).hexdigest() if folder else None


def summary_table(summary: Mapping[str, Any], simulated: bool) -> Table:
    """The table at the end of a session."""
    table = Table(
        title=f"Session {summary['session']}" + (" (simulated subject)" if simulated else ""),
        show_header=False,
        title_justify="left",
    )
    table.add_column(style="bold")
    table.add_column()
    table.add_row("markers", _accounted(summary))
    if summary["n"]:
        table.add_row(f"{summary['n_way']}-way", f"n = {summary['n']}")
        chance = summary["chance"]
        five = min(5, summary["n_way"])
        table.add_row("top-1", f"{summary['top1']:.1%}   (chance {chance:.1%})")
        table.add_row(f"top-{five}", f"{summary['top5']:.1%}   (chance {chance * five:.1%})")
        if len(summary["by_repeats"]) > 1:
            for n, row in summary["by_repeats"].items():
                label = f"· with {n} repeat" + "s" * (n != "1")
                table.add_row(
                    label, f"top-1 {row['top1']:.1%}, top-5 {row['top5']:.1%}, n {row['n']}"
                )
    for stage, values in summary["latency_ms"].items():
        text = f"p50 {values['p50']:.2f} ms   p99 {values['p99']:.2f} ms"
        table.add_row(_STAGE_NAMES[stage], text, style="bold" if stage == "total" else None)
    return table


def _accounted(summary: Mapping[str, Any]) -> str:
    counts = Counter(decoded=summary["decoded"], cut=summary["cut"])
    parts = [f"{n} {what}" for what, n in counts.items() if n]
    parts += [f"{n} dropped ({reason})" for reason, n in summary["dropped"].items()]
    return f"{summary['markers']} = " + (" + ".join(parts) or "0")
