"""`adapt`: some minutes before a session, what is to be known of today's cap."""

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decoder.calibration import CALIBRATE
from hvf_core.options import Asked, onward, with_settings
from hvf_core.problem import SIGNALLED, WrongUsage, needed
from stream.pipeline.wire.config import SessionSettings

if TYPE_CHECKING:
    from stream.acquire.adapted import Adapted, Compared
    from stream.sources.recording import Recording

_USUAL_S = 180.0


@with_settings(
    SessionSettings,
    *("source.eeg", "source.markers", "source.wait_s"),
    *("replay.start_s", "replay.stim_channel", "replay.eeg_stream", "replay.marker_stream"),
    *("marker_rule", "channel_map", "true_rate_hz", "reject", "trigger", "bundle", "gallery"),
    "duration_s",
)
def adapt(
    asked: Asked[SessionSettings],
    file: Annotated[
        Path | None, typer.Argument(help="A recording, in place of streams that are there now")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write")] = Path("adapted"),
) -> None:
    """Learns today's cap from three minutes of trials, for `live --adapted`.

    Where the gallery has what is shown, it also fits how sure answers may be, and says how right
    they are; with a photodiode's channel as --trigger, how late the screen is.

    Example: python run_realtime.py adapt --eeg BrainVision --markers PsychoPy --bundle my-bundle
    """
    from decoder.bundle import MANIFEST as BUNDLE
    from decoder.bundle import load_bundle
    from hvf_core.artifact import file_sha256, refuse_foreign
    from hvf_core.provenance import command_line
    from hvf_core.screen import Screen
    from index.gallery import load_gallery
    from offline_train.brain.person.adapt import fit_today
    from offline_train.brain.person.today import cut_today
    from stream.acquire.adapted import MANIFEST, Adapted, save_adapted
    from stream.acquire.preprocess import Preprocessing
    from stream.acquire.settings import AdaptationSettings

    settings = asked.settings()
    place = _bundle_of(settings, file)
    refuse_foreign(out, MANIFEST)
    bundle = load_bundle(place)
    among = settings.gallery or place.parent / "gallery"
    gallery = load_gallery(among) if settings.gallery or among.is_dir() else None
    console = Screen(highlight=False)
    with tempfile.TemporaryDirectory() as draft:
        if file is None:
            file = _recorded(settings, Path(draft) / "today.xdf")
        made = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        with console.status("cutting"):
            recording = _read(file, settings)
            cut = cut_today(recording, settings, Preprocessing.of(bundle))
    console.print(cut.sentence(), soft_wrap=True)
    with console.status("adapting"):
        today = fit_today(bundle, gallery, cut.trials, cut.stimuli, AdaptationSettings())
    adapted = Adapted(
        created_by=command_line(),
        made=made,
        bundle=file_sha256(place / BUNDLE),
        channels=recording.channels,
        rate_hz=recording.rate_hz,
        n_trials=int(today.state["counts"][0]),
        n_labelled=today.n_labelled,
        temperature=today.temperature,
        light_s=cut.light_s,
        compared=today.compared,
        simulated=recording.simulated,
    )
    save_adapted(out, adapted, today.state)
    doubts = [*_doubts(adapted, cut.flat, bundle.manifest.calibration is not None, today.is_chance)]
    for sentence in _told(adapted, doubts, today.is_chance, settings, out):
        console.print(sentence, soft_wrap=True)


def _bundle_of(settings: SessionSettings, file: Path | None) -> Path:
    """The bundle that is named, where all else is that there is to say."""
    source = settings.source
    if settings.bundle is None:
        raise WrongUsage("give --bundle: what is adapted is how a bundle sees today's cap")
    if (file is None) == (source is None):
        raise WrongUsage("give a recording, or --eeg and --markers of streams: one of the two")
    if source is not None and source.markers is None and settings.trigger is None:
        raise WrongUsage("give --markers, or --trigger, or both to measure when the light comes")
    return settings.bundle


def _recorded(settings: SessionSettings, path: Path) -> Path:
    """Records the streams for a while; Ctrl-C ends the command, and nothing is made."""
    from hvf_core.screen import Screen
    from stream.acquire.lsl import find_stream
    from stream.recorder.run import record
    from stream.recorder.settings import RecordSettings
    from stream.recorder.view import View

    source = needed(settings.source)
    names = tuple(filter(None, (source.eeg, source.markers)))
    for name in names:  # whose sentences are those of `live`
        find_stream(name, source.wait_s)
    duration_s = settings.duration_s or _USUAL_S
    wanted = RecordSettings(streams=(), require=names, duration_s=duration_s)
    view = View(Screen(), headless=False, title=f"listening for {duration_s:g} s")
    made = record(wanted, path, view, lambda: True)
    if made.ended_by:
        raise SystemExit(SIGNALLED + made.ended_by)
    return path


def _read(file: Path, settings: SessionSettings) -> "Recording":
    from stream.sources.read import read_recording
    from stream.sources.settings import ReadSettings

    how, source = settings.replay or ReadSettings(), settings.source
    if source is not None:
        how = ReadSettings(eeg_stream=source.eeg, marker_stream=source.markers)
    found = read_recording(file, how)
    return found.corrected(settings.channel_map, settings.true_rate_hz)


def _told(
    adapted: "Adapted",
    doubts: Sequence[str],
    is_chance: bool,
    settings: SessionSettings,
    out: Path,
) -> Iterator[str]:
    """What a person reads of it, line by line, and what comes next."""
    yield f"{adapted.sentence()}; without it, and with it on trials it was not fitted to:"
    simulated = " (simulated)" if adapted.simulated else ""
    for one in adapted.compared:
        yield f"  {_figure(one)}{simulated}"
    yield from doubts
    more: list[object] = ["--adapted", out]
    worse = _worse(adapted.compared)
    if worse:
        yield f"worse with it than without, beyond chance: {', '.join(worse)}; begin without it"
    if worse or is_chance:
        light_s, shift_s = adapted.light_s, settings.marker_rule.shift_s
        more = [] if light_s is None else ["--shift", f"{shift_s + light_s:.4f}"]
    if settings.gallery is not None:
        more += ["--gallery", settings.gallery]
    source = settings.source
    known = {} if source is None else {"eeg": source.eeg, "markers": source.markers}
    yield onward("live", *more, bundle=settings.bundle, **known)


def _figure(one: "Compared") -> str:
    scale, unit, points = (100, " %", " points") if one.what.startswith("top-") else (1, "", "")

    def value(of: tuple[float, float, float], unit: str) -> str:
        return f"{scale * of[0]:.3g}{unit} ({scale * of[1]:.3g} to {scale * of[2]:.3g})"

    before, after = value(one.before, unit), value(one.after, unit)
    difference = value(one.difference, points)
    return f"{one.what}: {before}, {after}; difference {difference}; n = {one.n} trials"


def _worse(compared: Sequence["Compared"]) -> list[str]:
    """What is worse with it, beyond chance: of answers, or of the covariance without these."""
    covariance, *answers = compared
    if not answers:
        return [covariance.what] if covariance.difference[1] > 0 else []
    return [one.what for one in answers if one.difference[2] < 0]


def _doubts(
    adapted: "Adapted", flat: Sequence[str], is_calibrated: bool, is_chance: bool
) -> Iterator[str]:
    """What does not move, or was not fitted, and why."""
    from offline_train.brain.person.adapt import ENOUGH

    if flat:
        yield f"{', '.join(flat)} never moved: look at the electrodes, and run `adapt` again"
    if not adapted.n_labelled:
        yield "the gallery has none of the images that were shown: how right answers are is unknown"
    elif not is_calibrated:
        yield f"temperatures are as they were, as the bundle has none: {CALIBRATE}"
    elif is_chance:
        yield (
            "answers tell nothing apart under this cap, as the right image is no likelier than by "
            "chance: temperatures are as they were, and too sure; look at cap and markers with "
            "`doctor`, and run `adapt` again"
        )
    elif adapted.temperature is None:
        yield f"temperatures are as they were, as fewer than {ENOUGH} known images were shown"
