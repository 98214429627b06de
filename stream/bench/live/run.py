"""`bench`, or `bench live`: measures the certificate of this machine, and tells what it found."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from rich import box
from rich.table import Table

from decoder.bundle import open_bundle
from decoder.engines.choice import ON_CPU, PASSES
from demo.model import ready_model
from hvf_core.options import Asked, Flag, with_settings
from hvf_core.problem import WrongUsage
from hvf_core.screen import Screen
from index.gallery import open_gallery
from stream.bench.live.cells import Setup, setups
from stream.bench.live.compare import compared, told
from stream.bench.live.figures import Cell
from stream.bench.live.files import CERTIFICATE, PAGE, Results, read_certificate
from stream.bench.live.measure import MOMENTS, Bench
from stream.bench.live.page import write_page
from stream.bench.live.settings import LiveBenchSettings
from stream.bench.live.tables import TableOf, as_markdown, busy, sentence, tables
from stream.bench.machine import header, machine

_START_S = 12.0  # of a session, about: its start, warm-up and end
_NO_TIME = "the time was up; give it more with --minutes"


@with_settings(LiveBenchSettings)
def main(
    asked: Asked[LiveBenchSettings],
    quick: Annotated[bool, Flag("--quick", help="A look of about a minute")] = False,
    tiny: Annotated[bool, Flag("--tiny", help="A few trials, to see that it runs")] = False,
    markdown: Annotated[bool, Flag("--markdown", help="Print the tables as Markdown")] = False,
) -> None:
    """Certifies how late a live session answers on this machine, and what it may run.

    Example: python run_realtime.py bench live --compare certificate-1/certificate.jsonl
    """
    settings = asked.settings()
    if (settings.eeg is None) != (settings.markers is None):
        raise WrongUsage("give --eeg and --markers together: a session needs both streams")
    if settings.trigger is not None and settings.eeg is None:
        raise WrongUsage("--trigger is a channel of the stream that --eeg names: give that too")
    earlier = read_certificate(settings.compare) if settings.compare else []
    began, is_demo = datetime.now(), settings.bundle is None
    bundle, gallery = settings.bundle, settings.gallery
    if bundle is None:
        model = ready_model()
        bundle, gallery = model.bundle, gallery or model.gallery
    gallery = gallery or bundle.parent / "gallery"
    open_bundle(bundle), open_gallery(gallery)  # they say what is wrong with them
    out = settings.out
    if asked.given("out") is None:
        out = Path(f"{out}-{began:%Y%m%d-%H%M%S}")
    on = machine(bundle, gallery)
    console = Screen()
    console.print(header(on), highlight=False)
    about = {"began": f"{began:%Y-%m-%d %H:%M:%S}", "machine": on}
    with tempfile.TemporaryDirectory(prefix="hvf-bench-") as base:
        bench = Bench(bundle, gallery, Path(base), settings.requirements, about)
        bench.streams = (settings.eeg or "", settings.markers or "")
        plan = list(_plan(settings, bench, is_demo, quick, tiny))
        if tiny or quick:
            bench.n_warm_up, bench.loop_back_s = 4, 0.5
        results = Results(out, MOMENTS)
        cells: list[Cell] = []
        try:
            minutes = float("inf") if tiny or quick else settings.minutes
            for cell in _measured(bench, plan, minutes, results, console):
                cells.append(cell)
        finally:  # Ctrl-C leaves what there is
            if cells:
                changes = compared(earlier, cells, settings.slower) if earlier else []
                told_of = list(told(changes, settings.slower)) if earlier else []
                write_page(out / PAGE, cells, len(cells) == len(plan), told_of)
                _show(cells, len(plan), told_of, out, markdown, console)


def _plan(
    settings: LiveBenchSettings, bench: Bench, is_demo: bool, quick: bool, tiny: bool
) -> Iterator[Setup]:
    n = len(bench.preprocessing.channels)
    if settings.eeg is not None:
        what = {"channels": n, "images": bench.n_images, "plays": "live"}
        n_trials = min(settings.trials, 8) if tiny else settings.trials
        live = Setup(name="live streams", kind="live", n_trials=n_trials, **what)
        yield live.model_copy(update={"trigger": settings.trigger})
        return
    if settings.own:
        yield _own(settings, n, bench.n_images, is_demo, quick, tiny)
        return
    gpus = bench.about["machine"]["gpus"]
    engines = tuple(name for name in PASSES if name in ON_CPU or gpus)
    every = setups(settings.trials, n, bench.n_images, engines, is_demo)
    if not (quick or tiny):
        yield from every
        return
    n_trials, rate_hz = (12, 250.0) if tiny else (100, 1000.0)
    for setup in every:
        if setup.kind == "centre":
            with_all = {"tmax_s": (0.3,), "trigger": "Photo"} if tiny else {}
            changes = {"n_trials": n_trials, "rate_hz": rate_hz, **with_all}
            yield setup.model_copy(update=changes)
        elif quick and setup.name == "rate 250":
            yield setup.model_copy(update={"n_trials": 50})


def _own(
    settings: LiveBenchSettings, channels: int, images: int, is_demo: bool, quick: bool, tiny: bool
) -> Setup:
    """The set-up that was asked for; only one of the demo's models has answers that are right."""
    what: dict[str, Any] = {"channels": channels, "images": images, **settings.own}
    is_drawn = (what["channels"], what["images"]) != (channels, images)
    return Setup(
        name="yours",
        kind="centre",
        n_trials=min(settings.trials, 12 if tiny else 100 if quick else settings.trials),
        plays="subject" if is_demo and not is_drawn else "noise",
        is_drawn=is_drawn,
        **what,
    )


def _measured(
    bench: Bench, plan: Sequence[Setup], minutes: float, results: Results, console: Screen
) -> Iterator[Cell]:
    """Each set-up in turn, as long as there is time."""
    until_s = time.monotonic() + 60 * minutes
    for number, setup in enumerate(plan, 1):
        needs_s = setup.n_trials * setup.soa_s + _START_S
        if time.monotonic() + needs_s > until_s and number > 1:
            cell = Cell(
                **bench.about,
                requirements=bench.requirements,
                setup=setup,
                not_measured=_NO_TIME,
            )
            results.add(cell, ())
        else:
            console.print(
                f"{number} of {len(plan)}: {setup.name}, {needs_s:.0f} s …", highlight=False
            )
            cell, answers = bench.measure(setup)
            results.add(cell, answers)
            why = "; ".join(cell.fails) or cell.not_measured
            console.print(f"  {cell.verdict}{': ' * bool(why)}{why}", highlight=False)
        yield cell


def _show(
    cells: Sequence[Cell],
    n_planned: int,
    changes: Sequence[str],
    out: Path,
    markdown: bool,
    console: Screen,
) -> None:
    for one in tables(cells):
        if markdown:
            print(as_markdown(one))
        else:
            console.print(_on_screen(one))
            console.print(one.note + "\n" * bool(one.note), style="dim", highlight=False)
    for line in changes:
        console.print(line, highlight=False)
    if len(cells) < n_planned:
        told_n = f"{len(cells)} of {n_planned} set-ups were measured"
        console.print(f"incomplete: {told_n} before it was ended", highlight=False)
    said = (sentence(cells), busy(cells[0].machine))
    console.print(f"\n{' '.join(said).strip()}\n", highlight=False)
    console.print(f"certificate: {out / PAGE}; values: {out / CERTIFICATE}", highlight=False)


def _on_screen(one: TableOf) -> Table:
    shown = Table(title=one.title, title_justify="left", box=box.SIMPLE, padding=0)
    for number, name in enumerate(one.head):
        is_text = not number or name in ("verdict", "session", "engine", "note")
        shown.add_column(name, justify="left" if is_text else "right", overflow="fold")
    for row in one.rows:
        shown.add_row(*row)
    return shown
