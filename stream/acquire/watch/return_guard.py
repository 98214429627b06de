"""Minds what comes back in a stream's place: it must have the same channels and the same rate."""

import threading
import time
from collections.abc import Sequence

from hvf_core.problem import Problem
from stream.acquire.inlet import Inlet, described, labels_of
from stream.acquire.lsl import FoundStream, pylsl

_LOOK_S, _INFO_WAIT_S = 1.0, 2.0
_MISSED_LOOKS = 2  # a busy machine may not answer one of them


class ReturnGuard:
    """Looks, in a thread of its own, at what answers under the name of a stream that fell silent.

    liblsl reconnects to a source that restarted at another rate without a word, and waits for ever
    for one that restarted with other channels or another source id. Where the source itself does
    not answer and one other stream of its name, shape and channels does, the inlet follows that.

    Args:
        is_chosen: a person has named the source id: no other stream is meant.

    Attributes:
        is_lost: whether nothing has answered for some looks.
        refusal: why the session cannot go on with what came back; None while nothing speaks
            against it.
        said: what a person should know, each time that it changes.
    """

    def __init__(self, inlet: Inlet, is_chosen: bool = False):
        self._inlet = inlet
        self._is_chosen = is_chosen
        self._thread: threading.Thread | None = None
        self._n_missed = 0
        self._told = ""
        self.refusal: str | None = None
        self.said: list[str] = []

    @property
    def is_lost(self) -> bool:
        return self._n_missed > _MISSED_LOOKS

    def look(self) -> bool:
        """Starts looking and returns at once; False where it looks already."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return True

    def _look(self) -> None:
        was = self._inlet.stream
        found = self._answering(was)
        ours = [one for one in found if one.uid == was.uid or (was.source_id and _same(one, was))]
        self._n_missed = 0 if ours else self._n_missed + 1
        for one in ours:
            self.refusal = self._compare(one) or self.refusal
        if self._n_missed >= _MISSED_LOOKS and found and not self._is_chosen:
            self._take(was, found)

    def _take(self, was: FoundStream, found: Sequence[FoundStream]) -> None:
        """Follows the only stream that can be meant, or says why it does not."""
        change = self._compare(found[0])
        if len(found) > 1:
            there = ", ".join(f"'{one.source_id}' on {one.hostname}" for one in found)
            self._say(
                f"the stream '{was.name}' is lost, and {len(found)} others have its name "
                f"({there}): none is taken; stop all but the one that is meant"
            )
        elif change is not None:
            self._say(f"not taken: {change}")
        else:
            try:
                self._inlet.follow(found[0])
            except Problem as problem:
                self._say(str(problem))
                return
            self._n_missed = 0
            self._say(
                f"the stream '{was.name}' came back from another source ('{found[0].source_id}' "
                f"on {found[0].hostname}, it was '{was.source_id}' on {was.hostname}): taken"
            )

    def _say(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            self.said.append(sentence)

    def _answering(self, was: FoundStream) -> list[FoundStream]:
        """All that answer under its name; looks no longer once the stream itself does."""
        resolver = pylsl.ContinuousResolver(prop="name", value=was.name)
        end_s = time.monotonic() + _LOOK_S
        found: list[FoundStream] = []
        while time.monotonic() < end_s and not any(_same(one, was) for one in found):
            time.sleep(0.05)
            found = [FoundStream(info) for info in resolver.results()]
        return found

    def _compare(self, found: FoundStream) -> str | None:
        was = self._inlet.stream
        if found.uid == was.uid:
            return None
        if found.rate_hz != was.rate_hz:
            change = f"at {found.rate_hz:g} Hz, the session began at {was.rate_hz:g} Hz"
        elif found.n_channels != was.n_channels:
            change = f"with {found.n_channels} channels, the session began with {was.n_channels}"
        elif found.channel_format != was.channel_format:
            change = "in another format of samples than the session began with"
        elif was.rate_hz and (differs := self._described_otherwise(found)):
            change = f"with other {differs} than the session began with"
        else:
            return None
        return f"the stream '{was.name}' came back {change}; end it and begin a new session"

    def _described_otherwise(self, found: FoundStream) -> str | None:
        """What its channels' description has else; None where it does not answer in time."""
        inlet = pylsl.StreamInlet(found.info, recover=False)
        try:
            info = inlet.info(_INFO_WAIT_S)
        except (TimeoutError, pylsl.util.LostError):
            return None
        if labels_of(info) not in ((), self._inlet.labels):
            return "channel names"
        same = described(info.get_channel_units(), found) == self._inlet.told_units
        return None if same else "units"


def _same(one: FoundStream, other: FoundStream) -> bool:
    return one.source_id == other.source_id
