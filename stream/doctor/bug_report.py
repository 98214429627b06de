"""What a bug report needs, in a zip file without data of a person.

No EEG, no image, no embedding; of a session the numbers of its settings and sums, its logs and how
each trial ended, neither what was shown nor what was answered. What somebody chose is left out.
"""

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hvf_core.problem import WrongUsage
from stream.doctor.nameless import Nameless, names_nobody, texts_in, without_texts
from stream.doctor.program import VARIABLES
from stream.doctor.verdict import Named, Verdict
from stream.pipeline.wire.nodes import NODES, SOURCE

_LOG_BYTES = 1_000_000  # of the end of each log
_KEPT = (
    *("event", "node", "trial", "of_trial", "reason", "state", "verb", "outcome", "stamps"),
    *("stamp_s", "onset_s", "readable_s", "residual_s", "age_s", "tmax_s", "n_repeats"),
    *("calibrated", "abstain", "provisional", "steps", "size_px"),
)
"""Of a ledger's records: not what was shown or answered, nor words that somebody chose."""
_LOGS = (*(one.name for one in NODES), SOURCE, "dashboard")


def check_target(file: Path) -> None:
    """Refuses a file that cannot be written, before anything is looked at."""
    if file.suffix != ".zip" or file.exists() or not file.absolute().parent.is_dir():
        raise WrongUsage(
            f"--bug-report '{file}' must be a new file that ends in .zip, in a folder that exists"
        )


def write_bug_report(file: Path, named: Named, said: Sequence[Verdict], log: str) -> None:
    """Writes the file; `log` is what libraries wrote while the doctor looked."""
    folder = named.session
    records = [] if folder is None else list(_records(folder / "ledger.jsonl"))
    config = {} if folder is None else _data(folder / "config.json")
    clean = Nameless(_words(named, records, config), (one.text for one in said), named)
    with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _of_machine(named, [one._replace(text=clean(one.text)) for one in said]):
            archive.writestr(name, text)
        archive.writestr("libraries.log", clean(log))
        if folder is not None:
            for name, text in _of_session(folder, records, config, clean):
                archive.writestr(f"session/{name}", text)


def _of_machine(named: Named, said: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    yield "verdicts.txt", "".join(f"{one.state:<5} {one.text}\n" for one in said)
    yield "verdicts.json", json.dumps([one._asdict() for one in said], indent=2, ensure_ascii=False)
    # Those of an index have a name that everybody knows; others may be somebody's own.
    public = (one for one in distributions() if one.read_text("direct_url.json") is None)
    yield "packages.txt", "\n".join(sorted({f"{one.name}=={one.version}" for one in public}))
    yield "settings.json", _kept(named.settings.model_dump(mode="json"))


def _of_session(
    folder: Path, records: Sequence[dict[str, Any]], config: dict[str, Any], clean: Nameless
) -> Iterator[tuple[str, str]]:
    kept = [{key: record[key] for key in _KEPT if key in record} for record in records]
    yield "ledger.jsonl", "".join(f"{clean.word(json.dumps(record))}\n" for record in kept)
    yield "config.json", _kept(config)
    yield "summary.json", _kept(_data(folder / "summary.json"))
    for name in _LOGS:
        if (file := folder / "logs" / f"{name}.log").is_file():
            text = file.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace")
            yield f"logs/{name}.log", clean(text)


def _kept(data: dict[str, Any]) -> str:
    return json.dumps(without_texts(data), indent=2)


def _data(file: Path) -> dict[str, Any]:
    """What a file of JSON holds; that it cannot be read, where a crash has left half of it."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return {"is_readable": False}


def _records(ledger: Path) -> Iterator[dict[str, Any]]:
    """What can be read of a ledger, whatever state it is in."""
    for line in ledger.read_text("utf-8", "replace").splitlines() if ledger.is_file() else ():
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            yield {"event": "damaged"}


def _words(
    named: Named, records: Sequence[dict[str, Any]], config: dict[str, Any]
) -> dict[str, str]:
    """What is left out of sentences wherever it stands, and what stands there instead."""
    told = [record.get(key, ()) for record in records for key in ("stimulus", "group", "ids")]
    shown = {word for one in told for word in (one if isinstance(one, list) else [one])}
    # Live settings, among others: `subject AK`.
    asked = [str(record["argument"]) for record in records if record.get("argument")]
    asked += [word for one in asked for word in one.split(maxsplit=1)[1:]]
    variables = [os.environ[name] for name in VARIABLES if name in os.environ]
    parts = {part for one in variables for part in (one, *one.split(os.pathsep))}
    return {
        # Numbers tell nothing, and stand everywhere.
        **{word: "STIMULUS" for word in map(str, shown) if len(word) > 2 and not word.isdigit()},
        **{word: "NAMED" for word in (*asked, *parts) if not names_nobody(word)},
        **dict(texts_in(config)),
        **dict(texts_in(named.settings.model_dump(mode="json"))),
    }
