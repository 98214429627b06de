"""The comparison as tables, sentences, JSON and CSV."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from hvf_core.screen import Screen
from stream.bench.peers.conditions import CONDITIONS
from stream.bench.peers.judge import Sums, Verdict
from stream.bench.peers.peers import OURS
from stream.bench.peers.turns import Turn

HEADS = (
    *("peer", "p50 ms", "p95", "p99", "max", "CPU %", "right", "wrong", "lost", "twice"),
    *("top-1", "back s"),
)
_NOISE = 0.05  # of a latency or of CPU: less is no difference

Row = Mapping[str, "Sums | str"]
"""Of a condition, by peer: its sums, or why it cannot take part."""
Round = Mapping[str, Turn]
"""Of a condition, by peer: the turns that all of them have had."""


def cells(peer: str, one: "Sums | str") -> list[str]:
    """A line of the table; a peer that cannot do a condition says so."""
    if isinstance(one, str):
        return [peer, "cannot", *[""] * (len(HEADS) - 2)]
    right = one.fates["right"]
    return [
        peer,
        *(_number(value, 2) for value in one.latency_ms),
        _number(100 * one.cpu, 0),
        f"{right}/{one.n_whole}",
        f"{one.fates['wrong']}",
        f"{one.fates['lost']}",
        f"{one.n_twice}",
        f"{one.n_same_top}/{right}",
        _number(one.back_s, 1),
    ]


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def where_peers_are_better(row: Row) -> Iterator[str]:
    """Sentences on each peer that is better than a session of ours in something."""
    ours = row.get(OURS)
    if not isinstance(ours, Sums):
        return
    for peer, one in row.items():
        if peer == OURS or isinstance(one, str):
            continue
        pairs = [
            ("answers sooner (p50)", one.latency_ms[0], ours.latency_ms[0], "ms"),
            ("answers sooner (p99)", one.latency_ms[2], ours.latency_ms[2], "ms"),
            ("takes less CPU", 100 * one.cpu, 100 * ours.cpu, "%"),
            ("is back sooner", one.back_s, ours.back_s, "s"),
        ]
        better = [
            f"{what}, {its:.3g} beside {our:.3g} {unit}"
            for what, its, our, unit in pairs
            if its < (1 - _NOISE) * our
        ]
        shares = [
            one.fates["right"] / max(1, one.n_whole),
            ours.fates["right"] / max(1, ours.n_whole),
        ]
        if shares[0] > shares[1]:
            better.append(f"answers more trials rightly, {shares[0]:.0%} beside {shares[1]:.0%}")
        if one.fates["wrong"] < ours.fates["wrong"]:
            counts = f"{one.fates['wrong']} beside {ours.fates['wrong']}"
            better.append(f"answers fewer trials wrongly, {counts}")
        if better:
            yield f"{peer} {'; '.join(better)}"


def show(found: Mapping[str, Row], console: Screen, markdown: bool) -> None:
    """One table for each condition, and where a peer is better."""
    for name, row in found.items():
        title = f"{name}: {CONDITIONS[name].what}"
        lines = [cells(peer, one) for peer, one in row.items()]
        if markdown:
            print(f"\n**{title}**\n", _markdown(lines), sep="\n")
        else:
            table = Table(
                title=title, box=box.SIMPLE, title_justify="left", padding=0, show_edge=False
            )
            for head in HEADS:
                table.add_column(head, justify="left" if head == HEADS[0] else "right")
            for line in lines:
                table.add_row(*line)
            console.print(table)
        cannot = [f"{peer} cannot: {one}" for peer, one in row.items() if isinstance(one, str)]
        better = list(where_peers_are_better(row))
        said = "; ".join(better) if better else f"no peer is better than {OURS} in any of these"
        console.print(*cannot, f"{chr(10) * markdown}Where a peer is better: {said}.", sep="\n")


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    rows = [HEADS, ["---"] + ["---:"] * (len(HEADS) - 1)]
    rows += lines
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(
    folder: Path,
    found: Mapping[str, Row],
    played: Mapping[str, Sequence[Round]],
    header: Mapping[str, Any],
) -> None:
    """`peers.jsonl`, an object a peer and condition, and `peers.csv`, a line a trial."""
    with (folder / "peers.jsonl").open("w", encoding="utf-8") as out:
        for condition, row in found.items():
            for peer, one in row.items():
                what = {"cannot": one} if isinstance(one, str) else _plain(asdict(one))
                told = {"bench": "peers", "condition": condition, "peer": peer, **what, **header}
                out.write(json.dumps(told) + "\n")
    with (folder / "peers.csv").open("w", encoding="utf-8", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("condition", "peer", "round", *(field.name for field in fields(Verdict))))
        for condition, rounds in played.items():
            for number, took in enumerate(rounds, 1):
                for peer, turn in took.items():
                    for verdict in turn.verdicts:
                        rows.writerow((condition, peer, number, *astuple(verdict)))


def _plain(value: Any) -> Any:
    """Without NaN, which JSON has not."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
