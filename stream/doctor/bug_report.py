"""What a bug report needs, in a zip file without data of a person.

No EEG, no image, no embedding; of a session its settings, sums, logs and how each trial ended,
neither what was shown nor what was answered. Names of user, home, host and stimuli are replaced.
"""

import getpass
import json
import os
import re
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from hvf_core.problem import WrongUsage
from stream.doctor.verdict import Named, Verdict

_LOG_BYTES = 1_000_000  # of the end of each log
_KEPT = (
    *("event", "node", "trial", "of_trial", "reason", "state", "verb", "outcome", "stamps"),
    *("stamp_s", "onset_s", "readable_s", "residual_s", "age_s", "tmax_s", "n_repeats"),
    *("calibrated", "abstain", "provisional", "steps", "size_px"),
)
"""Of a ledger's records: not what was shown or answered, nor words that somebody chose."""


def check_target(file: Path) -> None:
    """Refuses a file that cannot be written, before anything is looked at."""
    if file.suffix != ".zip" or file.exists() or not file.absolute().parent.is_dir():
        raise WrongUsage(
            f"--bug-report '{file}' must be a new file that ends in .zip, in a folder that exists"
        )


def write_bug_report(file: Path, named: Named, said: Sequence[Verdict], log: str) -> None:
    """Writes the file; `log` is what libraries wrote while the doctor looked."""
    records = [] if named.session is None else list(_records(named.session / "ledger.jsonl"))
    clean = _scrubber(named, records)
    with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _files(named, said, records, log):
            archive.writestr(name, clean(text))


def _files(
    named: Named, said: Sequence[Verdict], records: Sequence[dict[str, Any]], log: str
) -> Iterator[tuple[str, str]]:
    """Names and texts, with all words still in them."""
    yield "verdicts.txt", "".join(f"{one.state:<5} {one.text}\n" for one in said)
    yield "verdicts.json", json.dumps([one._asdict() for one in said], indent=2, ensure_ascii=False)
    packages = {f"{one.metadata['Name']}=={one.version}" for one in distributions()}
    yield "packages.txt", "\n".join(sorted(packages))
    yield "settings.json", named.settings.model_dump_json(indent=2)
    yield "libraries.log", log
    if named.session is None:
        return
    kept = [{key: record[key] for key in _KEPT if key in record} for record in records]
    yield "session/ledger.jsonl", "".join(json.dumps(record) + "\n" for record in kept)
    logs = sorted((named.session / "logs").glob("*.log"))
    for file in (named.session / "config.json", named.session / "summary.json", *logs):
        if file.is_file():
            text = file.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace")
            yield f"session/{file.relative_to(named.session).as_posix()}", text


def _records(ledger: Path) -> Iterator[dict[str, Any]]:
    """What can be read of a ledger, whatever state it is in."""
    for line in ledger.read_text("utf-8", "replace").splitlines() if ledger.is_file() else ():
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            yield {"event": "damaged"}


def _scrubber(named: Named, records: Sequence[dict[str, Any]]) -> Callable[[str], str]:
    """What replaces all that tells who and where somebody is, and what a session has shown."""
    told = [record.get(key, ()) for record in records for key in ("stimulus", "group", "ids")]
    shown = {word for one in told for word in (one if isinstance(one, list) else [one])}
    home, host = Path(os.path.expanduser("~")), socket.gethostname()
    words = {
        # Numbers tell nothing, and stand everywhere.
        **{word: "STIMULUS" for word in map(str, shown) if len(word) > 2 and not word.isdigit()},
        **{word: "NAMED" for word in _names(named) if len(word) > 2},
        **dict(_paths(named)),
        **dict.fromkeys((host, host.partition(".")[0]), "HOST"),
        **{str(one): "HOME" for one in (home, home.resolve()) if one.is_absolute() and one.name},
    }
    with suppress(KeyError, OSError):  # a container's user may have neither name nor home
        words[getpass.getuser()] = "USER"
    as_json = {json.dumps(word, ensure_ascii=False)[1:-1]: name for word, name in words.items()}
    instead = {word.casefold(): name for word, name in (words | as_json).items() if word}
    longest_first = "|".join(sorted(map(re.escape, instead), key=len, reverse=True))
    # No letter beside it; and hosts as sentences name streams, which may be called after people.
    pattern = f"(?<![^\\W\\d_])(?:{longest_first})(?![^\\W\\d_])|(?<=[,'] on )[\\w.-]+"
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: compiled.sub(lambda one: instead.get(one[0].casefold(), "HOST"), text)


def _names(named: Named) -> Iterator[str]:
    """How the folder of a session and a recording may be called in sentences."""
    for path in filter(None, (named.session, named.recording)):
        yield from map(str, (path, path.absolute(), path.resolve()))
    if named.recording is not None:
        yield named.recording.name


def _paths(named: Named) -> Iterator[tuple[str, str]]:
    """The absolute paths among all settings, by the names of these, and who was recorded."""
    texts = [named.settings.model_dump_json()]
    if named.session is not None and (file := named.session / "config.json").is_file():
        texts.append(file.read_text("utf-8", "replace"))
    for key, value in re.findall(r'"(\w+)": ?("(?:/|\w:\\)(?:[^"\\]|\\.)*")', "\n".join(texts)):
        yield json.loads(value), key.upper()
    for value in re.findall(r'"subject": ?("(?:[^"\\]|\\.)+")', "\n".join(texts)):
        if len(subject := json.loads(value)) > 2 and not subject.isdigit():
            yield subject, "SUBJECT"
