"""report.html: an evaluation on one page that needs nothing but itself, as a session's is."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from offline_train.evaluate.metrics import Estimate
from offline_train.evaluate.result import THRESHOLDS, Evaluation, OverSubjects, Results
from offline_train.evaluate.tables import compared, noise, percent, selective, signed, spread
from stream.pipeline.report.markup import folded, note, section, still_page, table, tile

_OWN = "img { display: block; max-width: 100%; background: #fff; border-radius: .4rem; }"


def write_page(
    path: Path, results: Results, pictures: Mapping[tuple[str, str], Sequence[Path]]
) -> None:
    """Writes the page.

    Args:
        pictures: those of each evaluation, by its method and its subject; they become part of it.
    """
    first = results.evaluations[0]
    parts = [_comparisons(results), *map(_spread, results.over_subjects)]
    for number, (method, of_method) in enumerate(results.by_method.items()):
        parts.append(_method(f"way-{number}", method, of_method, pictures))
    parts.append(_protocol(results))
    page = still_page(
        f"{first.n_way}-way retrieval",
        " · ".join(_facts(results)),
        (f'<p class="note">{escape(one)}</p>' for one in _notes(results)),
        _tiles(results),
        parts,
        _OWN,
    )
    path.write_text(page, encoding="utf-8")


def _facts(results: Results) -> Iterator[str]:
    first, subjects = results.evaluations[0], {one.subject for one in results.evaluations}
    yield (
        first.items if len(subjects) == 1 else f"{len(subjects)} subjects, {first.n_items} stimuli"
    )
    yield f"chance {100 * first.chance_top1:.3g} and {100 * first.chance_top5:.3g} %"
    yield first.origin.brain_encoder
    yield f"images seen by {', '.join(first.origin.image_encoders)}"


def _notes(results: Results) -> Iterator[str]:
    """What a reader has to know before he believes a number."""
    every = results.evaluations
    if any(one.simulated for one in every):
        yield (
            "Simulated subject. These numbers show that the system works, not how well it reads "
            "a person."
        )
    yield from dict.fromkeys(one.items for one in every if one.seen and one.seen.n_trials)
    for method, of_method in results.by_method.items():
        if not of_method[0].calibrated:
            yield f"Probabilities of {method}: {of_method[0].calibration}."
        if of_method[0].corrections:
            yield f"{of_method[0].protocol}: a live session could not answer so."


def _tiles(results: Results) -> Iterator[str]:
    """The whole window and the last number of repeats, of each way of decoding."""
    for method, of_method in results.by_method.items():
        point = of_method[0].points[-1]
        over = next((one for one in results.over_subjects if one.method == method), None)
        for name, of_one in (("top-1", point.top1), ("top-5", point.top5)):
            number, more = f"{100 * of_one.value:.1f} %", _interval(of_one)
            if over is not None:
                found = getattr(over.points[-1], name.replace("-", ""))
                number, more = f"{100 * found.mean:.1f} %", f"± {100 * found.sd:.1f} (SD)"
            told = f"{name}, {point.repeats} repeat{'s' * (point.repeats > 1)}; {method}"
            yield tile(number, told, more)


def _interval(found: Estimate) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f} %"


def _comparisons(results: Results) -> str:
    told = "".join(f"<p>{escape(compared(one))}.</p>" for one in results.comparisons)
    rows = [
        (
            f"{one.tmax_s:g} s",
            f"{one.repeats}",
            one.metric,
            f"{100 * one.ours:.1f}",
            f"{100 * one.theirs:.1f}",
            signed(one.difference),
            f"{one.better} / {one.worse}",
            f"{one.p:.2g}",
        )
        for comparison in results.comparisons
        for one in comparison.differences
    ]
    head = ("window end", "repeats", "", "here, %", "there, %", "difference", "better / worse", "p")
    return section("compared", "Beside another result", told, table(head, rows)) if rows else ""


def _spread(over: OverSubjects) -> str:
    head = ("window end", "repeats", "top-1 %", "top-5 %", "MRR %")
    rows = [
        (f"{p.tmax_s:g} s", f"{p.repeats}", *map(spread, (p.top1, p.top5, p.mrr)))
        for p in over.points
    ]
    title = f"Over {len(over.subjects)} subjects: {over.method}"
    return section("over", title, table(head, rows, "numbers"), note("Mean ± SD (n - 1)."))


def _method(
    anchor: str,
    method: str,
    evaluations: Sequence[Evaluation],
    pictures: Mapping[tuple[str, str], Sequence[Path]],
) -> str:
    several = len(evaluations) > 1
    parts = []
    for one in evaluations:
        body = (*map(_picture, pictures.get((method, one.subject), ())), *_tables(one))
        parts.append(folded(one.items, *body) if several else "\n".join(body))
    return section(anchor, _capital(method), *parts)


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _tables(one: Evaluation) -> Iterator[str]:
    head = ("window end", "repeats", "draws", "top-1 %", "top-5 %", "MRR %", "ECE %", "by noise")
    rows = [
        (
            f"{p.tmax_s:g} s",
            f"{p.repeats}",
            f"{p.draws}",
            *map(percent, (p.top1, p.top5, p.mrr, p.ece)),
            noise(p.noise),
        )
        for p in one.points
    ]
    yield table(head, rows, "numbers")
    yield note(f"{one.protocol}; intervals: {one.interval}. {_capital(one.calibration)}.")
    rows_of_k = [
        (f"{p.repeats} repeats", f"{k.k}", *map(percent, (k.top1, k.top5, k.mrr)))
        for p in one.last
        for k in p.among
    ]
    if rows_of_k:
        told = (
            f"At {one.last[0].tmax_s:g} s, among the right image and k - 1 others drawn from the "
            f"{one.n_way}: the exact expectation, hypergeometric; nothing is drawn."
        )
        body = table(("", "k", "top-1 %", "top-5 %", "MRR %"), rows_of_k, "numbers")
        yield folded("Among fewer images", body, note(told))
    rows_of_sure = [(f"{p.repeats} repeats", *map(selective, p.selective)) for p in one.last]
    sure = ("top-1 % (answered %)", *(f"sure {threshold:g}" for threshold in THRESHOLDS))
    yield folded("When less sure answers are withheld", table(sure, rows_of_sure, "numbers"))


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'


def _protocol(results: Results) -> str:
    first, made = results.evaluations[0], results.made
    versions = made.get("versions")
    told = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    rows = [
        ("protocol", "; ".join(dict.fromkeys(one.protocol for one in results.evaluations))),
        ("checkpoint", first.origin.checkpoint_rule),
        ("seed of the draws", f"{first.seed}"),
        ("seed of the training", f"{first.origin.training_seed}"),
        ("command", str(made.get("command", ""))),
        ("versions", told),
        ("platform", str(made.get("platform", ""))),
    ]
    hashes = [
        (one.subject, name.removesuffix("_sha256"), value)
        for one in {one.subject: one for one in results.evaluations}.values()
        for name, value in one.origin.model_dump().items()
        if name.endswith("sha256")
    ]
    told = folded("SHA-256", table(("subject", "of", ""), hashes, "plain"))
    return section("protocol", "Protocol", table((), rows), told)
