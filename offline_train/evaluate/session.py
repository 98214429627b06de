"""Decodes a session again, offline and from its own recording, and compares the answers."""

import time
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from decoder.bundle import load_bundle
from decoder.live import Slice
from hvf_core.problem import Problem, needed
from index.gallery import load_gallery
from stream.acquire.markers import evidence_group
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trials import Drop
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.decoding import open_decoder
from stream.pipeline.galleries import open_accepted
from stream.pipeline.trials import starting_adaptation, trial_plan
from stream.pipeline.wire.config import SessionConfig, read_config
from stream.sources.cut_recording import cut_trials
from stream.sources.read import read_recording

_CHANGES = ("gallery", "set", "reset_group")


@dataclass(frozen=True)
class Replayed:
    """How many trials of a session were decoded, live and offline."""

    n_live: int
    n_offline: int
    n_equal: int
    """With the same top-k ids in the same order."""
    different: tuple[int, ...] = ()
    """The others' numbers, in order, of trials with an answer live or offline only too."""
    orders: tuple[str, ...] = ()
    """That changed how the session decoded while it ran; they are not obeyed again."""
    damage: str = ""
    """A sentence on lines of the ledger that are damaged: trials without an answer are left out."""

    @property
    def agrees(self) -> bool:
        return not self.different


def evaluate_session(folder: Path) -> Replayed:
    """Cuts, preprocesses and decodes the recording of a session as it began.

    Trials that were dropped as `paused` are paused again: the recording does not tell them.

    Raises:
        Problem: it is no session, or has no bundle or no recording.
    """
    if not (folder / "config.json").is_file():
        raise Problem(
            f"'{folder}' is no session's folder, as it has no config.json: give one that `live` or "
            "`replay` has written"
        )
    config = read_config(folder / "config.json")
    recording = folder / "recording.xdf"
    if config.bundle is None or config.gallery is None or not recording.exists():
        raise Problem(
            f"the session '{folder}' has no bundle, no gallery or no recording.xdf; give the "
            "folder of a session that decoded and recorded"
        )
    damage: list[str] = []
    ledger = read_ledger(folder / "ledger.jsonl", damage.append)
    live = {entry["trial"]: entry for entry in ledger if entry["event"] == "decoded"}
    n_repeats = {trial: entry["n_repeats"] for trial, entry in live.items()}
    paused = {entry["trial"] for entry in ledger if entry.get("reason") == "paused"}
    offline = _decode(recording, config, n_repeats, paused)
    if damage:
        offline = {trial: ids for trial, ids in offline.items() if trial in live}
    answers = {trial: entry["ids"] for trial, entry in live.items()}
    different = {trial for trial in answers | offline if answers.get(trial) != offline.get(trial)}
    orders = tuple(
        f"{entry['verb']} {entry['argument']}"
        for entry in ledger
        if entry["event"] == "control" and entry["outcome"] == "done" and entry["verb"] in _CHANGES
    )
    n_equal = len(live.keys() - different)
    told = tuple(sorted(different))
    return Replayed(len(live), len(offline), n_equal, told, orders, "".join(damage))


def _decode(
    recording: Path, config: SessionConfig, n_repeats: Mapping[int, int], paused: Set[int]
) -> dict[int, list[str]]:
    """Ids of the final answers by trial, from the session's decoder; a trial is a single slice.

    A decoder that was restarted had forgotten the repeats before: `n_repeats` says how many each
    live answer was made of.
    """
    load_gallery(needed(config.gallery))  # verified, with what was added since
    bundle, gallery = load_bundle(needed(config.bundle)), open_accepted(config)
    preprocessing = Preprocessing.of(bundle)
    decoder = open_decoder(config, bundle, gallery, time.monotonic, lambda text, facts: None)
    adaptation = starting_adaptation(config, preprocessing)
    seen: defaultdict[str, list[Slice]] = defaultdict(list)
    ids = {}
    plan = replace(
        trial_plan(config),
        preprocessing=preprocessing,
        is_known=gallery.__contains__,
        paused=paused,  # not left out of what was cut: adaptation would have learnt from them
    )
    for outcome in cut_trials(read_recording(recording), plan, adaptation):
        if isinstance(outcome, Drop):
            continue
        trial = outcome.trial
        name = evidence_group(trial.event.group, trial.event.block)
        group = seen[name]
        group.append(Slice(trial.number, name, None, 0, True, outcome.array))
        *_, answer = decoder.take(group[-1])
        n_live = n_repeats.get(trial.number, len(group))
        if n_live < answer.ranked.n_repeats:
            decoder.reset_group(name)
            for repeat in group[-n_live:]:
                *_, answer = decoder.take(repeat)
        ids[trial.number] = [gallery.ids[row] for row in answer.ranked.rows]
    return ids
