"""Decodes a session again, offline and from its own recording, and compares the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decoder.brain_encoders import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.evidence import RepeatMean
from decoder.problem import Problem
from index.gallery import load_gallery
from index.search import Search
from offline_train.evaluate import embed
from offline_train.prepare import cut_trials
from stream.acquire.ledger import read_ledger
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.trials import Drop
from stream.pipeline.config import read_config
from stream.sources.recording import read_recording


@dataclass(frozen=True)
class Replayed:
    """Answers of a session, live and offline, trial by trial.

    `live` and `offline` hold the top-k ids, best first, of the trials that both decoded.
    """

    trials: tuple[int, ...]
    live: tuple[tuple[str, ...], ...]
    offline: tuple[tuple[str, ...], ...]
    n_live: int
    n_offline: int

    @property
    def n_equal(self) -> int:
        return sum(a == b for a, b in zip(self.live, self.offline, strict=True))

    @property
    def agrees(self) -> bool:
        """Whether both decoded the same trials, with the same lists in the same order."""
        return self.n_live == self.n_offline == self.n_equal


def evaluate_session(folder: Path) -> Replayed:
    """Cuts, preprocesses and decodes the recording of a session with its bundle and gallery.

    Raises:
        Problem: the session has no bundle or no recording.
    """
    config = read_config(folder / "config.json")
    if config.bundle is None or not (folder / "recording.xdf").exists():
        raise Problem(
            f"the session '{folder}' has no bundle or no recording.xdf; give the folder of a "
            "session that decoded and recorded"
        )
    ledger = read_ledger(folder / "ledger.jsonl")
    live = {entry["trial"]: entry for entry in ledger if entry["event"] == "decoded"}
    offline = _decode(folder / "recording.xdf", config.bundle, config.gallery, config.top_k)
    both = sorted(live.keys() & offline.keys())
    return Replayed(
        trials=tuple(both),
        live=tuple(tuple(live[trial]["ids"]) for trial in both),
        offline=tuple(offline[trial] for trial in both),
        n_live=len(live),
        n_offline=len(offline),
    )


def _decode(
    recording: Path, bundle_path: Path, gallery_path: Path, top_k: int
) -> dict[int, tuple[str, ...]]:
    bundle = load_bundle(bundle_path)
    gallery = load_gallery(gallery_path)
    settings = PreprocessSettings.model_validate(bundle.manifest.preprocessing)
    preprocessing = Preprocessing(settings, bundle.arrays("preprocessing"))
    evidence: dict[str, RepeatMean] = {}
    numbers: list[int] = []
    means: list[np.ndarray] = []
    outcomes = cut_trials(read_recording(recording), preprocessing)
    for outcome in outcomes:
        if isinstance(outcome, Drop):
            continue
        group = evidence.setdefault(outcome.stimulus, RepeatMean())
        numbers.append(outcome.number)
        means.append(group.add(outcome.number, outcome.trial))
    if not means:
        return {}
    z = embed(load_brain_encoder(bundle), np.stack(means))
    _, rows = Search(gallery.embeddings, k=min(top_k, len(gallery))).search(z)
    return dict(zip(numbers, map(tuple, _ids(gallery.ids, rows)), strict=True))


def _ids(ids: Sequence[str], rows: np.ndarray) -> list[list[str]]:
    return [[ids[row] for row in some] for some in rows.tolist()]
