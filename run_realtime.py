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
from hvf_core.problem import Problem, one_sentence
from stream.acquire.adaptation import Adaptation, AdaptationSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing
from stream.acquire.reject import RejectSettings
from stream.acquire.triggers import TriggerSettings
from stream.commands.option_groups import with_option_groups
from stream.commands.options import (
    DecodingOptions,
    ModelOptions,
    PaintingOptions,
    SessionOptions,
    TrialOptions,
    numbers,
)
from stream.pipeline.books.page import REPORT
from stream.pipeline.books.summary import summary_table
from stream.pipeline.nodes.trial_file import check_trial_file
from stream.pipeline.session import Session, new_session
from stream.pipeline.wire.config import (
    DecodingSettings,
    Endpoints,
    FileSource,
    LiveSource,
    PaintingSettings,
    SessionConfig,
    TrialSettings,
)

COMMANDS = ("demo", "live", "replay", "streams")

app = typer.Typer(
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Decodes, from live EEG, which image a person is looking at. Without a command: the demo.",
)
console = Console()


@app.command()
@with_option_groups
def demo(
    *,
    trials: Annotated[int, typer.Option(min=1, help="presentations in all")] = 60,
    repeats: Annotated[int, typer.Option(min=1, help="presentations of each image")] = 1,
    amplitude: Annotated[
        float, typer.Option(min=0.0, help="of the evoked response; 0: nothing to decode")
    ] = 1.0,
    rate: Annotated[float, typer.Option(min=250.0, max=2000.0, help="of the EEG, Hz")] = 250.0,
    soa: Annotated[float, typer.Option(min=0.1, help="seconds between images")] = 1.0,
    decoding: DecodingOptions,
    no_paint: Annotated[bool, typer.Option("--no-paint", help="decode, and paint nothing")] = False,
    painting: PaintingOptions,
    seed: Annotated[int, typer.Option(help="of the recording: order and noise")] = 0,
    session: SessionOptions,
) -> None:
    """A simulated subject sees images; every image is decoded as it is seen, and painted.

    Example: python run_realtime.py --trials 40 --repeats 4
    """
    # Before torch is loaded: on shared cores, threads that spin while they wait slow training down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from demo.live_subject import schedule
    from demo.model import ready_model

    _check_painting(not no_paint, painting, decoding)
    schedule(trials, repeats, seed)  # refuses numbers that do not fit before anything is trained
    model = ready_model(console)
    command = [sys.executable, "-m", "demo.live_subject", "--wait-for-go", "--name", "hvf-demo"]
    options = {"trials": trials, "repeats": repeats, "amplitude": amplitude, "rate": rate}
    for option, value in (options | {"soa": soa, "seed": seed}).items():
        command += [f"--{option}", str(value)]
    models = ModelOptions(
        bundle=model.bundle,
        gallery=model.gallery,
        paint=None if no_paint else model.prior,
        base=str(model.base),
    )
    config = _config(
        session,
        source=LiveSource(eeg="hvf-demo", markers="hvf-demo-markers", wait_s=60.0),
        seed=seed,
        simulated=True,
        **_decoding(models, decoding, painting, seed),
    )
    _run(config, command, session, trials, "simulated subject")


@app.command()
@with_option_groups
def live(
    *,
    eeg: Annotated[str, typer.Option(help="name of the EEG stream")],
    markers: Annotated[
        str | None, typer.Option(help="name of the marker stream; without one: --trigger")
    ] = None,
    trigger: Annotated[
        str | None,
        typer.Option(help="channel of codes in the EEG; beside markers: a cross-check"),
    ] = None,
    models: ModelOptions,
    decoding: DecodingOptions,
    painting: PaintingOptions,
    cut: TrialOptions,
    duration: Annotated[float | None, typer.Option(help="end after this many seconds")] = None,
    wait: Annotated[float, typer.Option(help="for the streams to appear, s")] = 10.0,
    session: SessionOptions,
) -> None:
    """Decodes streams that are there; without a bundle it cuts, accounts and saves.

    Example: python run_realtime.py live --eeg BrainVision --markers PsychoPy --bundle my-bundle
    """
    if markers is None and trigger is None:
        raise typer.BadParameter("give --markers, or --trigger, or both to compare them")
    config = _config(
        session,
        source=LiveSource(eeg=eeg, markers=markers, wait_s=wait),
        duration_s=duration,
        trigger=TriggerSettings(channel=trigger) if trigger is not None else None,
        **_cutting(cut),
        **_decoding(models, decoding, painting, 0),
    )
    _run(config, None, session, None, f"live '{eeg}'")


@app.command()
@with_option_groups
def replay(
    *,
    file: Annotated[Path, typer.Argument(help=".set .fif .edf .bdf .vhdr .gdf or .xdf")],
    speed: Annotated[
        str, typer.Option(help="1 is the recorded timing; `max`: as fast as it can be decoded")
    ] = "1",
    start: Annotated[float, typer.Option(help="seconds into the recording")] = 0.0,
    duration: Annotated[float | None, typer.Option(help="end after this many seconds")] = None,
    stim_channel: Annotated[str | None, typer.Option(help="take the markers from it")] = None,
    eeg_stream: Annotated[str | None, typer.Option(help="of an XDF file, by name or id")] = None,
    marker_stream: Annotated[str | None, typer.Option(help="of an XDF file, by name or id")] = None,
    models: ModelOptions,
    decoding: DecodingOptions,
    painting: PaintingOptions,
    cut: TrialOptions,
    session: SessionOptions,
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
        session,
        source=source,
        realtime=speed != "max" and float(speed) == 1.0,
        **_cutting(cut),
        **_decoding(models, decoding, painting, 0),
    )
    _run(config, command, session, None, f"replay '{file.name}'")


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


def _cutting(cut: TrialOptions) -> dict[str, Any]:
    """The part of the config that says which markers open trials, and what is done with those."""
    if cut.save_trials is not None:
        check_trial_file(cut.save_trials)
    return {
        "marker_rule": MarkerRule(
            stimulus=cut.stimuli, ignore=cut.ignore, start=cut.start_on, stop=cut.stop_on
        ),
        "channel_map": _channel_map(cut.channels),
        "reject": RejectSettings(peak_to_peak_uv=cut.reject, flat_uv=cut.flat),
        "save_trials": cut.save_trials.absolute() if cut.save_trials is not None else None,
    }


def _decoding(
    models: ModelOptions, options: DecodingOptions, painting: PaintingOptions, seed: int
) -> dict[str, Any]:
    """The part of the config that says what window is cut, how it is decoded, and painted."""
    ends_s = numbers(options.tmax, "--tmax")
    _check_painting(models.paint is not None, painting, options)
    adapts = options.adapt or models.rest is not None
    if models.bundle is None:
        if len(ends_s) > 1 or adapts or models.paint is not None:
            raise typer.BadParameter("give --bundle: without one, trials are cut and not decoded")
        defaults = TrialSettings()
        window = TrialSettings(
            tmin_s=defaults.tmin_s if models.tmin is None else models.tmin,
            tmax_s=ends_s[0] if ends_s else defaults.tmax_s,
        )
        return {"trials": window}
    from index.gallery import check_space, load_gallery

    bundle = load_bundle(models.bundle)
    manifest = bundle.manifest
    if models.tmin is not None and models.tmin != manifest.tmin_s:
        raise Problem(
            f"--tmin {models.tmin:g} is not the window of the bundle '{models.bundle}', which was "
            f"trained with {manifest.tmin_s:g}; leave --tmin out, or train a bundle for it"
        )
    decoding = DecodingSettings(
        tmax_s=ends_s,
        evidence=options.evidence,
        min_confidence=options.min_confidence,
        engine=options.engine,
        precision=options.precision,
        adaptation=AdaptationSettings() if adapts else None,
        rest=models.rest.absolute() if models.rest is not None else None,
    )
    _check_decoding(bundle, decoding)
    gallery = models.gallery or models.bundle.absolute().parent / "gallery"
    check_space(load_gallery(gallery), manifest.space)
    return {
        "bundle": models.bundle.absolute(),
        "gallery": gallery.absolute(),
        "decoding": decoding,
        "painting": _painting(models, painting, seed),
    }


def _check_decoding(bundle: Bundle, decoding: DecodingSettings) -> None:
    """Refuses, before anything is started, what this bundle cannot do."""
    manifest = bundle.manifest
    manifest.marks(decoding.tmax_s)
    temperature_of(manifest.calibration, decoding.evidence, manifest.tmax_s, 1)
    if decoding.min_confidence and manifest.calibration is None:
        raise Problem(
            f"--min-confidence {decoding.min_confidence:g} compares probabilities, and the bundle "
            "has no calibration: calibrate it with `python -m offline_train calibrate`, or leave "
            "the option out"
        )
    if decoding.rest is not None and not decoding.rest.exists():
        raise Problem(f"there is no file '{decoding.rest}'; give the path of a recording")
    if decoding.adaptation is not None:
        Adaptation(Preprocessing.of(bundle), decoding.adaptation)


def _check_painting(paints: bool, painting: PaintingOptions, decoding: DecodingOptions) -> None:
    """Refuses options that have no meaning together, before anything is loaded or trained."""
    if not paints and painting != PaintingOptions():
        raise typer.BadParameter("nothing is painted: give --paint, or no options of painting")
    if painting.refine and not decoding.tmax:
        raise typer.BadParameter("--refine begins with a provisional answer: give --tmax 0.3 too")
    if painting.paint_size is not None and painting.paint_size % 8:
        raise typer.BadParameter(f"--paint-size {painting.paint_size} is no multiple of 8")


def _painting(models: ModelOptions, options: PaintingOptions, seed: int) -> PaintingSettings | None:
    if models.paint is None:
        return None
    base = models.base
    if base is not None and Path(base).exists():
        base = str(Path(base).absolute())
    return PaintingSettings(
        prior=models.paint.absolute(),
        base=base,
        steps=options.paint_steps,
        size_px=options.paint_size,
        preview=options.preview,
        refine=options.refine,
        ip_scale=options.ip_scale,
        skip_projector=options.skip_projector,
        from_top=options.from_top,
        seed=seed,
    )


def _config(options: SessionOptions, **settings: Any) -> SessionConfig:
    session, folder = new_session(options.out)
    return SessionConfig(session=session, folder=folder, endpoints=Endpoints.local(), **settings)


def _run(
    config: SessionConfig,
    source: list[str] | None,
    options: SessionOptions,
    n_trials: int | None,
    title: str,
) -> None:
    session = Session(
        config, source, console=console, headless=options.headless, n_trials=n_trials, title=title
    )
    summary = session.run()
    console.print(summary_table(summary))
    console.print(f"session folder: {config.folder}", highlight=False)
    what = "seen, retrieved and painted" if config.painting is not None else "report"
    console.print(f"{what}: {config.folder / REPORT}", highlight=False)
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
