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

from decoder.problem import Problem, one_sentence
from stream.acquire.markers import MarkerRule
from stream.acquire.reject import RejectSettings
from stream.acquire.triggers import TriggerSettings
from stream.pipeline.config import Endpoints, FileSource, LiveSource, SessionConfig, TrialSettings
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

Bundle = Annotated[Path | None, typer.Option(help="folder of a trained bundle")]
Gallery = Annotated[
    Path | None, typer.Option(help="folder of a gallery; `gallery` beside the bundle by default")
]
TMin = Annotated[
    float | None, typer.Option("--tmin", help="start of a trial, s; the bundle's, else -0.2")
]
TMax = Annotated[
    float | None, typer.Option("--tmax", help="end of a trial, s; the bundle's, else 1.0")
]
Duration = Annotated[float | None, typer.Option(help="end after this many seconds")]
Out = Annotated[Path | None, typer.Option(help="session folder; sessions/ID by default")]
Headless = Annotated[bool, typer.Option("--headless", help="a line per answer, no live table")]
SaveTrials = Annotated[
    Path | None, typer.Option(help="write the trials as cut: NAME.npz or NAME-epo.fif")
]
Stimuli = Annotated[
    str, typer.Option(help="regular expression: which markers are stimuli (group `id`: their id)")
]
Ignore = Annotated[str | None, typer.Option(help="markers in which this is found open no trial")]
StartOn = Annotated[str | None, typer.Option(help="open trials only after such a marker ...")]
StopOn = Annotated[str | None, typer.Option(help="... and until such a marker")]
Channels = Annotated[
    str, typer.Option(help="names that differ from the bundle's: MINE=ITS,MINE=ITS")
]
Reject = Annotated[
    float | None, typer.Option(min=0, help="reject trials above this peak to peak, uV")
]
Flat = Annotated[
    float | None, typer.Option(min=0, help="reject trials below this peak to peak, uV")
]
Trigger = Annotated[
    str | None, typer.Option(help="channel of codes in the EEG; beside markers: a cross-check")
]
_ANY_MARKER = MarkerRule().stimulus


@app.command()
def demo(
    trials: Annotated[int, typer.Option(min=1, help="presentations in all")] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="presentations of each image")] = 1,
    amplitude: Annotated[
        float, typer.Option(min=0.0, help="of the evoked response; 0: nothing to decode")
    ] = 1.0,
    rate: Annotated[float, typer.Option(min=250.0, max=2000.0, help="of the EEG, Hz")] = 250.0,
    soa: Annotated[float, typer.Option(min=0.1, help="seconds between images")] = 1.0,
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
        bundle=model.bundle,
        gallery=model.gallery,
        seed=seed,
    )
    _run(config, command, headless, trials, "simulated subject", simulated=True)


@app.command()
def live(
    eeg: Annotated[str, typer.Option(help="name of the EEG stream")],
    markers: Annotated[
        str | None, typer.Option(help="name of the marker stream; without one: --trigger")
    ] = None,
    bundle: Bundle = None,
    gallery: Gallery = None,
    tmin: TMin = None,
    tmax: TMax = None,
    duration: Duration = None,
    wait: Annotated[float, typer.Option(help="for the streams to appear, s")] = 10.0,
    stimuli: Stimuli = _ANY_MARKER,
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
        **_decoding(bundle, gallery, tmin, tmax),
    )
    _run(config, None, headless, None, f"live '{eeg}'")


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help=".set .fif .edf .bdf .vhdr .gdf or .xdf")],
    speed: Annotated[
        str, typer.Option(help="1 is the recorded timing; `max`: as fast as it can be decoded")
    ] = "1",
    bundle: Bundle = None,
    gallery: Gallery = None,
    tmin: TMin = None,
    tmax: TMax = None,
    start: Annotated[float, typer.Option(help="seconds into the recording")] = 0.0,
    duration: Duration = None,
    stim_channel: Annotated[str | None, typer.Option(help="take the markers from it")] = None,
    eeg_stream: Annotated[str | None, typer.Option(help="of an XDF file, by name or id")] = None,
    marker_stream: Annotated[str | None, typer.Option(help="of an XDF file, by name or id")] = None,
    stimuli: Stimuli = _ANY_MARKER,
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
        **_decoding(bundle, gallery, tmin, tmax),
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
    bundle: Path | None, gallery: Path | None, tmin: float | None, tmax: float | None
) -> dict[str, Any]:
    """The part of the config that says what is cut, and by what it is decoded."""
    if bundle is None:
        defaults = TrialSettings()
        window = TrialSettings(
            tmin_s=defaults.tmin_s if tmin is None else tmin,
            tmax_s=defaults.tmax_s if tmax is None else tmax,
        )
        return {"trials": window}
    from decoder.bundle import load_bundle
    from index.gallery import check_space, load_gallery

    manifest = load_bundle(bundle).manifest
    for option, given, own in (
        ("--tmin", tmin, manifest.tmin_s),
        ("--tmax", tmax, manifest.tmax_s),
    ):
        if given is not None and given != own:
            raise Problem(
                f"{option} {given:g} is not the window of the bundle '{bundle}', which was "
                f"trained with {own:g}; leave {option} out, or train a bundle for it"
            )
    gallery = gallery or bundle.absolute().parent / "gallery"
    check_space(load_gallery(gallery), manifest.space)
    return {"bundle": bundle.absolute(), "gallery": gallery.absolute()}


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
