"""Whether a long session of RSVP loses nothing, keeps its order and its pace, and does not grow.

`run_realtime.py bench endurance`: images follow each other faster than their windows end, so that
ten of them are open at a time. Each has to be answered once, in order, and the reader must not fall
behind its stream. With the channels of the demo its bundle decodes; with others an untrained one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from demo.head import CHANNELS
from demo.model import DemoModel, ready_model
from demo.settings import PREPROCESSING
from hvf_core.numbers import percentiles
from hvf_core.screen import Screen
from index.gallery import open_gallery
from stream.bench.endurance.promises import Promise, all_kept, append_json, growth, is_flat, table
from stream.bench.machine import header, load, machine
from stream.bench.measured_session import (
    LSL_CLIENT,
    SUBSCRIBER,
    WAY,
    MeasuredSession,
    measure_session,
)
from stream.bench.paths import check_file, workplace
from stream.bench.streams import RunningSource, Source
from stream.bench.untrained import random_gallery, untrained_bundle
from stream.pipeline.wire.nodes import SOURCE

_BEHIND_S = 0.1  # that the reader may fall behind in the second half of the trials
_WARM_UP = 20  # trials
_DIM, _N_IMAGES = 512, 200


def models(channels: int, folder: Path) -> DemoModel:
    """The demo's bundle and gallery, or untrained ones for streams of so many channels.

    Preprocessing takes all of them, and the network the last ones, as many as the demo's does.
    """
    if channels == len(CHANNELS):
        return ready_model()
    labels = names(channels)
    decoded = labels[-len(PREPROCESSING.output_channels) :]
    changes = {"channels": labels, "output_channels": decoded, "reference": "none"}
    settings = PREPROCESSING.model_copy(update=changes)
    bundle = untrained_bundle(folder / "bundle", settings, _DIM)
    random_gallery(folder / "gallery", bundle, _N_IMAGES)
    return DemoModel(folder / "bundle", folder / "gallery")


def names(channels: int) -> tuple[str, ...]:
    """Labels of so many channels: those of the demo, and others."""
    others = (f"X{number}" for number in range(len(CHANNELS), channels))
    return (*CHANNELS[:channels], *others)


def promises(measured: MeasuredSession, soa_s: float) -> Iterator[Promise]:
    """What was promised of a session in which nothing broke."""
    shown, summary = measured.n_shown, measured.summary
    yield Promise("no trial lost", measured.n_lost == 0, f"{measured.n_lost} of {shown} lost")
    yield Promise("none answered twice", measured.n_twice == 0, f"{measured.n_twice} twice")
    came = [one.trial for one in measured.answers if not one.provisional]
    n_back = int((np.diff(came) < 0).sum())
    yield Promise("answers in order", n_back == 0, f"{n_back} of {len(came)} before an earlier one")
    told = {name: summary.get(name) for name in ("markers", "decoded", "dropped")}
    sums = told == {"markers": shown, "decoded": shown, "dropped": {}}
    yield Promise("the ledger's sums", sums, ", ".join(f"{n} {what}" for what, n in told.items()))
    finals = measured.finals
    transit_s = np.array([m["readable"] - m["pushed"] for m in (one.moments for one in finals)])
    found = growth(np.arange(len(finals)), transit_s)
    behind_s = found.low * len(finals) / 2 if found else 0.0
    most = f"at most {1e3 * transit_s.max(initial=0):.0f} ms from push to reader"
    yield Promise("the reader keeps up", behind_s <= _BEHIND_S and len(finals) > 0, most)
    for name, usage in measured.usage.items():
        if name not in (SOURCE, SUBSCRIBER, LSL_CLIENT):
            yield from is_flat(name, usage.at, soa_s)


def main(
    trials: Annotated[int, typer.Option(min=20)] = 5000,
    channels: Annotated[int, typer.Option(min=1)] = len(CHANNELS),
    rate: Annotated[float, typer.Option(min=1, help="Hz")] = 1000.0,
    soa: Annotated[float, typer.Option(min=0.02, help="seconds from image to image")] = 0.1,
    chunk: Annotated[int, typer.Option(min=1, help="samples of a push")] = 1,
    keep: Annotated[Path | None, typer.Option(help="where the session is kept")] = None,
    json: Annotated[Path | None, typer.Option(help="gets all of it, as a line")] = None,
) -> None:
    """Shows a subject many images fast, and prints each promise; 1 if one was broken."""
    check_file(json)
    with workplace("endurance-", keep) as base:
        told = _endured(base, trials, channels, rate, soa, chunk, json)
    raise SystemExit(not all_kept(told))


def _endured(
    base: Path,
    trials: int,
    channels: int,
    rate: float,
    soa: float,
    chunk: int,
    json: Path | None,
) -> list[Promise]:
    model = models(channels, base)
    facts = {"bench": "endurance", "trials": trials, "channels": channels, "rate_hz": rate}
    facts |= {"soa_s": soa, "chunk": chunk, "machine": machine(model.bundle, model.gallery)}
    Screen().print(header(machine()), highlight=False)
    ids = open_gallery(model.gallery).ids
    labels = names(channels)
    source = Source(base.name, rate, labels, soa, chunk, shown=tuple(ids))
    with RunningSource(source, markers=False) as running:
        measured = measure_session(
            running, *(model.bundle, model.gallery), trials, base / "session",
            n_warm_up=_WARM_UP, lsl_client=False,
        )  # fmt: skip
    kept = [*promises(measured, soa)]
    took_ms = percentiles(measured.took_ms().tolist())
    cpu = {name: round(usage.cpu, 3) for name, usage in measured.usage.items()}
    typer.echo(f"{trials} trials, {channels} channels at {rate:g} Hz, an image every {soa:g} s")
    typer.echo(table(kept))
    typer.echo(f"{' to '.join(WAY)}, ms: " + ", ".join(f"{k} {v:.2f}" for k, v in took_ms.items()))
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in cpu.items())
    typer.echo(f"of a core: {shares}; the session's {100 * measured.cpu:.0f} %; load {load():g}")
    append_json(json, kept, facts | {"cpu": cpu, "latency_ms": took_ms, "load_after": load()})
    return kept
