"""The meaning of a marker: which stimulus it names, and which presentation of it this is."""

import csv
import json
import math
import re
import struct
import unicodedata
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import field_validator

from hvf_core.problem import Problem, WrongUsage
from hvf_core.settings import Settings, setting
from stream.acquire.clock import is_time

_REMEMBERED = 1000  # markers; one that is sent twice follows its twin closely
_REPEAT_DIGITS = 9  # a longer number counts no presentations
# BrainVision pads a code with spaces, and EEGLAB and MNE put the marker's type before it.
_CODE = re.compile(r"(?:stimulus/)?(?:s *)?0*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Marker:
    """A marker as it arrived: `raw_s` is its stamp as sent, and `offset_s` takes it to our clock.

    `text` is a string as sent, an integer as a decimal number, or several columns as a JSON list.
    """

    raw_s: float
    text: str
    readable_s: float
    offset_s: float = 0.0

    @property
    def stamp_s(self) -> float:
        """On the reader's clock."""
        return self.raw_s + self.offset_s

    @property
    def mark(self) -> str:
        """Made of its raw stamp and text: equal wherever the same marker was read."""
        text = struct.pack("<d", self.raw_s) + self.text.encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Event:
    """A marker that opens a trial. `repeat` counts the presentations of its group from 1 on."""

    onset_s: float
    stimulus: str
    group: str
    repeat: int
    readable_s: float
    is_duplicate: bool = False
    """Whether this stimulus came with this very stamp before; it does not count as a repeat."""
    fault: str = ""
    """Why `onset_s` is no onset, but when the marker could be read: its stamp is no time."""
    block: int = 0
    """How many markers that begin a new block came before."""
    text: str = ""
    """Of its marker, as it was sent."""
    sent_s: float = math.nan
    """Its stamp, as it was sent."""
    mark: str = ""
    """Of its marker."""


def evidence_group(group: str, block: int) -> str:
    """Whose repeats are put together: those of a group, within a block."""
    return f"{group}#{block}"


@dataclass(frozen=True)
class BadSpan:
    """A span of the EEG that somebody has marked as bad, in seconds on the reader's clock.

    As a marker it is `{"bad": WHY, "duration_s": SECONDS}`, whose stamp is the start.
    """

    start_s: float
    stop_s: float
    why: str

    @classmethod
    def of(cls, marker: Marker) -> "BadSpan | None":
        """The span that this marker tells of; None for another marker."""
        fields = _json(marker.text) if marker.text.lstrip().startswith("{") else None
        if not isinstance(fields, dict) or not {"bad", "duration_s"} <= fields.keys():
            return None
        duration_s = fields["duration_s"]
        is_span = isinstance(duration_s, int | float) and 0 <= duration_s < math.inf
        if not is_span or not is_time(marker.stamp_s):
            return None
        return cls(marker.stamp_s, marker.stamp_s + duration_s, str(fields["bad"]))

    @property
    def text(self) -> str:
        """The marker that tells of it."""
        return json.dumps({"bad": self.why, "duration_s": self.stop_s - self.start_s})


class MarkerRule(Settings):
    """Maps marker texts to stimuli.

    A text that is a JSON object gives the stimulus, and where they are there the repeat and the
    group, in its fields. Of any other text `stimulus` is searched, a regular expression; its
    groups `id`, `repeat` and `group` give the same, the whole match is the id where there is no
    group `id`. A text in which it is not found opens no trial. By default all are stimuli, but for
    BrainVision's responses and segments.

    With a table of `codes` what was found is a code, or a text, that the table gives the id for;
    one that it does not have opens no trial.
    """

    stimulus: str = setting(r"(?is)^(?!response/|syncstatus/|new segment/).*$", option="--stimuli")
    """Regular expression: which markers are stimuli (group `id`: their id)."""
    codes: Path | None = setting(None, option="--codes")
    """Table of what markers mean: a CSV file with the columns `code` and `id`."""
    id_field: str = "stimulus"
    """Of a marker that is a JSON object, the field of the stimulus."""
    repeat_field: str = "repeat"
    """The field that counts the presentations."""
    group_field: str = "group"
    """The field of what is averaged together."""
    column: int | None = None
    """Of a marker stream with several columns, the one that counts; all, as JSON, by default."""
    ignore: str | None = setting(None, option="--ignore")
    """Markers in which this is found open no trial."""
    start: str | None = setting(None, option="--start-on")
    """Open trials only after a marker in which this is found."""
    stop: str | None = setting(None, option="--stop-on")
    """Open none after a marker in which this is found, until one that starts again."""
    shift_s: float = setting(0.0, option="--shift", ge=-1, le=1)
    """How much later than its marker says an image is seen; `adapt --trigger` measures it."""
    reset: str | None = setting(None, option="--reset-on")
    """A marker in which this is found opens no trial, and begins a block: the next repeat of every
    stimulus is its first."""

    @field_validator("stimulus", "ignore", "start", "stop", "reset")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise WrongUsage(
                f"the marker pattern '{pattern}' is no regular expression ({error}); "
                "give one such as '^stim/(?P<id>.+)$'"
            ) from None
        return pattern

    @field_validator("codes")
    @classmethod
    def _reads(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_codes(path)
        return path and path.absolute()


def read_codes(path: Path) -> dict[str, str]:
    """The ids of a table of codes, by code; a number is there without what formats put around it.

    Raises:
        Problem: there is no such table, it lacks a column, or gives two ids for one code.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(
            f"the table of codes '{path}' cannot be read ({error}); give --codes a CSV file"
        ) from None
    head = lines[0] if lines else ""
    rows = csv.reader(lines, delimiter=max(",;\t", key=head.count))
    columns = [name.strip().casefold() for name in next(rows, [])]
    if not {"code", "id"} <= set(columns):
        raise Problem(
            f"the table of codes '{path}' begins with '{head}', expected the names of its columns, "
            "`code` and `id` among them: write `code,id` as its first line"
        )
    found: dict[str, str] = {}
    for row in filter(any, rows):
        fields = dict(zip(columns, row, strict=False))
        code, stimulus = (_name(fields.get(column, "").strip()) for column in ("code", "id"))
        if not code or not stimulus or found.setdefault(plain_code(code), stimulus) != stimulus:
            raise Problem(
                f"the table of codes '{path}' has the code '{code}' of the id '{stimulus}' with "
                "no id, or with two; give each code one id"
            )
    return found


def plain_code(text: str) -> str:
    """Of a trigger code (`S  7`, `Stimulus/S  7`, `007`) the number, else the text."""
    text = text.strip().removeprefix("Comment/")
    number = _CODE.fullmatch(text)
    return number[1] if number else text


def marker_text(values: Sequence[Any]) -> str:
    """The columns of one marker as text: one as it is, several as a JSON list."""
    plain = [_plain(value) for value in values]
    return str(plain[0]) if len(plain) == 1 else json.dumps(plain, ensure_ascii=False)


def as_text(value: bytes | str) -> str:
    """A value of a text stream as it is read.

    Bytes are UTF-8, or else Windows-1252: what older programs write, and any bytes can be read as.
    """
    if isinstance(value, str):
        return _sendable(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")


def _plain(value: Any) -> str | int | float:
    if isinstance(value, bytes | str):
        return as_text(value)
    return int(value) if float(value).is_integer() else float(value)


def _sendable(text: str) -> str:
    """A lone surrogate, which JSON can spell and no encoding can hold, as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _name(text: str) -> str:
    """In the composed form that images' ids have, which senders and file systems may not keep."""
    return unicodedata.normalize("NFC", _sendable(text))


class MarkerReader:
    """Turns markers into events, counts presentations in a block, and minds start, stop and reset.

    Attributes:
        n_ignored: markers that opened no trial.
        is_on: whether markers open trials now, as the rule's `start` and `stop` have it.
        block: how many markers have begun a new one.
        begun_by: the mark of the last of them.
    """

    def __init__(self, rule: MarkerRule):
        self._rule = rule
        self._codes = None if rule.codes is None else read_codes(rule.codes)
        self._presented: Counter[str] = Counter()
        self._seen: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self.is_on = rule.start is None
        self.block, self.begun_by = 0, ""
        self.n_ignored = 0

    def read(self, marker: Marker) -> Event | None:
        """The trial that this marker opens; None for a marker that opens none."""
        text = _column(marker.text, self._rule.column)
        passed_over = self._begins_block(marker, text) or self._is_switch(text) or not self.is_on
        parts = None if passed_over else _parts(text, self._rule)
        stimulus = None if parts is None else self._stimulus(_name(str(parts["id"])))
        if parts is None or stimulus is None:
            self.n_ignored += 1
            return None
        group = stimulus if parts.get("group") is None else _name(str(parts["group"]))
        fault = "" if is_time(marker.stamp_s) else f"the marker's stamp is {marker.stamp_s:g} s"
        # By the stamp as sent: the clock's offset may be measured anew between the two.
        is_duplicate = (marker.raw_s, stimulus) in self._seen
        self._seen.append((marker.raw_s, stimulus))
        self._presented[group] += not is_duplicate
        return Event(
            onset_s=marker.readable_s if fault else marker.stamp_s + self._rule.shift_s,
            stimulus=stimulus,
            group=group,
            repeat=self._presented[group] if parts["repeat"] is None else int(parts["repeat"]),
            readable_s=marker.readable_s,
            is_duplicate=is_duplicate,
            fault=fault,
            block=self.block,
            text=marker.text,
            sent_s=marker.raw_s,
            mark=marker.mark,
        )

    def _stimulus(self, named: str) -> str | None:
        return named if self._codes is None else self._codes.get(plain_code(named))

    def _begins_block(self, marker: Marker, text: str) -> bool:
        if self._rule.reset is None or not re.search(self._rule.reset, text):
            return False
        if marker.mark != self.begun_by:  # one that is heard twice begins one block
            self.block, self.begun_by = self.block + 1, marker.mark
            self._presented.clear()
        return True

    def _is_switch(self, text: str) -> bool:
        rule = self._rule
        for pattern, is_on in ((rule.stop, False), (rule.start, True)):
            if pattern is not None and re.search(pattern, text):
                self.is_on = is_on
                return True
        return rule.ignore is not None and re.search(rule.ignore, text) is not None


def _column(text: str, column: int | None) -> str:
    if column is None:
        return text
    columns = _json(text)
    if not isinstance(columns, list) or not -len(columns) <= column < len(columns):
        return text
    value = columns[column]
    return value if isinstance(value, str) else json.dumps(value)


def _parts(text: str, rule: MarkerRule) -> dict[str, Any] | None:
    """`id`, and perhaps `repeat` and `group`; None where the text names no stimulus."""
    fields = _json(text) if text.lstrip().startswith("{") else None
    if isinstance(fields, dict):
        names = {"id": rule.id_field, "repeat": rule.repeat_field, "group": rule.group_field}
        parts: dict[str, Any] = {part: fields.get(name) for part, name in names.items()}
    else:
        match = re.search(rule.stimulus, text)
        if match is None:
            return None
        parts = {"id": match[0]} | match.groupdict()
    if parts["id"] is None:
        return None
    repeat = str(parts.get("repeat"))
    if not repeat.isdecimal() or len(repeat) > _REPEAT_DIGITS:
        parts["repeat"] = None  # none, or one that is no count: counted here instead
    return parts


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
