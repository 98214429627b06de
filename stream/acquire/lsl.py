"""pylsl, with the one rule for where its library comes from, and finding streams by name."""

import ctypes
import importlib.util
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hvf_core.problem import Problem
from stream.acquire.chunk import RESULTS


def _import_pylsl() -> Any:
    """pylsl with its own liblsl, else with the one inside mne-lsl's wheel.

    pylsl's wheels carry liblsl for Linux x86_64 (glibc 2.35 and newer), macOS and Windows;
    mne-lsl's also for aarch64 and older glibc.
    """
    try:
        import pylsl
    except RuntimeError:
        spec = importlib.util.find_spec("mne_lsl")
        origin = spec.origin if spec is not None else None
        libraries = sorted(Path(origin).parent.glob("lsl/lib/*lsl*")) if origin else []
        if not libraries:
            raise Problem(
                "liblsl was not found: pylsl brings none for this platform; install one with "
                "`pip install mne-lsl` or name the library's file in the variable PYLSL_LIB"
            ) from None
        os.environ["PYLSL_LIB"] = str(libraries[-1])
        import pylsl
    return pylsl


def config_file() -> str | None:
    """The lsl_api.cfg that is in force: liblsl takes the first of these that is there."""
    own = os.path.expanduser("~/lsl_api/lsl_api.cfg")
    places = (os.environ.get("LSLAPICFG", ""), "lsl_api.cfg", own, "/etc/lsl_api/lsl_api.cfg")
    return next((place for place in places if os.path.isfile(place)), None)


pylsl = _import_pylsl()
if "LSLAPICFG" not in os.environ and config_file() is None:
    with suppress(NotImplementedError):  # of an older liblsl
        pylsl.set_config_content("[log]\nlevel = -1\n")  # what is well goes without saying
local_clock = pylsl.local_clock
GONE = (pylsl.util.TimeoutError, pylsl.util.LostError)
"""What is raised of a source that is no more, or does not answer in time: pylsl has its own."""
DOCTOR = "hvf-doctor-"
"""How names of streams begin that `doctor` sends to itself: nobody else wants them."""

_CHOSEN_BY = ("source_id", "hostname", "type", "uid")
"""What tells streams of one name apart: the first of these that says what was asked for."""
_SPEAK_WAIT_S = 1.0  # for a sample of each of several streams of one name
_DUPLICATE_WAIT_S = 0.8  # liblsl asks again within it; busy machines answer late


class FoundStream:
    """What a stream's `info` says. `rate_hz` is 0 for an irregular stream such as markers."""

    def __init__(self, info: Any):
        self.info = info
        self.name, self.type = info.name(), info.type()
        self.rate_hz, self.n_channels = info.nominal_srate(), info.channel_count()
        self.source_id, self.hostname = info.source_id(), info.hostname()
        self.notice = ""  # what a person should know of how it was found
        self.uid, self.channel_format = info.uid(), info.channel_format()  # one uid an outlet
        self.twins = frozenset[str]()  # uids of others that liblsl would take for it

    def __str__(self) -> str:
        rate = f"{self.rate_hz:g} Hz" if self.rate_hz else "irregular"
        return f"'{self.name}' ({self.type}, {self.n_channels} ch, {rate}, on {self.hostname})"


def list_streams(wait_s: float = 1.0) -> list[FoundStream]:
    """All streams that answer within `wait_s`, by name."""
    found = [FoundStream(info) for info in pylsl.resolve_streams(wait_s)]
    return sorted(found, key=lambda stream: (stream.name, stream.source_id))


def did_you_mean(names: Iterable[str], there: Iterable[FoundStream]) -> str:
    """A question with the streams that are called almost as these names; "" where none is."""
    known = {stream.name.casefold(): stream.name for stream in there}
    near = [one for name in names for one in get_close_matches(name.casefold(), known, 1)]
    meant = ", ".join(f"'{known[one]}'" for one in dict.fromkeys(near))
    return f"; did you mean {meant}?" if meant else ""


def _recorded(streams: Sequence[FoundStream]) -> list[FoundStream]:
    """Those that are no session's results."""
    results = {stream.name for stream in streams if stream.type == RESULTS}
    return [
        one for one in streams if results.isdisjoint((one.name, one.name.removesuffix("-markers")))
    ]


def find_stream(name: str, wait_s: float, source: str | None = None) -> FoundStream:
    """The stream called `name`; of several the one whose source id, host, type or uid is `source`.

    Of several regular ones it is the only one that sends samples.

    Raises:
        Problem: there is none within `wait_s`, or more than one.
    """
    resolver = pylsl.ContinuousResolver(prop="name", value=name)
    deadline = time.monotonic() + wait_s
    while not _meant(resolver, source) and time.monotonic() < deadline:
        time.sleep(0.02)
    if _meant(resolver, source):
        time.sleep(_DUPLICATE_WAIT_S)
    found = _meant(resolver, source)
    if not found:
        others = _recorded(list_streams())
        there = ", ".join(f"{s} from '{s.source_id}'" for s in others) or "none"
        meant = did_you_mean((name,), (one for one in others if one.name != name))
        of_source = f" from '{source}'" if source is not None else ""
        import psutil

        is_up = any(one.isup for one in psutil.net_if_stats().values())
        way_out = "start it, or give the name of one that is there"
        raise Problem(
            f"no LSL stream named '{name}'{of_source} within {wait_s:g} s{meant} (streams that "
            f"answer: {there}); "
            + (way_out if is_up else "no network interface is up: bring one up, loopback suffices")
        )
    if len(found) > 1:
        speaking = [one for one in found if _speaks(one)]
        if len(speaking) == 1:
            silent = ", ".join(
                f"'{s.source_id}' on {s.hostname}" for s in found if s != speaking[0]
            )
            speaking[0].notice = (
                f"of {len(found)} streams named '{name}' the only one that sends was taken, "
                f"'{speaking[0].source_id}'; passed over: {silent}"
            )
            return speaking[0]
        there = ", ".join(f"'{s.source_id}' ({s.type}) on {s.hostname}" for s in found)
        words = " or ".join(_word_for(one, found) for one in found)
        raise Problem(
            f"{len(found)} LSL streams are named '{name}' (source ids {there}), one was expected; "
            f"stop the others, or choose one with --source-id or --marker-source-id: {words}"
        )
    return found[0]


def _speaks(stream: FoundStream) -> bool:
    """Whether a regular stream sends anything; the silence of others says nothing."""
    if stream.rate_hz <= 0:
        return True
    inlet = pylsl.StreamInlet(stream.info, recover=False)
    try:
        return inlet.pull_sample(_SPEAK_WAIT_S)[1] is not None
    except GONE:
        return False


def _meant(resolver: Any, source: str | None) -> list[FoundStream]:
    found = sorted(map(FoundStream, resolver.results()), key=_facts)
    for one in found:
        one.twins = frozenset(other.uid for other in found if of_one_source(one, other)) - {one.uid}
    return found if source is None else _chosen(found, source)


def of_one_source(one: FoundStream, other: FoundStream) -> bool:
    """Whether two streams of a name are the same to liblsl, which looks for one that is lost."""
    return (one.source_id, one.type) == (other.source_id, other.type)


def _facts(stream: FoundStream) -> list[str]:
    return [getattr(stream, fact) for fact in _CHOSEN_BY]


def _chosen(found: Sequence[FoundStream], word: str) -> list[FoundStream]:
    for fact in _CHOSEN_BY:
        if those := [one for one in found if getattr(one, fact) == word]:
            return those
    return []


def _word_for(one: FoundStream, found: Sequence[FoundStream]) -> str:
    """What chooses a stream alone among those that were found; every outlet has its own uid."""
    return next(word for word in _facts(one) if word and _chosen(found, word) == [one])


def time_correction(inlet: Any, wait_s: float) -> tuple[float, float]:
    """Seconds to add to a sender's stamps, and their uncertainty; blocks for up to `wait_s`.

    pylsl binds only the call that keeps the uncertainty to itself.

    Raises:
        GONE: no estimate in time, or the source is gone.
    """
    remote_s, uncertainty_s, error = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
    measure = pylsl.lib.lib.lsl_time_correction_ex
    measure.restype = ctypes.c_double
    offset_s = measure(
        inlet.obj,
        ctypes.byref(remote_s),
        ctypes.byref(uncertainty_s),
        ctypes.c_double(wait_s),
        ctypes.byref(error),
    )
    pylsl.util.handle_error(error)
    return offset_s, uncertainty_s.value
