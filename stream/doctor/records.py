"""What is on disk: a recording, and the folder that a session left."""

import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from decoder.bundle import open_bundle
from hvf_core.problem import Problem
from index.gallery import open_gallery
from stream.acquire.markers import Marker, MarkerReader
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Trial
from stream.doctor.verdict import FINISH, Named, Verdict, verdict
from stream.pipeline.books.ledger import Ledger, Record
from stream.pipeline.books.summary import read_summary
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import read_config
from stream.sources.settings import ALL
from stream.sources.xdf import recordings_in

if TYPE_CHECKING:
    from stream.sources.recording import Recording

_KILLED = f"it runs still or was killed: {FINISH} makes it whole"


def recording(named: Named) -> Iterator[Verdict]:
    """Whether it opens, fits the bundle, and shows images of the gallery."""
    settings, file = named.settings, named.recording
    if file is None:
        return
    from stream.sources.read import read_recording

    found = read_recording(file, settings.replay or ALL)
    found = found.corrected(settings.channel_map, settings.true_rate_hz)
    reader = MarkerReader(settings.marker_rule)
    events = [reader.read(Marker(one.stamp_s, one.text, one.stamp_s)) for one in found.markers]
    shown = {event.stimulus for event in events if event is not None}
    yield verdict(
        f"recording '{file}': {found.duration_s:.1f} s at {found.rate_hz:g} Hz, "
        f"{found.signal(found.channels)}, {len(found.markers)} markers of {len(shown)} stimuli, "
        f"the channels {' '.join(found.channels)}",
        (not shown, "give the pattern of markers that are stimuli with --stimuli"),
    )
    plan = trial_plan(settings)
    if settings.bundle is not None:
        plan = replace(plan, preprocessing=Preprocessing.of(open_bundle(settings.bundle)))
    try:
        yield from _cut(found, plan)
    except Problem as problem:
        yield Verdict("FAIL", str(problem))
    if settings.gallery is not None:
        gallery = open_gallery(settings.gallery)
        n_known = sum(gallery.row_of(stimulus) is not None for stimulus in shown)
        yield verdict(
            f"{n_known} of its {len(shown)} stimuli are in the gallery",
            (n_known < len(shown), "trials of the others are dropped, see --stimuli"),
        )


def _cut(found: "Recording", plan: TrialPlan) -> Iterator[Verdict]:
    """What would become of its markers, and what a person should know of its units and clocks."""
    from stream.sources.cut_recording import run_through

    trials = TrialStream(found.channels, found.rate_hz, plan, kinds=found.kinds)
    ends = Counter[str]()
    for one in run_through(trials, found):
        if isinstance(one, Trial | Drop):
            ends[one.reason if isinstance(one, Drop) else "cut"] += 1
    yield verdict(
        f"its trials: {_told(ends)}",
        (not ends["cut"], "look at its markers, the window and --stimuli"),
    )
    for notice in (*found.notices, *trials.acquisition.notices):
        yield Verdict("warn", notice)


def session(named: Named) -> Iterator[Verdict]:
    """Whether all of its folder is there and whole, and every marker has its end."""
    if (folder := named.session) is None:
        return
    if not (folder / "config.json").is_file():
        raise Problem(f"'{folder}' has no config.json: give the folder of a session")
    config = read_config(folder / "config.json")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    summary, is_there = read_summary(folder), (folder / "summary.json").is_file()
    yield verdict(
        f"session {config.session}, {size / 1e6:.1f} MB in '{folder}'",
        (not is_there, f"no summary.json, {_KILLED}"),
        (summary is None, f"its summary.json is damaged: {FINISH} makes another"),
    )
    if config.record:
        for file in recordings_in(folder) or [folder / "recording.xdf"]:
            yield from _opens(file)
    with tempfile.TemporaryDirectory() as draft:  # what goes on with a ledger checks every record
        try:
            copy = Path(shutil.copy(folder / "ledger.jsonl", draft))
            records: list[Record] = []
            ledger = Ledger(copy, records.append)
            ledger.close()
        except OSError as error:
            raise Problem(f"its ledger cannot be read ({error.strerror}): {_KILLED}") from None
    if ledger.damage:
        yield Verdict("warn", ledger.damage)
    if summary is not None:
        counts: dict[str, object] = {one: ledger.outcomes[one] for one in ("decoded", "cut")}
        counts |= {"markers": ledger.markers, "dropped": dict(ledger.reasons)}
        if wrong := [name for name, n in counts.items() if summary.get(name) != n]:
            yield Verdict(
                "warn",
                f"summary.json has another number than the ledger of {', '.join(wrong)}: remove "
                f"it, then {FINISH} makes another",
            )
    yield verdict(
        f"{ledger.markers} markers: {_told(ledger.outcomes)}; reasons: {_told(ledger.reasons)}; "
        f"{len(ledger.pending)} without an end",
        (bool(ledger.pending) or not any(r["event"] == "end" for r in records), _KILLED),
    )


def _opens(file: Path) -> Iterator[Verdict]:
    """What is wrong with a recording: it is read as far as it is whole, and what is not, logged."""
    from stream.sources.read import read_recording

    heard: list[str] = []
    ear, sources = logging.Handler(logging.WARNING), logging.getLogger("stream.sources")
    ear.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    sources.addHandler(ear)
    try:
        read_recording(file)
    except Problem as problem:
        heard = []  # that it fails says more
        yield Verdict("FAIL", str(problem))
    finally:
        sources.removeHandler(ear)
    if heard:
        more = f", and {len(heard) - 1} times more" if len(heard) > 1 else ""
        way_out = "was it cut short, or copied in part? All else in it is read"
        yield Verdict("warn", f"{heard[0]}{more}: {way_out}")


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"


CHECKS = (recording, session)
