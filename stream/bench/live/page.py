"""certificate.html: one page that needs nothing but itself, in the look of a session's report."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np

from stream.bench.live.cells import AXES
from stream.bench.live.figures import ANSWER, Cell, late, ways_of
from stream.bench.live.tables import NAMES, TableOf, busy, sentence, tables, with_unit
from stream.bench.machine import header
from stream.bench.measured_session import STAGES
from stream.pipeline.report import charts
from stream.pipeline.report.charts import Frame, chart, ticks
from stream.pipeline.report.markup import (
    chart_with,
    folded,
    note,
    section,
    side_by_side,
    still_page,
    table,
)

_OWN = """
.verdict { font-size: 1.15rem; } .tile.pass strong { color: var(--right); }
.tile.fail strong { color: var(--wrong); }
svg .pass, td.pass { color: var(--right); } svg .fail, td.fail { color: var(--wrong); }
.numbers td.pass, .numbers td.fail { text-align: left; }
"""
_BINS = 40


def write_page(path: Path, cells: Sequence[Cell], complete: bool, changes: Sequence[str]) -> None:
    """Writes the page of what was measured, all or only so far, beside what it compares with."""
    first = cells[0]
    facts = f"{first.began} · {header(first.machine)}"
    page = still_page(
        "Certificate: how late answers are",
        facts,
        _notes(cells, complete),
        _tiles(cells),
        _parts(cells, changes),
        _OWN,
    )
    path.write_text(page, encoding="utf-8")


def _notes(cells: Sequence[Cell], complete: bool) -> Iterator[str]:
    yield f'<p class="note verdict">{escape(sentence(cells))}</p>'
    if not complete:
        why = "it was ended before all was measured."
        yield f'<p class="note"><strong>Incomplete:</strong> {why}</p>'
    if said := busy(cells[0].machine):
        yield f'<p class="note">{escape(said)}</p>'


def _tiles(cells: Sequence[Cell]) -> Iterator[str]:
    for one in cells:
        found = one.figures.get(ANSWER)
        if found is not None and one.setup.kind in ("centre", "live"):
            for name, number, told in (
                ("p50", f"{found.p50:.1f} ms", "p50: half of the answers come within it"),
                (late(found), f"{getattr(found, late(found)):.1f} ms", late(found)),
                ("jitter", f"{found.sd:.1f} ms", "jitter: SD from trial to trial"),
                ("lost", f"{one.lost + one.twice}", f"lost or answered twice, of {one.shown}"),
                ("CPU", f"{100 * one.cpu:.0f} %", "of a core, all processes"),
            ):
                has_failed = any(fail.startswith(name) for fail in one.fails)
                yield _tile(number, told, "fail" if has_failed else "pass")
    measured = [one.verdict for one in cells if not one.not_measured]
    kind = "pass" if set(measured) == {"pass"} else "fail"
    yield _tile(f"{measured.count('pass')} of {len(measured)}", "set-ups pass", kind)


def _tile(number: str, what: str, kind: str) -> str:
    return f'<div class="tile {kind}"><strong>{escape(number)}</strong>{escape(what)}</div>'


def _parts(cells: Sequence[Cell], changes: Sequence[str]) -> Iterator[str]:
    if changes:
        items = "".join(f"<li>{escape(one)}</li>" for one in changes)
        yield section("compared", "Beside the earlier run", f"<ul>{items}</ul>")
    yield section("required", "What is required", _required(cells[0]))
    whole = [one for one in cells if ANSWER in one.figures and one.setup.kind in ("centre", "live")]
    yield section(
        "late",
        "How late answers are",
        *(side_by_side(_histogram(one), _stages(one), _over_time(one)) for one in whole),
    )
    axes = side_by_side(*(_axis(cells, axis) for axis in AXES))
    for number, one in enumerate(tables(cells)):
        yield section(f"table-{number}", one.title, axes if not number else "", _table(one))
    yield section("machine", "Machine, versions, checksums", _machine(cells))
    about = "certificate.jsonl has a line for each set-up, with every value; answers.csv a row for "
    yield section("raw", "Raw values", note(f"{about}each answer, with its way in ms."))


def _table(one: TableOf) -> str:
    long = len(one.rows) > 40
    body = table(one.head, one.rows, "numbers plain")
    for verdict in ("pass", "fail"):
        body = body.replace(f"<td>{verdict}", f'<td class="{verdict}">{verdict}')
    return (folded(f"{len(one.rows)} rows", body) if long else body) + note(one.note)


def _required(cell: Cell) -> str:
    required = cell.requirements
    share = 100 * required.cpu * cell.machine["cores"]
    all_of_them = f"{100 * required.cpu:g} % of all"
    rows = (
        ("p50", f"at most {required.p50_ms:g} ms"),
        ("p99 (of fewer than 300 trials p95)", f"at most {required.p99_ms:g} ms"),
        ("jitter: SD from trial to trial", f"at most {required.jitter_ms:g} ms"),
        ("CPU of the session's processes", f"at most {share:g} % of one core, {all_of_them}"),
        ("lost, or answered twice", f"at most {required.lost}"),
    )
    return table((), rows) + note(f"{ways_of(cell.setup)[ANSWER].capitalize()}.")


def _machine(cells: Sequence[Cell]) -> str:
    machine, loads = cells[0].machine, [load for one in cells for load in one.load]
    told = {**machine, "load in between": f"{min(loads):g} to {max(loads):g}"}
    versions = told.pop("versions")
    told["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
    names = {"gpus": ", ".join(told["gpus"]) or None, "is_virtual": str(told["is_virtual"])}
    rows = [(name, str(value)) for name, value in {**told, **names}.items() if value is not None]
    return table((), rows)


def _histogram(cell: Cell) -> str:
    """How many answers took how long, on a logarithmic axis."""
    values, found = np.log10(np.maximum(cell.values_ms[ANSWER], 1e-2)), cell.figures[ANSWER]
    low, high = float(values.min()) - 0.1, float(values.max()) + 0.1
    counts, edges = np.histogram(values, _BINS, (low, high))
    most = float(counts.max())
    since = ways_of(cell.setup)[ANSWER].partition(" ")[0]
    frame = Frame(
        (low, high),
        (0, most * 1.3),
        f"{since} → answer at a subscriber (ms)",
        "answers",
        [math.log10(x) for x in _round_values(10**low, 10**high)],
        [n for n in ticks(0, most, 4) if n == round(n)],
        as_x=lambda x: f"{10**x:.3g}",
    )
    marks = [charts.bars(frame, edges.tolist(), counts.tolist(), "c1")]
    for row, name in enumerate(("p50", "p95", "p99")):
        value = getattr(found, name)
        marks.append(charts.upright(frame, math.log10(value), f"{name} {value:.1f}", row))
    title = f"From the {since} to the answer ({cell.setup.name})"
    return chart_with(
        title, chart(frame, title, marks), f"n = {found.n}, largest {found.max:.1f} ms."
    )


def _round_values(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [k * 10.0**n for n in powers for k in (1, 2, 5)]
    inside = [x for x in values if low <= x <= high]
    return inside if len(inside) <= 8 else [x for x in inside if math.log10(x) % 1 < 1e-9]


def _stages(cell: Cell) -> str:
    """The median and the p95 of each stage."""
    names = [name for name in STAGES if name in cell.figures]
    most = max(cell.figures[name].p95 for name in names)
    frame = Frame((0, most * 1.15), (0, len(names)), "ms", "", ticks(0, most, 5), left_px=110)
    marks = []
    for row, name in enumerate(names):
        found, y = cell.figures[name], len(names) - row
        top, bottom = frame.py(y - 0.2), frame.py(y - 0.8)
        middle = (top + bottom) / 2
        left, right, late = frame.px(0), frame.px(found.p50), frame.px(found.p95)
        marks.append(f'<path class="bar c1" d="M{left} {top}H{right}V{bottom}H{left}Z"/>')
        marks.append(f'<path class="line c1" d="M{right} {middle}H{late}"/>')
        marks.append(charts.text(frame.left_px - 8, middle + 4, name, "end"))
        marks.append(charts.text(late + 5, middle + 4, f"{found.p50:.2f}"))
    told = "Bars to the median, which is written beside them; lines to the p95."
    return chart_with("Where the time goes", chart(frame, told, marks), told)


def _over_time(cell: Cell) -> str:
    """Each answer in turn: a machine that slows down, or stalls, is seen here."""
    values = np.array(cell.values_ms[ANSWER])
    n, top = len(values), float(max(np.percentile(values, 99.9), 1.0))
    frame = Frame((0, n), (0, top), "trial", "ms", ticks(0, n), ticks(0, top))
    size = max(1, n // 100)
    blocks = [values[i : i + size] for i in range(0, n - size + 1, size)]
    at = [(i + 0.5) * size for i in range(len(blocks))]
    spans = [np.percentile(one, [5, 50, 95]).tolist() for one in blocks]
    marks = [
        charts.band(
            frame, [(x, low, high) for x, (low, _, high) in zip(at, spans, strict=True)], "c1"
        ),
        charts.line(
            frame, [(x, middle) for x, (_, middle, _) in zip(at, spans, strict=True)], "c1"
        ),
    ]
    told = f"Median and 5 to 95 % of each {size} trials in a row."
    return chart_with("Over the session", chart(frame, told, marks), told)


def _axis(cells: Sequence[Cell], axis: str) -> str:
    """p50 and p95 along one axis, all else as in the centre."""
    centre = next((one for one in cells if one.setup.kind == "centre"), None)
    if centre is None or ANSWER not in centre.figures:
        return ""
    rest = {name: getattr(centre.setup, name) for name in AXES if name != axis}
    row = [centre, *(one for one in cells if one.setup.kind == "axis" and ANSWER in one.figures)]
    row = [one for one in row if all(getattr(one.setup, k) == v for k, v in rest.items())]
    if len(row) < 2:
        return ""
    row.sort(key=lambda one: float(getattr(one.setup, axis)))
    at = [math.log10(getattr(one.setup, axis)) for one in row]
    found = [one.figures[ANSWER] for one in row]
    limit = centre.requirements.p50_ms
    top = min(max(f.p95 for f in found) * 1.1, 20 * limit)
    margin = 0.06 * (at[-1] - at[0])
    label = NAMES[axis] + {"rate_hz": " (Hz)", "soa_s": " (s)"}.get(axis, "")
    frame = Frame(
        (at[0] - margin, at[-1] + margin),
        (0, max(top, 1.2 * limit)),
        label,
        "ms",
        at,
        ticks(0, max(top, 1.2 * limit)),
        as_x=lambda x: f"{round(10**x, 4):,.10g}",
    )
    marks = [charts.level(frame, limit)]
    marks.append(
        charts.line(frame, [(x, f.p50) for x, f in zip(at, found, strict=True)], "c1 thin")
    )
    for x, one, f in zip(at, row, found, strict=True):
        told = f"{with_unit(axis, getattr(one.setup, axis))}: p50 {f.p50:.2f}, p95 {f.p95:.2f} ms"
        marks.append(
            f'<g class="{one.verdict}"><title>{escape(told)}, {one.verdict}</title>'
            f'<path class="line" d="M{frame.px(x)} {frame.py(f.p50)}V{frame.py(f.p95)}"/>'
            f'<circle cx="{frame.px(x)}" cy="{frame.py(f.p50)}" r="4"/></g>'
        )
    told = "Dots: median; lines up to the p95; green passes, red fails; dashed: the p50 required."
    return chart_with(f"By {NAMES[axis]}", chart(frame, f"Latency by {NAMES[axis]}", marks), told)
