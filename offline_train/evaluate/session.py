"""Decodes a session again, offline and from its own recordings, and compares the answers."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from decoder.bundle import load_bundle
from decoder.live import Slice
from hvf_core.problem import Problem, needed
from index.gallery import load_gallery
from stream.acquire.adaptation import Adaptation
from stream.acquire.markers import Event, evidence_group
from stream.acquire.preprocess import Preprocessing
from stream.acquire.slices import Slice as CutSlice
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.trials import Drop
from stream.exports.finished import FinishedSession
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.books.trials_table import TrialRow
from stream.pipeline.decoding import open_decoder
from stream.pipeline.galleries import open_accepted
from stream.pipeline.trials import starting_adaptation, trial_plan
from stream.pipeline.wire.config import read_config
from stream.sources.cut_recording import cut_trials
from stream.sources.recording import Recording
from stream.sources.xdf import recordings_in

_CHANGES = ("gallery", "set", "reset_group")
_NOT_CUT = ("paused", "node_lost")


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
    has_holes: bool = False
    """Whether its reader or recorder died: EEG that was decoded may then be in no recording."""
    damage: str = ""
    """A sentence on lines of the ledger that are damaged: trials without an answer are left out."""

    @property
    def agrees(self) -> bool:
        return not self.different


def evaluate_session(folder: Path) -> Replayed:
    """Cuts, preprocesses and decodes the recordings of a session as it began.

    Trials that were dropped as `paused` or `node_lost` are left out: no recording tells them.

    Raises:
        Problem: it is no session, or has no bundle or no recording.
    """
    if not (folder / "config.json").is_file():
        raise Problem(
            f"'{folder}' is no session's folder, as it has no config.json: give one that `live` or "
            "`replay` has written"
        )
    config = read_config(folder / "config.json").model_copy(update={"folder": folder})
    if config.bundle is None or config.gallery is None or not recordings_in(folder):
        raise Problem(
            f"the session '{folder}' has no bundle, no gallery or no recording.xdf; give the "
            "folder of a session that decoded and recorded"
        )
    damage: list[str] = []
    ledger = read_ledger(folder / "ledger.jsonl", damage.append)
    session = FinishedSession(config, ledger)
    shown = {row["trial"] for row in session.shown}  # those of damaged lines cannot be found
    decoded = (entry for entry in ledger if entry["event"] == "decoded")
    live = {entry["trial"]: entry for entry in decoded if entry["trial"] in shown}
    n_repeats = {trial: entry["n_repeats"] for trial, entry in live.items()}
    offline = _decode(session, n_repeats)
    if damage:
        offline = {trial: ids for trial, ids in offline.items() if trial in live}
    answers = {trial: entry["ids"] for trial, entry in live.items()}
    different = {trial for trial in answers | offline if answers.get(trial) != offline.get(trial)}
    orders = tuple(
        f"{entry['verb']} {entry['argument']}"
        for entry in ledger
        if entry["event"] == "control" and entry["outcome"] == "done" and entry["verb"] in _CHANGES
    )
    return Replayed(
        n_live=len(live),
        n_offline=len(offline),
        n_equal=len(live.keys() - different),
        different=tuple(sorted(different)),
        orders=orders,
        has_holes=len(recordings_in(folder)) > 1
        or any(entry["event"] == "node_lost" for entry in ledger),
        damage="".join(damage),
    )


def _decode(session: FinishedSession, n_repeats: Mapping[int, int]) -> dict[int, list[str]]:
    """Ids of the final answers by trial, from the session's decoder; a trial is a single slice.

    A decoder that was restarted had forgotten the repeats before: `n_repeats` says how many each
    live answer was made of.
    """
    config = session.config
    load_gallery(needed(config.gallery))  # verified, with what was added since
    bundle, gallery = load_bundle(needed(config.bundle)), open_accepted(config)
    decoder = open_decoder(config, bundle, gallery, time.monotonic, lambda text, facts: None)
    preprocessing = Preprocessing.of(bundle)
    adaptation = starting_adaptation(config, preprocessing)
    seen: defaultdict[str, list[Slice]] = defaultdict(list)
    ids = {}
    plan = replace(
        trial_plan(config),
        preprocessing=preprocessing,
        is_known=gallery.__contains__,
        marker_rule=session.marker_rule,
    )
    for told, cut in _trials(session, plan, adaptation):
        number, event = told["trial"], cut.trial.event
        name = evidence_group(event.group, told.get("block") or event.block)
        group = seen[name]
        group.append(Slice(number, name, None, 0, True, cut.array))
        *_, answer = decoder.take(group[-1])
        n_live = n_repeats.get(number, len(group))
        if n_live < answer.ranked.n_repeats:
            decoder.reset_group(name)
            for repeat in group[-n_live:]:
                *_, answer = decoder.take(repeat)
        ids[number] = [gallery.ids[row] for row in answer.ranked.rows]
    return ids


def _trials(
    session: FinishedSession, plan: TrialPlan, adaptation: Adaptation | None
) -> Iterator[tuple[TrialRow, CutSlice]]:
    """The trials in the session's recordings, each with what the ledger says of it."""
    rows = {row["trial"]: row for row in session.shown if row.get("reason") not in _NOT_CUT}
    for recording in session.recordings(lambda sentence: None):
        yield from _trials_in(recording, session, rows, plan, adaptation)


def _trials_in(
    recording: Recording,
    session: FinishedSession,
    rows: Mapping[int, TrialRow],
    plan: TrialPlan,
    adaptation: Adaptation | None,
) -> Iterator[tuple[TrialRow, CutSlice]]:
    def row_of(event: Event) -> TrialRow | None:
        return rows.get(session.trial_of(event, 1 / recording.rate_hz))

    # Not left out of what was cut: adaptation would have learnt from them.
    plan = replace(plan, is_left_out=lambda event: row_of(event) is None)
    for outcome in cut_trials(recording, plan, adaptation):
        if not isinstance(outcome, Drop):
            yield needed(row_of(outcome.trial.event)), outcome
