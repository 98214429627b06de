"""The command line of the live system: `python run_realtime.py` runs the demo.

Exits with 0 when everything was decoded or accounted for, 1 when something failed, 2 on wrong
usage, and 130 after Ctrl-C.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from decoder.bundle import Bundle, load_bundle
from decoder.calibration import temperature_of
from decoder.problem import Problem, one_sentence
from stream.acquire.adaptation import Adaptation, AdaptationSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing
from stream.acquire.reject import RejectSettings
from stream.acquire.triggers import TriggerSettings
from stream.pipeline.command_options import (
    ANY_MARKER,
    Adapt,
    BundleFolder,
    Channels,
    Duration,
    EngineOption,
    EvidenceOption,
    Flat,
    GalleryFolder,
    Headless,
    Ignore,
    MinConfidence,
    Out,
    PrecisionOption,
    Reject,
    Rest,
    SaveTrials,
    StartOn,
    Stimuli,
    StopOn,
    TMax,
    TMin,
    Trigger,
    numbers,
)
from stream.pipeline.config import (
    DecodingSettings,
    Endpoints,
    FileSource,
    LiveSource,
    SessionConfig,
    TrialSettings,
)
from stream.pipeline.session import Session, new_session
from stream.pipeline.summary import summary_table
from stream.pipeline.trial_file import check_trial_file

COMMANDS = ("demo", "live", "replay", "streams")

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decodes, from live EEG, which image a person is looking at. Without a command: the demo.",
)
console = Console()


@app.command()
def demo(
    trials: Annotated[int, typer.Option(min=1, help="presentations in all")] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="presentations of each image")] = 1,
    amplitude: Annotated[
        float, typer.Option(min=0.0, help="of the evoked response; 0: nothing to decode")
    ] = 1.0,
    rate: Annotated[float, typer.Option(min=250.0, max=2000.0, help="of the EEG, Hz")] = 250.0,
    soa: Annotated[float, typer.Option(min=0.1, help="seconds between images")] = 1.0,
    tmax: TMax = "",
    evidence: EvidenceOption = "mean",
    min_confidence: MinConfidence = 0.0,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    adapt: Adapt = False,
    headless: Headless = False,
    out: Out = None,
    seed: Annotated[int, typer.Option(help="of the recording: order and noise")] = 0,
) -> None:
    """A simulated subject sees images; every image is decoded as it is seen.

    Example: python run_realtime.py --trials 40 --repeats 4
    """
    # Before torch is loaded: on shared cores, threads that spin while they wait slow training down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from demo.live_subject import schedule
    from demo.model import ready_model

    schedule(trials, repeats, seed)  # refuses numbers that do not fit before anything is trained
    model = ready_model(console)
    command = [sys.executable, "-m", "demo.live_subject", "--wait-for-go", "--name", "hvf-demo"]
    options = {"trials": trials, "repeats": repeats, "amplitude": amplitude, "rate": rate}
    for option, value in (options | {"soa": soa, "seed": seed}).items():
        command += [f"--{option}", str(value)]
    config = _config(
        out,
        source=LiveSource(eeg="hvf-demo", markers="hvf-demo-markers", wait_s=60.0),
        seed=seed,
        **_decoding(
            model.bundle,
            model.gallery,
            None,
            tmax,
            evidence=evidence,
            min_confidence=min_confidence,
            engine=engine,
            precision=precision,
            adaptation=AdaptationSettings() if adapt else None,
        ),
    )
    _run(config, command, headless, trials, "simulated subject", simulated=True)


@app.command()
def live(
    eeg: Annotated[str, typer.Option(help="name of the EEG stream")],
    markers: Annotated[
        str | None, typer.Option(help="name of the marker stream; without one: --trigger")
    ] = None,
    bundle: BundleFolder = None,
    gallery: GalleryFolder = None,
    tmin: TMin = None,
    tmax: TMax = "",
    evidence: EvidenceOption = "mean",
    min_confidence: MinConfidence = 0.0,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    adapt: Adapt = False,
    rest: Rest = None,
    duration: Duration = None,
    wait: Annotated[float, typer.Option(help="for the streams to appear, s")] = 10.0,
    stimuli: Stimuli = ANY_MARKER,
    ignore: Ignore = None,
    start_on: StartOn = None,
    stop_on: StopOn = None,
    trigger: Trigger = None,
    channels: Channels = "",
    reject: Reject = None,
    flat: Flat = None,
    save_trials: SaveTrials = None,
    out: Out = None,
    headless: Headless = False,
) -> None:
    """Decodes streams that are there; without a bundle it cuts, accounts and saves.

    Example: python run_realtime.py live --eeg BrainVision --markers PsychoPy --bundle my-bundle
    """
    if markers is None and trigger is None:
        raise typer.BadParameter("give --markers, or --trigger, or both to compare them")
    config = _config(
        out,
        source=LiveSource(eeg=eeg, markers=markers, wait_s=wait),
        duration_s=duration,
        save_trials=save_trials,
        trigger=TriggerSettings(channel=trigger) if trigger is not None else None,
        marker_rule=MarkerRule(stimulus=stimuli, ignore=ignore, start=start_on, stop=stop_on),
        channel_map=_channel_map(channels),
        reject=RejectSettings(peak_to_peak_uv=reject, flat_uv=flat),
        **_decoding(
            bundle,
            gallery,
            tmin,
            tmax,
            evidence=evidence,
            min_confidence=min_confidence,
            engine=engine,
            precision=precision,
            adaptation=AdaptationSettings() if adapt or rest else None,
            rest=rest.absolute() if rest is not None else None,
        ),
    )
    _run(config, None, headless, None, f"live '{eeg}'")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help=".set .fif .edf .bdf .vhdr .gdf or .xdf")],
    speed: Annotated[
        str, typer.Option(help="1 is the recorded timing; `max`: as fast as it can be decoded")
    ] = "1",
    bundle: BundleFolder = None,
    gallery: GalleryFolder = None,
    tmin: TMin = None,
    tmax: TMax = "",
    evidence: EvidenceOption = "mean",
    min_confidence: MinConfidence = 0.0,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "fp32",
    adapt: Adapt = False,
    rest: Rest = None,
    start: Annotated[float, typer.Option(help="seconds into the recording")] = 0.0,
    duration: Duration = None,
    stim_channel: Annotated[str | None, typer.Option(help="take the markers from it")] = None,
    eeg_stream: Annotated[str | None, typer.Option(help="of an XDF file, by name or id")] = None,
    marker_stream: Annotated[str | None, typer.Option(help="of an XDF file, by name or id")] = None,
    stimuli: Stimuli = ANY_MARKER,
    ignore: Ignore = None,
    start_on: StartOn = None,
    stop_on: StopOn = None,
    channels: Channels = "",
    reject: Reject = None,
    flat: Flat = None,
    save_trials: SaveTrials = None,
    out: Out = None,
    headless: Headless = False,
) -> None:
    """Plays a recording as LSL streams and decodes them; at speed `max`, without LSL.

    Example: python run_realtime.py replay subject01.vhdr --bundle my-bundle --speed 4
    """
    if not file.exists():
        raise Problem(f"there is no file '{file}'; give the path of a recording")
    stop = start + duration if duration is not None else None
    name = "hvf-replay"
    source: Any = LiveSource(eeg=name, markers=f"{name}-markers", wait_s=60.0)
    command = [sys.executable, "-m", "stream.sources.replay", str(file), "--wait-for-go"]
    command += ["--name", name, "--speed", speed, "--start", str(start)]
    command += ["--stop", str(stop)] if stop is not None else []
    picked = {"stim_channel": stim_channel, "eeg_stream": eeg_stream}
    picked = {k: v for k, v in (picked | {"marker_stream": marker_stream}).items() if v is not None}
    for option, value in picked.items():
        command += [f"--{option.replace('_', '-')}", value]
    if speed == "max":
        command = None
        source = FileSource(path=file.absolute(), start_s=start, stop_s=stop, **picked)
    else:
        _check_speed(speed)
    config = _config(
        out,
        source=source,
        save_trials=save_trials,
        realtime=speed != "max" and float(speed) == 1.0,
        marker_rule=MarkerRule(stimulus=stimuli, ignore=ignore, start=start_on, stop=stop_on),
        channel_map=_channel_map(channels),
        reject=RejectSettings(peak_to_peak_uv=reject, flat_uv=flat),
        **_decoding(
            bundle,
            gallery,
            tmin,
            tmax,
            evidence=evidence,
            min_confidence=min_confidence,
            engine=engine,
            precision=precision,
            adaptation=AdaptationSettings() if adapt or rest else None,
            rest=rest.absolute() if rest is not None else None,
        ),
    )
    _run(config, command, headless, None, f"replay '{file.name}'")


@app.command()
def streams(
    wait: Annotated[float, typer.Option(help="for streams to answer, s")] = 1.0,
) -> None:
    """Lists the LSL streams that answer."""
    from stream.acquire.lsl import list_streams

    found = list_streams(wait)
    for stream in found:
        console.print(str(stream), highlight=False)
    if not found:
        console.print(f"no LSL stream answered within {wait:g} s")


def _channel_map(pairs: str) -> dict[str, str]:
    found = dict(pair.split("=", 1) for pair in pairs.split(",") if pair.count("=") == 1)
    if len(found) != len([pair for pair in pairs.split(",") if pair]):
        raise typer.BadParameter(f"'{pairs}' is no list such as EEG1=Pz,EEG2=Oz")
    return found


def _check_speed(speed: str) -> None:
    try:
        valid = float(speed) > 0
    except ValueError:
        valid = False
    if not valid:
        raise typer.BadParameter(f"'{speed}' is neither a positive number nor `max`")


def _decoding(
    bundle: Path | None, gallery: Path | None, tmin: float | None, tmax: str, **settings: Any
) -> dict[str, Any]:
    """The part of the config that says what is cut, and how it is decoded."""
    ends_s = numbers(tmax, "--tmax")
    if bundle is None:
        if len(ends_s) > 1 or settings["adaptation"] is not None:
            raise typer.BadParameter("give --bundle: without one, trials are cut and not decoded")
        defaults = TrialSettings()
        window = TrialSettings(
            tmin_s=defaults.tmin_s if tmin is None else tmin,
            tmax_s=ends_s[0] if ends_s else defaults.tmax_s,
        )
        return {"trials": window}
    from index.gallery import check_space, load_gallery

    opened = load_bundle(bundle)
    manifest = opened.manifest
    if tmin is not None and tmin != manifest.tmin_s:
        raise Problem(
            f"--tmin {tmin:g} is not the window of the bundle '{bundle}', which was trained with "
            f"{manifest.tmin_s:g}; leave --tmin out, or train a bundle for it"
        )
    decoding = DecodingSettings(tmax_s=ends_s, **settings)
    _check_decoding(opened, decoding)
    gallery = gallery or bundle.absolute().parent / "gallery"
    check_space(load_gallery(gallery), manifest.space)
    return {
        "bundle": bundle.absolute(),
        "gallery": gallery.absolute(),
        "decoding": decoding,
    }


def _check_decoding(bundle: Bundle, decoding: DecodingSettings) -> None:
    """Refuses, before anything is started, what this bundle cannot do."""
    manifest = bundle.manifest
    manifest.marks(decoding.tmax_s)
    temperature_of(manifest.calibration, decoding.evidence, manifest.tmax_s, 1)
    if decoding.rest is not None and not decoding.rest.exists():
        raise Problem(f"there is no file '{decoding.rest}'; give the path of a recording")
    if decoding.adaptation is not None:
        Adaptation(Preprocessing.of(bundle), decoding.adaptation)


def _config(out: Path | None, *, save_trials: Path | None = None, **settings: Any) -> SessionConfig:
    if save_trials is not None:
        check_trial_file(save_trials)
        save_trials = save_trials.absolute()
    session, folder = new_session(out)
    return SessionConfig(
        session=session,
        folder=folder,
        endpoints=Endpoints.local(),
        save_trials=save_trials,
        **settings,
    )


def _run(
    config: SessionConfig,
    source: list[str] | None,
    headless: bool,
    n_trials: int | None,
    title: str,
    simulated: bool = False,
) -> None:
    session = Session(
        config, source, console=console, headless=headless, n_trials=n_trials, title=title
    )
    summary = session.run()
    console.print(summary_table(summary, simulated))
    console.print(f"session folder: {config.folder}", highlight=False)
    if session.failure is not None:
        raise Problem(session.failure)
    if session.interrupted:
        raise SystemExit(130)


def main() -> None:
    """Runs a command; a person's mistake ends in one sentence."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in (*COMMANDS, "--help"):
        arguments = ["demo", *arguments]
    with one_sentence():
        app(arguments, prog_name="run_realtime.py")


if __name__ == "__main__":
    main()
