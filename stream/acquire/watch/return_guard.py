"""Minds what comes back in a stream's place: it must have the same channels and the same rate."""

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from hvf_core.problem import Problem
from stream.acquire.channels import order_of
from stream.acquire.inlet import Inlet, described, labels_of
from stream.acquire.lsl import GONE, FoundStream, of_one_source, pylsl

_LOOK_S, _INFO_WAIT_S = 1.0, 2.0
_MISSED_LOOKS = 2  # a busy machine may not answer one of them


class _Returned(NamedTuple):
    """What a stream is that came back: another one, by this change, or the same in this order."""

    change: str = ""
    order: tuple[int, ...] | None = None


class ReturnGuard:
    """Looks, in a thread of its own, at what answers under the name of a stream that fell silent.

    liblsl reconnects to a source that restarted at another rate without a word, and waits for ever
    for one that restarted with other channels or another source id. Where the source itself does
    not answer and one other stream of its name, shape and channels does, the inlet follows that.
    Channels that came back in another order are put in that of before, by their labels.

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
        if any(one.uid == was.uid for one in ours):
            self._inlet.go_on(was, self._inlet.order)
        elif ours:
            self._judge(was, ours)
        elif self._n_missed >= _MISSED_LOOKS and found and not self._is_chosen:
            self._take(was, found)

    def _judge(self, was: FoundStream, ours: Sequence[FoundStream]) -> None:
        """Goes on with the source itself, if it still is what it was."""
        told = [self._compare(one) for one in ours]
        returned = [one for one in told if one is not None]
        if len(returned) < len(told):
            return  # it does not say: at the next look
        changes = [one.change for one in returned if one.change]
        if len(set(returned)) > 1:
            changes.append(f"the stream '{was.name}' came back twice, and not as the same")
        if changes:
            self.refusal = f"{changes[0]}; end it and begin a new session"
            return
        if not was.twins:
            self._inlet.go_on(ours[0], returned[0].order)
        elif not self._follows(was, ours[0], returned[0].order):  # liblsl has not looked for it
            return
        self._say_order(was, returned[0])

    def _take(self, was: FoundStream, found: Sequence[FoundStream]) -> None:
        """Follows the only stream that can be meant, or says why it does not."""
        if len(found) > 1:
            there = ", ".join(f"'{one.source_id}' on {one.hostname}" for one in found)
            self._say(
                f"the stream '{was.name}' is lost, and {len(found)} others have its name "
                f"({there}): none is taken; stop all but the one that is meant"
            )
            return
        returned = self._compare(found[0])
        if returned is None:
            return  # it does not say: at the next look
        if returned.change:
            self._say(f"not taken: {returned.change}; end it and begin a new session")
            return
        if not self._follows(was, found[0], returned.order):
            return
        self._n_missed = 0
        self._say(
            f"the stream '{was.name}' came back from another source ('{found[0].source_id}' "
            f"on {found[0].hostname}, it was '{was.source_id}' on {was.hostname}): taken"
        )
        self._say_order(was, returned)

    def _follows(self, was: FoundStream, found: FoundStream, order: tuple[int, ...] | None) -> bool:
        """Takes samples from a stream from now on, if it answers."""
        found.twins = was.twins
        try:
            self._inlet.follow(found, order)
        except Problem as problem:
            self._say(str(problem))
            return False
        return True

    def _say_order(self, was: FoundStream, returned: _Returned) -> None:
        if returned.order is not None:
            self._say(
                f"the stream '{was.name}' came back with its channels in another order: they are "
                "put in that of before, by their labels"
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

    def _compare(self, found: FoundStream) -> _Returned | None:
        """What has come back; None where it does not answer in time."""
        was = self._inlet.stream
        if found.rate_hz != was.rate_hz:
            change = f"at {found.rate_hz:g} Hz, the session began at {was.rate_hz:g} Hz"
        elif found.n_channels != was.n_channels:
            change = f"with {found.n_channels} channels, the session began with {was.n_channels}"
        elif found.channel_format != was.channel_format:
            change = "in another format of samples than the session began with"
        elif not was.rate_hz:
            return _Returned()
        else:
            return self._compare_channels(found)
        return _Returned(f"the stream '{was.name}' came back {change}")

    def _compare_channels(self, found: FoundStream) -> _Returned | None:
        inlet = pylsl.StreamInlet(found.info, recover=False)
        try:
            info = inlet.info(_INFO_WAIT_S)
        except GONE:
            return None
        before, units = self._inlet.labels, described(info.get_channel_units(), found)
        order = order_of(before, labels_of(info) or before)
        if order is None:
            differs = "channel names"
        elif [units[column] for column in order] != self._inlet.told_units:
            differs = "units"
        else:
            return _Returned(order=None if order == tuple(sorted(order)) else order)
        return _Returned(
            f"the stream '{found.name}' came back with other {differs} than the session began with"
        )


def _same(one: FoundStream, was: FoundStream) -> bool:
    """Whether a stream is of the source of one that was; its twins are not."""
    is_twin = was.twins and (one.uid in was.twins or one.hostname != was.hostname)
    return of_one_source(one, was) and not is_twin
