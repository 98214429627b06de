"""Leaves out of texts and settings all that somebody may have called after a person.

Of what is quoted, and of values, only the words stay that this program has itself: whatever else
stands there somebody has chosen. Sentences of libraries do not quote, so that what settings and
verdicts hold, paths and addresses are left out of them wherever they stand.
"""

import getpass
import os
import re
import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hvf_core.settings import settings_of
from index.search.kinds import MILVUS, NAMES
from stream.doctor.verdict import Named
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.nodes import NODES, SOURCE, SUPERVISOR

_ROOT = Path(__file__).parents[2]
_USUAL = (
    *("auto", "cpu", "cuda", "mps", "lsl", "file", "ipc", "tcp", "default", "machine", "link"),
    *("site", "organization", "global", "eeg", "markers", "finish", "stop", "failure", "killed"),
)
# Numbers, versions, checksums, devices, options, electrodes.
_NO_NAME = re.compile(
    r"[\d.,:; +{}-]*(?:\+(?:cpu|cu\d+))?|[0-9a-f]{64}|cuda:\d+|--[a-z-]+|(?:EEG)?\d+"
    r"|(?:Fp|AF|F|FT|FC|T|C|TP|CP|P|PO|O|I)(?:z|\d{1,2})"
)
# Files of this program, or in a folder of libraries: tracebacks are of these.
_CODE = re.compile(
    r"(?:PROGRAM[/\\](?:hvf_core|decoder|index|stream|demo|run_realtime)|PYTHON[/\\].*?[lL]ib)"
    r"[\w./\\+-]*\.(?:py|so|dylib|dll|pyd)[\d.]*"
)
_QUOTED = re.compile(r"(?<!\w)'(.*?)'(?!\w)|\"((?:[^\"\\\n]|\\.)*)\"")
_THREAD = re.compile(r"\[([A-Z]{1,3}_)[^\]\n]*\]")  # liblsl calls them as streams begin
_ON_HOST = re.compile(r"(?<=[,'] on )[\w.-]+")  # as sentences name streams
_ADDRESS = re.compile(  # IPv4, IPv6, of network cards; not of this machine, nor LSL's groups
    r"(?<![\w.])(?!127\.|0\.0\.0\.0|2[23]\d\.)\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)"
    r"|\b[0-9a-f]{1,4}(?:::?[0-9a-f]{1,4}){3,}\b",
    re.IGNORECASE,
)
_HOST = re.compile(r"(?:\w+://)?\[?([^/\[\]]+?)\]?:\d+(?:/\w*)?")


@cache
def _own_words() -> frozenset[str]:
    """What this program calls things, and the values that it lists or brings."""
    declared = settings_of(SessionConfig)
    usual = [one.usual for one in declared.values() if isinstance(one.usual, str)]
    choices = [word for one in declared.values() for word in one.choices]
    parts = [part for path in declared for part in (path, *path.split("."))]
    nodes = [one.name for one in NODES]
    words = (*usual, *choices, *parts, *nodes, SOURCE, SUPERVISOR, *NAMES, MILVUS, *_USUAL)
    return frozenset(str(word).casefold() for word in words)


def names_nobody(text: str) -> bool:
    """Whether a text is a word of this program's own, a number, a version or an electrode."""
    return text.casefold() in _own_words() or _NO_NAME.fullmatch(text) is not None


def without_texts(value: Any, key: str = "") -> Any:
    """The numbers, truths and choices of data; of each other text only what it is called there.

    Keys stay: they are this program's own, but in a setting that is a table of texts.
    """
    if isinstance(value, Mapping):
        if key in _tables():
            return key.upper() if value else {}
        return {name: without_texts(one, name) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_texts(one, key) for one in value]
    return key.upper() if isinstance(value, str) and not names_nobody(value) else value


@cache
def _tables() -> frozenset[str]:
    declared = settings_of(SessionConfig).values()
    return frozenset(
        one.path.rpartition(".")[2]
        for one in declared
        if any(kind is dict or getattr(kind, "__origin__", None) is dict for kind in one.kinds)
    )


def texts_in(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Each text in settings that may name somebody, by what it is called.

    The host of an address, and the last name of a path, are told by themselves too.
    """
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from texts_in(one, str(name) if key not in _tables() else key)
            if key in _tables():
                yield from texts_in(name, key)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            yield from texts_in(one, key)
    elif isinstance(value, str) and not names_nobody(value):
        yield value, key.upper()
        if (host := _HOST.fullmatch(value)) is not None and not names_nobody(host[1]):
            yield host[1], "HOST"
        if Path(value).is_absolute() and not names_nobody(name := Path(value).name):
            yield name, key.upper()


class Nameless:
    """What sentences are without all that tells who and where somebody is.

    Args:
        words: what is to be left out wherever it stands, and what stands there instead.
        told: sentences in which names are quoted; what these are is left out of all others too.
    """

    def __init__(self, words: Mapping[str, str], told: Iterable[str], named: Named) -> None:
        told = list(told)
        quoted = (one[1] or one[2] or "" for text in told for one in _QUOTED.finditer(text))
        hosts = (one[0] for text in told for one in _ON_HOST.finditer(text))
        found = {
            **{word: "NAMED" for word in quoted if len(word) > 2 and not names_nobody(word)},
            **{word: "HOST" for word in hosts if not names_nobody(word)},
            **words,
            **dict.fromkeys(_paths(named), "NAMED"),
            **dict(_of_this_user()),
        }
        self._instead = {word.casefold(): name for word, name in found.items() if len(word) > 1}
        self._names = {*self._instead.values(), "PATH", "HOST"}
        # No letter beside it.
        self._words = re.compile(
            f"(?<![^\\W\\d_])(?:{_longest_first(self._instead)})(?![^\\W\\d_])", re.IGNORECASE
        )
        # What is below a folder that has been replaced goes with it.
        starts = _longest_first({*self._names, "PROGRAM", "PYTHON"})
        self._path = re.compile(
            rf"(?<![\w.<])(?:({starts})|~|[A-Za-z]:)?[/\\][^\s'\"`,;:()<>]+", re.IGNORECASE
        )
        places = {str(_ROOT): "PROGRAM", sys.prefix: "PYTHON", sys.base_prefix: "PYTHON"}
        self._places = sorted(places.items(), key=lambda one: -len(one[0]))

    def word(self, text: str) -> str:
        """A text without the words that are known: one that quotes nothing, as a ledger's."""
        return self._words.sub(lambda one: self._instead[one[0].casefold()], text)

    def __call__(self, text: str) -> str:
        for place, name in self._places:
            text = re.sub(rf"{re.escape(place)}(?=[/\\])", name, text)
        text = _ON_HOST.sub("HOST", self.word(_THREAD.sub(r"[\1…]", text)))
        text = _ADDRESS.sub("HOST", self._path.sub(self._short, text))
        return _QUOTED.sub(self._unless_own, text)

    def _short(self, path: re.Match[str]) -> str:
        return path[0] if _CODE.fullmatch(path[0]) else (path[1] or "PATH")

    def _unless_own(self, quoted: re.Match[str]) -> str:
        said, mark = quoted[1] or quoted[2] or "", quoted[0][0]
        is_told = said in self._names or names_nobody(said) or _CODE.fullmatch(said)
        return quoted[0] if is_told else f"{mark}…{mark}"


def _longest_first(words: Iterable[str]) -> str:
    """A pattern of any of the words; where none begins so, none of them has to be tried."""
    ends = defaultdict[str, list[str]](list)
    for word in sorted(words, key=len, reverse=True):
        ends[word[:3]].append(re.escape(word[3:]))
    starts = sorted(ends, key=len, reverse=True)
    return "|".join(f"{re.escape(one)}(?:{'|'.join(ends[one])})" for one in starts) or "(?!)"


def _paths(named: Named) -> Iterator[str]:
    """How the folder of a session and a recording may be called in sentences."""
    for path in filter(None, (named.session, named.recording)):
        yield from (one for one in map(str, (path, path.absolute(), path.resolve())) if one != ".")
    if named.recording is not None:
        yield from (named.recording.name, named.recording.stem)


def _of_this_user() -> Iterator[tuple[str, str]]:
    home, host = Path(os.path.expanduser("~")), socket.gethostname()
    for one in (home, home.resolve()):
        if one.is_absolute() and one.name:
            yield str(one), "HOME"
    yield from ((one, "HOST") for one in (host, host.partition(".")[0]) if one != "localhost")
    with suppress(KeyError, OSError):  # a container's user may have neither name nor home
        yield getpass.getuser(), "USER"
