"""Follows a session in threads of its own, and keeps what pages show of it."""

import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any

from hvf_core.problem import Problem
from index.gallery import Gallery
from stream import client
from stream.acquire.lsl import local_clock
from stream.dashboard.board.board import Board
from stream.dashboard.board.past import told_by
from stream.dashboard.board.signals import Piece, Signals, quality
from stream.dashboard.board.verdicts import Files
from stream.dashboard.hello import head_map, window_of
from stream.dashboard.recorded import RecordedTrials
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.books.summary import read_summary
from stream.pipeline.galleries import open_accepted
from stream.pipeline.report.page import REPORT
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.orders import changed

_BY = "dashboard"
_KINDS = (
    *(client.MarkerSeen, client.Retrieval, client.Settled, client.PaintingState, client.Preview),
    *(client.Painted, client.NodeState, client.Noted, client.StreamHealth, client.SessionClosed),
    *(client.SessionState, client.Controlled),
)
_AGAIN_S, _JOIN_S = 0.5, 5.0
_GIVEN_UP_S = 15.0  # a session that starts answers sooner
_OF: dict[str, type] = {"eeg": client.Eeg, "evoked": client.Eeg, "quality": client.ChannelQuality}
_MOST_PIECES = 100
_REREAD_S = 5.0  # what was missed is read from the ledger, at most so often


class Feed:
    """What is known of a session. All of it is used with `lock` held.

    Attributes:
        is_over: whether nothing more will come, as far as is known.
        was_over: whether the session had ended before it was followed.
        pieces: EEG that nobody has taken yet, the newest.
        quality: how the channels were in the last second that was watched.
    """

    def __init__(self, config: SessionConfig):
        self.config, self.lock = config, RLock()
        self.is_over = False
        self.was_over = read_summary(config.folder) is not None
        self.pieces: list[Piece] = []
        self.quality: dict[str, Any] | None = None
        self.gallery: Gallery | None = None
        self.signals = Signals(window_of(config))
        self._recorded = RecordedTrials(config.folder, window_of(config))
        self._session: client.Session | None = None
        self._watched: frozenset[str] = frozenset()
        self._wanted, self._joined, self._ended = Event(), Event(), Event()
        self._grown, self._reread_s, self._heard_s = (0, 0.0), 0.0, 0.0
        self.board = Board(config, self.label_of)
        self._open_gallery()
        self._read_history(self.board)
        if self.board.gallery or "decoding.among" in self.board.values:
            self._open_gallery()

    def begin(self) -> None:
        """Begins to follow; a session that is over is read only."""
        Thread(target=head_map, args=((),), daemon=True).start()  # it takes a moment to load
        if self.was_over:
            self._finish()
            return
        self.board.is_sought = True
        for target in (self._follow, self._watch):
            Thread(target=target, daemon=True).start()

    def catch_up(self) -> None:
        """Reads what a session that has just ended has left, where it was not heard to end."""
        if not self.board.ended and read_summary(self.config.folder) is not None:
            self._finish()

    def end(self) -> None:
        """Leaves the session, which goes on."""
        self._ended.set()
        self._wanted.set()

    @property
    def n_gallery(self) -> int:
        """Images that answers are among."""
        return len(self.gallery) if self.gallery is not None else 0

    def watch(self, kinds: Iterable[str]) -> None:
        """Says what pages show now: nothing else is asked of the session."""
        if (watched := frozenset(kinds)) != self._watched:
            self._watched = watched
            self._wanted.set()

    def ask(self, verb: str, argument: str) -> str:
        """Asks the session; its sentence.

        Raises:
            Problem: it does not do it, or is over.
        """
        if self.is_over:
            raise Problem("the session has ended, and is not asked for anything any more")
        if not self._joined.wait(_JOIN_S) or (session := self._session) is None:
            raise Problem(f"the session does not answer: ask for '{verb}' again in a moment")
        try:
            return session.ask(verb, argument)
        except client.ClientError as error:
            raise Problem(str(error)) from None

    def trial_eeg(self, number: int) -> dict[str, Any]:
        """The EEG of a trial: of what was watched, or of the recording once that is whole."""
        with self.lock:
            told, card = self.signals.trial(number), self.board.trials.get(number)
        if told["uv"] is None and self.is_over and card is not None and card.marker is not None:
            return self._recorded.trial(card.marker)
        return told

    def label_of(self, id_: str) -> str:
        """What people call an image."""
        row = self.gallery.row_of(id_) if self.gallery is not None else None
        return id_ if self.gallery is None or row is None else self.gallery.labels[row]

    def files(self) -> Files:
        """What the session's folder shows."""
        found = sorted(self.config.folder.glob("recording*.xdf"), key=_age)
        n_bytes, now_s = (found[-1].stat().st_size if found else 0), time.monotonic()
        if n_bytes != self._grown[0]:
            self._grown = (n_bytes, now_s)
        return Files(
            recording=found[-1].name if found else None,
            n_bytes=n_bytes,
            still_s=now_s - self._grown[1],
            has_report=(self.config.folder / REPORT).is_file(),
        )

    def _read_history(self, board: Board) -> None:
        path = self.config.folder / "ledger.jsonl"
        if path.is_file():
            damage: list[str] = []
            records, blind = read_ledger(path, damage.append), self.config.outputs.blind
            for message, at_s in told_by(records, self.label_of, blind=blind):
                board.take(message, at_s)
            for sentence in damage:
                board.damaged(sentence)

    def _follow(self) -> None:
        """Until the session is over, also through what it restarts of itself."""
        self._heard_s = time.monotonic()
        while not self._ended.is_set():
            with suppress(client.ClientError):
                self._follow_while_heard()
            self._joined.clear()
            if read_summary(self.config.folder) is not None:
                self._finish()
                return
            if time.monotonic() > self._heard_s + _GIVEN_UP_S:
                self._is(lost=True)  # `finish` may complete its books yet
            self._ended.wait(_AGAIN_S)

    def _is(self, *, lost: bool) -> None:
        with self.lock:
            self.board.is_sought = False
            self.board.n_changes += self.board.is_lost != lost
            self.board.is_lost = self.is_over = lost
        if not lost:
            self._wanted.set()  # the EEG of one that is back

    def _follow_while_heard(self) -> None:
        with client.connect(self.config.folder, by=_BY, wait_s=_AGAIN_S) as session:
            self._session = session
            self._is(lost=False)  # somebody has answered
            self._joined.set()
            session.listen(*_KINDS)
            with self.lock:  # what was said since, and before anybody listened
                self._read_history(self.board)
            while not self._ended.is_set() and (some := session.some()) is not None:
                self._heard_s = time.monotonic()
                for message in some:
                    self._take(message)

    def _take(self, message: Any) -> None:
        with self.lock:
            self.board.take(message, local_clock(), f"{datetime.now():%H:%M}")
            if isinstance(message, client.MarkerSeen):
                self.signals.opened(message)
            elif isinstance(message, client.Settled) and message.reason == "rejected":
                self.signals.rejected(message.trial)
        if isinstance(message, client.Controlled) and message.verb in ("gallery", "set"):
            self._open_gallery()
        elif self.board.lacks_history and time.monotonic() > self._reread_s:
            self._reread_s = time.monotonic() + _REREAD_S
            with self.lock:
                self._read_history(self.board)

    def _finish(self) -> None:
        """Reads what the session has left, which is more than was heard of it."""
        board, before = Board(self.config, self.label_of), self.board
        self._read_history(board)  # of a long session it takes a while: pages go on meanwhile
        summary = read_summary(self.config.folder) or {}
        failure = None if self.config.outputs.blind else summary.get("failure")
        board.state, board.ended = "closed", {"end": summary.get("end"), "failure": failure}
        board.is_simulated |= bool(summary.get("simulated"))
        with self.lock:
            board.channels, board.rate_hz = before.channels, before.rate_hz
            board.n_changes, board.painting = before.n_changes + 1, before.painting
            self.board, self.is_over = board, True

    def _open_gallery(self) -> None:
        """Opens the gallery that answers are among by now."""
        config, board = self.config, self.board
        if config.gallery is None:
            return
        with suppress(Problem, OSError):  # it was moved: images are called by their ids
            if board.gallery:
                config = changed(config, "gallery", board.gallery)
            if (among := board.values.get("decoding.among", "")) != "":
                config = changed(config, "set", f"decoding.among {among or 'none'}")
            found = open_accepted(config)
            with self.lock:
                self.gallery = found

    def _watch(self) -> None:
        """Listens to the EEG while a page shows it."""
        while not self._ended.is_set():
            self._wanted.wait()
            self._wanted.clear()
            while (watched := self._watched) and not (self._ended.is_set() or self.is_over):
                with suppress(client.ClientError):
                    self._listen(watched)
                if watched == self._watched:
                    self._ended.wait(_AGAIN_S)
            with self.lock:
                self.signals.rest()

    def _listen(self, watched: frozenset[str]) -> None:
        kinds = {_OF[kind] for kind in watched}
        with client.connect(self.config.folder, by=_BY, wait_s=_AGAIN_S) as session:
            session.listen(*kinds)
            while watched == self._watched and not self._ended.is_set():
                if (some := session.some()) is None:
                    return
                with self.lock:
                    for message in some:
                        self._take_signal(message)

    def _take_signal(self, message: Any) -> None:
        if isinstance(message, client.ChannelQuality):
            self.quality = quality(message)
            self._channels_are(message.channels)
        elif isinstance(message, client.Eeg):
            self._channels_are(message.channels)
            piece = self.signals.take(message)
            self.pieces = [*self.pieces, *([piece] if piece else [])][-_MOST_PIECES:]

    def _channels_are(self, channels: list[str]) -> None:
        if self.board.channels != tuple(channels):
            self.board.channels = tuple(channels)
            self.board.n_changes += 1


def _age(path: Path) -> tuple[int, str]:
    return len(path.name), path.name
