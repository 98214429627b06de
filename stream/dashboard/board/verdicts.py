"""One word for each part of a session, and the sentence that explains a bad one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from hvf_core.text import some_of
from stream.client import NodeState, StreamHealth
from stream.pipeline.wire.config import LiveSource, SessionConfig
from stream.pipeline.wire.nodes import DECODE, RECORD

Level = Literal["ok", "warn", "bad", "off"]
_SILENT_S = 5.0  # a node says once a second that it is alive
_UNHEARD_S = 2.0  # a reader says once a second how its streams are
_LASTS_S = 2.0  # a player of streams, after its last sample
_STILL_S = 10.0  # a recording that grows is written to the disk more often
_UNSURE_S, _DRIFT_PPM = 0.005, 100.0  # of a clock: beyond, stamps are worth a look
_MB = 1e6


@dataclass(frozen=True)
class Verdict:
    """How a part of the session is."""

    part: str
    level: Level
    word: str
    sentence: str = ""
    """What is wrong and the way out; "" where nothing is."""
    detail: str = ""


@dataclass(frozen=True)
class Files:
    """What the session's folder shows."""

    recording: str | None = None
    """Name of the recording that is written."""
    n_bytes: int = 0
    still_s: float = 0.0
    """For how long it has not grown."""
    has_report: bool = False


@dataclass(frozen=True)
class Seen:
    """What verdicts are about."""

    config: SessionConfig
    now_s: float
    files: Files
    streams: Mapping[str, tuple[StreamHealth, float]]
    """By kind, the last word on each, and when it was heard."""
    nodes: Mapping[str, tuple[NodeState, float]]
    """The last word of each, and when it was heard."""
    painting: tuple[str, str]
    """The last state of the painter, and its detail."""
    n_markers: int
    n_channels: int
    is_ending: bool
    """Whether no more samples are to come."""
    over: str
    """A word for all parts of a session that is not heard; "" while it is."""

    def silent_s(self, node: str) -> float:
        """For how long a node has said nothing, once it was heard."""
        return self.now_s - self.nodes[node][1] if node in self.nodes else 0.0

    def health(self, kind: str) -> StreamHealth | None:
        """How a stream is; once its reader says nothing more, its age is all that is known."""
        if kind not in self.streams:
            return None
        health, heard_s = self.streams[kind]
        silent_s = self.now_s - heard_s
        if silent_s <= _UNHEARD_S:
            return health
        return replace(health, state="unheard", age_s=health.age_s + silent_s)


def verdicts(seen: Seen) -> list[dict[str, Any]]:
    """How all parts are, in the order in which the data moves."""
    told = [_eeg(seen), _markers(seen), _decoder(seen), _painter(seen), _recorder(seen)]
    told.append(_clock(seen))
    if seen.over:  # nothing is wrong any more
        told = [Verdict(one.part, "off", seen.over, detail=one.detail) for one in told]
    return [asdict(one) for one in told]


def _eeg(seen: Seen) -> Verdict:
    health = seen.health("eeg")
    if health is None or health.state == "waiting":
        name = seen.config.source.eeg if isinstance(seen.config.source, LiveSource) else "the file"
        what = f"No sample of '{name}' has come yet: start what streams it, or look at its name."
        return Verdict("EEG", "warn", "waiting", what)
    rate = f"{health.rate_hz:.4g} Hz" if health.rate_hz else ""
    channels = f"{seen.n_channels} ch" if seen.n_channels else ""
    detail = ", ".join(filter(None, (channels, rate, f"{health.gaps} gaps" * bool(health.gaps))))
    if seen.is_ending:
        return Verdict("EEG", "off", _end_of(seen), detail=detail)
    if health.state == "unheard":
        what = (
            f"Nothing was heard of '{health.stream}' for {health.age_s:.1f} s: what reads it, or "
            "reports it, is silent; it is started again by itself, and trials until then are lost."
        )
        return Verdict("EEG", "bad", "unheard", what, detail)
    if health.state == "stalled" and _is_played_out(seen, health):
        return Verdict("EEG", "off", "all is played", detail=detail)
    if health.state in ("stalled", "lost"):
        what = (
            f"'{health.stream}' has sent nothing for {health.age_s:.1f} s: look at the amplifier "
            "and its program; the session goes on by itself when it is back."
        )
        return Verdict("EEG", "bad", health.state, what, detail)
    if bad := [*health.flat, *health.clipped]:
        what = f"{some_of(bad)} without a signal, or at the limits: look at the cap."
        return Verdict("EEG", "warn", "flows", what, detail)
    if health.state == "recovered":
        return Verdict("EEG", "warn", "back", f"'{health.stream}' had been away.", detail)
    return Verdict("EEG", "ok", "flows", detail=detail)


def _is_played_out(seen: Seen, health: StreamHealth) -> bool:
    """Whether a silence is the end of what a session plays, whose player outlasts it."""
    if seen.config.demo is not None:
        return seen.n_markers >= seen.config.demo.trials
    return seen.config.replay is not None and health.age_s < _LASTS_S


def _markers(seen: Seen) -> Verdict:
    detail = f"{seen.n_markers} markers"
    source, health = seen.config.source, seen.health("markers")
    if isinstance(source, LiveSource) and source.markers is None:
        if seen.config.trigger is None:
            return Verdict("markers", "off", "none")
        word: tuple[Level, str] = ("ok", "heard") if seen.n_markers else ("warn", "waiting")
        return Verdict("markers", *word, detail=f"{detail}, of {seen.config.trigger.channel}")
    if seen.is_ending:
        return Verdict("markers", "off", _end_of(seen), detail=detail)
    if health is not None and health.state == "lost":
        what = (
            f"'{health.stream}' answers no more: look at the stimulus program; its markers are "
            "taken again when it is back."
        )
        return Verdict("markers", "bad", "lost", what, detail)
    if not seen.n_markers:
        what = "No marker has come yet: start the stimulus program, or look at its stream's name."
        return Verdict("markers", "warn", "waiting", what)
    return Verdict("markers", "ok", "heard", detail=detail)


def _decoder(seen: Seen) -> Verdict:
    if seen.config.bundle is None:
        return Verdict("decoder", "off", "none", detail="trials are cut")
    if DECODE not in seen.nodes:
        return Verdict("decoder", "warn", "loading")
    if (silent_s := seen.silent_s(DECODE)) > _SILENT_S:
        what = (
            f"The decoder has said nothing for {silent_s:.0f} s: it is started again by itself, "
            "and then answers what waits."
        )
        return Verdict("decoder", "bad", "silent", what)
    return Verdict("decoder", "ok", "answers")


def _painter(seen: Seen) -> Verdict:
    if seen.config.painting is None:
        return Verdict("painter", "off", "none")
    state, detail = seen.painting
    if state == "failed":
        return Verdict("painter", "bad", "failed", f"The last painting failed: {detail}", "")
    words = {"": "loading", "begun": "paints", "preview": "paints", "painted": "ready"}
    return Verdict("painter", "ok" if state else "warn", words.get(state, "ready"))


def _recorder(seen: Seen) -> Verdict:
    if not seen.config.record:
        return Verdict("recorder", "off", "none", detail="record = false")
    files = seen.files
    if files.recording is None:
        return Verdict("recorder", "warn", "waiting", "Nothing is recorded yet.")
    detail = f"{files.n_bytes / _MB:.1f} MB, {files.recording}"
    if (silent_s := seen.silent_s(RECORD)) > _SILENT_S:
        what = (
            f"The recorder has said nothing for {silent_s:.0f} s: it is started again by "
            "itself, into a file of its own, and up to a minute of EEG waits for it."
        )
        return Verdict("recorder", "bad", "silent", what, detail)
    eeg = seen.health("eeg")
    if files.still_s > _STILL_S and eeg is not None and eeg.state == "streaming":
        what = (
            f"'{files.recording}' has not grown for {files.still_s:.0f} s, though the EEG flows: "
            "look whether the disk is full."
        )
        return Verdict("recorder", "bad", "stopped", what, detail)
    return Verdict("recorder", "ok", "records", detail=detail)


def _clock(seen: Seen) -> Verdict:
    health = seen.health("eeg")
    if health is None or not seen.config.realtime:
        return Verdict("clock", "off", "none")
    unsure_s, drift_ppm = health.offset_uncertainty_s, health.drift_ppm or 0.0
    detail = f"{health.offset_s * 1e3:+.2f} ± {unsure_s * 1e3:.2f} ms, {drift_ppm:+.1f} ppm"
    if unsure_s > _UNSURE_S:
        what = "The offset between the clocks is known badly: look at the network, cable over WLAN."
        return Verdict("clock", "warn", "unsure", what, detail)
    if abs(drift_ppm) > _DRIFT_PPM:
        what = "The amplifier's clock runs away from this computer's: `doctor` looks at it."
        return Verdict("clock", "warn", "drifts", what, detail)
    return Verdict("clock", "ok", "steady", detail=detail)


def _end_of(seen: Seen) -> str:
    return "all is played" if seen.config.demo or seen.config.replay else "over"
