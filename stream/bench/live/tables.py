"""The tables of a certificate, and its sentence: the same on screen, on the page and in docs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stream.bench.live.cells import AXES, Setup
from stream.bench.live.figures import ANSWER, WAYS, Cell, Figures, late, ways_of

NAMES = {"channels": "channels", "rate_hz": "rate", "soa_s": "SOA", "images": "images"}
_UNITS = {"channels": " channels", "rate_hz": " Hz", "soa_s": " s", "images": " images"}


class TableOf(NamedTuple):
    """A table of texts; the first of each row is its name."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def with_unit(axis: str, value: float) -> str:
    return f"{value:,.10g}{_UNITS[axis]}"


def sentence(cells: Sequence[Cell]) -> str:
    """What this machine may run, for who reads nothing else."""
    centre = next((one for one in cells if one.setup.kind in ("centre", "live")), None)
    if centre is None or ANSWER not in centre.figures:
        why = centre.not_measured if centre else "it was ended before"
        return f"It is not known what this machine may run, as the centre was not measured: {why}."
    may = "may" if centre.verdict == "pass" else "may NOT"
    found = centre.figures[ANSWER]
    name, since = late(found), "the stamp of " if centre.setup.kind == "live" else ""
    parts = [
        f"This machine {may} run {_what(centre.setup)}: answers reach a subscriber "
        f"{found.p50:.1f} ms (p50), {getattr(found, name):.1f} ms ({name}) after {since}the "
        f"window's last sample, {centre.lost} of {centre.shown} are lost"
    ]
    if centre.fails:
        parts.append(f"what fails is {', '.join(centre.fails)}")
    if others := [one for one in cells if one.setup.kind in ("axis", "corner")]:
        measured = [one for one in others if not one.not_measured]
        n_passed = sum(one.verdict == "pass" for one in measured)
        parts.append(f"of {len(measured)} other set-ups that were measured {n_passed} pass")
        if reached := ", ".join(_reached(centre, others)):
            parts.append(f"with all else as in the centre it may go {reached}")
    return "; ".join(parts) + "."


def busy(machine: Mapping[str, Any]) -> str:
    """A sentence where others wanted a good part of it when it began, else ""."""
    if machine["load"] <= 0.5 * machine["cores"]:
        return ""
    return (
        f"Busy machine: {machine['load']:g} of {machine['cores']} cores were wanted by others when "
        "it began; on a quiet one answers come sooner."
    )


def _what(setup: Setup) -> str:
    if setup.kind == "live":
        return "the streams that it was given"
    rate = f"{setup.rate_hz / 1000:g} kHz" if setup.rate_hz >= 1000 else f"{setup.rate_hz:g} Hz"
    return (
        f"{setup.channels} channels at {rate} with SOA {setup.soa_s:g} s and "
        f"{setup.images:,} images"
    )


def _reached(centre: Cell, others: Sequence[Cell]) -> Iterator[str]:
    """How far each axis passes, step by step away from the centre, or that it does not."""
    if centre.verdict != "pass":
        return
    for axis in AXES:
        here = getattr(centre.setup, axis)
        steps = [one for one in others if one.setup.kind == "axis"]
        steps = [one for one in steps if getattr(one.setup, axis) != here]
        for is_up, word in ((True, "up to"), (False, "down to")):
            side = [one for one in steps if (getattr(one.setup, axis) > here) == is_up]
            side.sort(key=lambda one: getattr(one.setup, axis), reverse=not is_up)
            passed = here
            for one in side:
                if one.verdict != "pass":
                    break
                passed = getattr(one.setup, axis)
            named = "SOA " if axis == "soa_s" else ""
            if passed != here:
                yield f"{word} {named}{with_unit(axis, passed)}"
            elif side and side[0].fails:
                yield f"not {word} {named}{with_unit(axis, getattr(side[0].setup, axis))}"


def ways_table(cell: Cell) -> TableOf:
    """Of one cell: each way with its percentiles, lag and jitter."""
    head = ("ms", "n", "p50", "p95", "p99", "p99.9", "largest", "lag (mean)", "jitter (SD)")
    rows = [(way, *_numbers(cell.figures[way])) for way in WAYS if way in cell.figures]
    ways = ways_of(cell.setup).items()
    told = "; ".join(f"{way}: {what}" for way, what in ways if way in cell.figures)
    return TableOf(f"{cell.setup.name}: {_what(cell.setup)}", head, rows, f"{told}.")


def _numbers(one: Figures) -> tuple[str, ...]:
    values = (one.p50, one.p95, one.p99, one.p99_9, one.max, one.mean, one.sd)
    return (f"{one.n}", *(f"{value:.2f}" for value in values))


def cells_table(cells: Sequence[Cell]) -> TableOf:
    """Each cell with what it is, and whether it keeps the requirements."""
    head = ("", "channels", "Hz", "SOA", "images", "n", "p50", "p95", "p99", "SD", "CPU", "verdict")
    rows = []
    for one in cells:
        setup, found = one.setup, one.figures.get(ANSWER)
        what = (f"{setup.channels}", f"{setup.rate_hz:g}", f"{setup.soa_s:g}", f"{setup.images}")
        values = [found.p50, found.p95, found.p99, found.sd] if found else []
        numbers = [f"{found.n}", *(f"{v:.1f}" for v in values)] if found else ["–"] * 5
        why = "; ".join(one.fails) or one.not_measured
        verdict = f"{one.verdict}{': ' * bool(why)}{why}"
        cpu = f"{100 * one.cpu:.0f} %" if found else "–"
        rows.append((setup.name, *what, *numbers, cpu, verdict))
    return TableOf(
        "What this machine may run",
        head,
        rows,
        f"ms, {ways_of(cells[0].setup)[ANSWER]}; CPU of one "
        "core, all processes of the session. Galleries of 16,540 images and more are drawn, and "
        "so are the models of other channels or slower rates than the bundle's, of its width.",
    )


def accuracy_table(cells: Sequence[Cell]) -> TableOf:
    """How right and how late, in the very same answers."""
    head = ("window end", "repeats", "n", "top-1 (95 %)", "top-5 (95 %)", "p50 (ms)", "p99 (ms)")
    rows = [
        (
            f"{one.tmax_s:g} s ({cell.setup.name})",
            f"{one.n_repeats}",
            f"{one.n}",
            *("{:.1%} ({:.1%} to {:.1%})".format(*share) for share in (one.top1, one.top5)),
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
        )
        for cell in cells
        for one in cell.accuracy
    ]
    n_images = {cell.setup.images for cell in cells if cell.accuracy}
    chance = ", ".join(f"chance {1 / n:.2%} and {5 / n:.2%}" for n in sorted(n_images))
    is_live = any(cell.setup.plays == "live" for cell in cells if cell.accuracy)
    note = f"{'C' if is_live else 'Simulated subject; c'}{chance[1:]}." if rows else ""
    return TableOf("Accuracy beside latency", head, rows, note)


def process_table(cells: Sequence[Cell]) -> TableOf:
    """CPU and memory of each process, by engine."""
    head = ("process", "session", "engine", "CPU of a core", "memory (MB)", "files")
    rows = [
        (
            name,
            one.setup.name,
            one.engine,
            f"{100 * u.cpu:.1f} %",
            f"{u.memory_mb:.0f}",
            f"{u.files}",
        )
        for one in cells
        for name, u in one.used.items()
    ]
    note = "source, subscriber and LSL client are the benchmark's own. Memory: RSS, at most."
    return TableOf("CPU and memory of each process", head, rows, note)


def engine_table(cells: Sequence[Cell]) -> TableOf:
    head = ("engine", "answer p50", "answer p99", "embed p50", "search p50", "CPU", "note")
    rows = []
    for one in cells:
        figures = one.figures
        if figures:
            numbers = (figures[ANSWER].p50, figures[ANSWER].p99, figures["embed"].p50)
            told = [f"{value:.2f}" for value in (*numbers, figures["search"].p50)]
            told.append(f"{100 * one.cpu:.0f} %")
        else:
            told = ["–"] * 5
        rows.append((one.setup.engine, *told, one.not_measured))
    return TableOf("By engine", head, rows, "ms, and CPU of one core, all processes.")


def photon_table(cells: Sequence[Cell]) -> TableOf:
    """Offsets of light, from a photodiode or a trigger channel."""
    head = ("ms", "session", "n", "mean", "SD", "drift an hour (95 %)")
    rows = [
        (
            name,
            cell.setup.name,
            f"{one.n}",
            f"{one.mean:.2f}",
            f"{one.sd:.2f}",
            "too short to tell"
            if one.drift_ms_per_h is None
            else f"{one.drift_ms_per_h:+.1f} ({one.drift_low:+.1f} to {one.drift_high:+.1f})",
        )
        for cell in cells
        for name, one in cell.photon.items()
    ]
    is_live = any(cell.setup.kind == "live" and cell.photon for cell in cells)
    note = "" if is_live else "Simulated photodiode: light 12 ms (SD 2 ms) after a marker. "
    note += "What lies between light and answer has the window in it."
    return TableOf("When the light came", head, rows, note)


def tables(cells: Sequence[Cell]) -> list[TableOf]:
    """All of them that have something in them, in the order in which they are read."""

    def of(*kinds: str) -> list[Cell]:
        return [one for one in cells if one.setup.kind in kinds]

    whole = [one for one in cells if one.setup.kind in ("centre", "live", "painting")]
    measured = [one for one in whole if one.figures]
    found = [cells_table(cells), *map(ways_table, measured), accuracy_table(cells)]
    found += [photon_table(cells), engine_table(of("engine")), process_table(of(*_USED))]
    return [one for one in found if one.rows]


_USED = ("centre", "live", "painting", "engine")


def as_markdown(one: TableOf) -> str:
    """The table as docs have it."""
    lines = [" | ".join(one.head), "|".join("---" for _ in one.head)]
    lines += [" | ".join(row) for row in one.rows]
    body = "\n".join(f"| {line} |" if " " in line else f"|{line}|" for line in lines)
    return f"**{one.title}**\n\n{body}\n" + (f"\n{one.note}\n" if one.note else "")
