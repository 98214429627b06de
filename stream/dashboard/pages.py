"""The pages that are open: what each is sent, and what it asks for."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from hvf_core.problem import Problem
from hvf_core.text import printable
from stream.acquire.lsl import local_clock
from stream.dashboard.asks import LOOKS, WATCHED, Request, WrongForm, id_in, read_request
from stream.dashboard.board.board import KEPT
from stream.dashboard.board.signals import Piece
from stream.dashboard.checks import Checks
from stream.dashboard.doors import Rights
from stream.dashboard.feed import Feed
from stream.dashboard.hello import hello
from stream.dashboard.shelf import Shelf
from stream.pipeline.books.ledger import finite

_TICK_S = 0.05
_STATE_S, _EVOKED_S = 0.1, 1.0  # at most once in it
_LAST_S = 1.0
_KEEPS = {"trial": KEPT, "note": 50, "eeg": 40}
_MOST_RUBBISH = 10  # of one page
_MOST_ASKED = 8  # of one page, that it has not taken the answers to
_USUAL_ENDS = (1000, 1001, 1005, 1006, 1012)  # left, gone, without a word, lost, ended by us
_log = logging.getLogger("hvf-live.dashboard")
Said = str | tuple[int, Piece]
"""What is sent: a text, or a piece of EEG with its number."""


@dataclass(eq=False)
class Page:
    """One browser's connection."""

    socket: WebSocket
    rights: Rights
    watches: frozenset[str] = frozenset()
    number: int = 0
    """Of the last item that it was sent."""
    piece: int = 0
    """Of the last piece of EEG; 0 before the first."""
    n_missed: int = 0
    """Pieces that went by while it was slow."""
    replies: deque[list[str]] = field(default_factory=deque)
    """To each thing that it has asked."""
    due: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether there is something to be sent."""
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MOST_ASKED))
    """For what it may ask; it is heard no further until it takes what it has asked for."""
    n_rubbish: int = 0
    asked: set[asyncio.Task[None]] = field(default_factory=set)

    def reply(self, *told: Mapping[str, Any]) -> None:
        self.replies.append([as_json(one) for one in told])
        self.due.set()


class Pages:
    """Sends every page what is new, as fast as it takes it, and asks the session for pages."""

    def __init__(self, feed: Feed):
        self._feed, self._open = feed, set[Page]()
        self.checks = Checks(feed.config.folder)
        self._checked = self.checks.told
        self._shelf: Shelf[Said] = Shelf(_KEEPS)
        self._last: dict[str, str] = {}
        self._n_changes, self._n_pieces = -1, 0
        self._next_state_s = self._next_evoked_s = 0.0

    async def run(self) -> None:
        """Puts what is new on the shelf, for as long as the server runs."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self._open:
                self._refresh()

    def state(self) -> dict[str, Any]:
        """The state as it is by now."""
        with self._feed.lock:
            return self._feed.board.told(local_clock(), self._feed.files())

    def hello(self, rights: Rights) -> dict[str, Any]:
        """The first that a page is told."""
        feed = self._feed
        with feed.lock:
            return hello(
                feed.board,
                n_gallery=feed.n_gallery,
                rights=rights,
                now_s=local_clock(),
                over=feed.was_over,
            )

    async def serve(self, socket: WebSocket, rights: Rights) -> None:
        """Serves one page until it is gone."""
        page = Page(socket, rights)
        self._refresh()
        self._open.add(page)
        tasks = [asyncio.create_task(one) for one in (self._send(page), self._hear(page))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(page)
            self._watch()
            for task in (*tasks, *page.asked):
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        if ended[1] is None:
            await socket.close(1008, "too many requests that are none")
        for one in ended:
            self._log_end(one)

    async def say_last(self) -> None:
        """Gives pages a moment to take what is new: the server is about to end."""
        self._n_changes = -1
        self._next_state_s = 0.0
        self._refresh()
        deadline_s = asyncio.get_running_loop().time() + _LAST_S
        while any(page.number < self._shelf.number for page in self._open):
            if asyncio.get_running_loop().time() > deadline_s:
                break
            await asyncio.sleep(_TICK_S)

    def _refresh(self) -> None:
        """Takes what the feed has, and tells pages that something is there."""
        before, now_s = self._shelf.number, asyncio.get_running_loop().time()
        with self._feed.lock:
            if now_s >= self._next_state_s:
                self._next_state_s = now_s + _STATE_S
                self._put_board()
            self._put_signals(now_s)
        if self._shelf.number != before:
            for page in self._open:
                page.due.set()

    def _put_board(self) -> None:
        board, feed = self._feed.board, self._feed
        self._tell("state", as_json(board.told(local_clock(), feed.files())))
        if self.checks.told is not self._checked:
            self._checked = self.checks.told
            self._shelf.put("checks", as_json(self._checked))
        if board.n_changes == self._n_changes:
            return
        self._n_changes = board.n_changes
        known = (board.channels, board.values, board.started, board.is_simulated, feed.n_gallery)
        self._tell("hello", repr(known))
        for trial in sorted(board.changed):
            if (told := board.trial(trial)) is not None:
                self._shelf.put("trial", as_json(told), trial)
        board.changed.clear()
        if board.painting is not None:
            self._tell("painting", as_json(board.painting))
        for note in board.notes:
            key = (note["at_s"], note["node"], note["text"])
            if not self._shelf.has("note", key):
                self._shelf.put("note", as_json(note), key)

    def _put_signals(self, now_s: float) -> None:
        feed = self._feed
        for piece in feed.pieces:
            self._n_pieces += 1
            self._shelf.put("eeg", (self._n_pieces, piece), self._n_pieces)
        feed.pieces = []
        if feed.quality is not None:
            self._tell("quality", as_json(feed.quality))
        if now_s >= self._next_evoked_s and feed.signals.n_cut:
            self._next_evoked_s = now_s + _EVOKED_S
            self._tell("evoked", as_json(feed.signals.evoked()))

    def _tell(self, kind: str, text: str) -> None:
        """Puts something down if it is not what is there."""
        if self._last.get(kind) != text:
            self._last[kind] = text
            self._shelf.put(kind, text)

    async def _send(self, page: Page) -> None:
        since = self._shelf.number
        await page.socket.send_text(as_json(self.hello(page.rights)))
        while True:
            # One at a time: while a slow page takes one, the next may be out of date.
            while page.replies or (waiting := self._shelf.since(page.number)):
                if page.replies:
                    for text in page.replies.popleft():
                        await page.socket.send_text(text)
                    page.room.release()
                    continue
                page.number, kind, said = waiting[0]
                if isinstance(said, tuple):
                    await self._send_piece(page, *said)
                elif kind == "hello":
                    if page.number > since:
                        await page.socket.send_text(as_json(self.hello(page.rights)))
                elif kind == "state":
                    more = f',"dropped_updates":{page.n_missed}}}'
                    await page.socket.send_text(said[:-1] + more)
                elif _is_for(page, kind):
                    await page.socket.send_text(said)
            page.due.clear()
            await page.due.wait()

    async def _send_piece(self, page: Page, number: int, piece: Piece) -> None:
        if "eeg" not in page.watches:
            page.piece = 0
            return
        n_missed = number - page.piece - 1 if page.piece else 0
        page.n_missed += n_missed
        page.piece = number
        await page.socket.send_bytes(piece.frame(misses=n_missed > 0))

    async def _hear(self, page: Page) -> None:
        """Obeys a page until it is gone; returns where it sends too much that is no request."""
        while True:
            await page.room.acquire()
            message = await page.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))
            text = message.get("text") or ""  # bytes are no request
            try:
                request = read_request(text)
                if page.rights != "control" and request.ask not in LOOKS:
                    raise Problem(f"this link only looks: it may not ask for '{request.ask}'")
            except Problem as problem:
                page.n_rubbish += 1
                _log.warning("a page's request is refused: %s", printable(str(problem)))
                page.reply({"kind": "said", "id": id_in(text), "ok": False, "text": str(problem)})
                if page.n_rubbish > _MOST_RUBBISH:
                    return
                continue
            task = asyncio.create_task(self._obey(page, request))
            page.asked.add(task)
            task.add_done_callback(page.asked.discard)

    async def _obey(self, page: Page, request: Request) -> None:
        said: dict[str, Any] = {"kind": "said", "id": request.id, "ok": True, "text": ""}
        more = []
        try:
            if request.ask == "watch":
                page.watches = frozenset(request.kinds)
                self._watch()
            elif request.ask == "trial_eeg":
                more.append(await asyncio.to_thread(self._feed.trial_eeg, request.trial))
            elif request.ask == "check":
                said["text"] = await asyncio.to_thread(
                    self.checks.begin, is_over=self._feed.is_over
                )
            else:
                done = []
                for verb, argument in request.orders(self._feed.config):
                    done.append(await asyncio.to_thread(self._feed.ask, verb, argument))
                said["text"] = "; ".join(done)
        except Problem as problem:
            said |= {"ok": False, "text": str(problem)}
            if isinstance(problem, WrongForm):
                said["fields"] = problem.fields
        page.reply(*more, said)

    def _watch(self) -> None:
        self._feed.watch(kind for page in self._open for kind in page.watches)

    def _log_end(self, ended: object) -> None:
        if isinstance(ended, WebSocketDisconnect):
            if ended.code not in _USUAL_ENDS:
                _log.warning(
                    "a page was left with %s %s", ended.code, printable(ended.reason or "")
                )
        elif isinstance(ended, Exception):
            _log.error("a page was left", exc_info=ended)


def _is_for(page: Page, kind: str) -> bool:
    """Whether a page is sent a kind; who only looks is not told what this machine lets in."""
    if kind == "checks":
        return page.rights == "control"
    return kind not in WATCHED or kind in page.watches


def as_json(told: Mapping[str, Any]) -> str:
    """A message to a page; what is no number in JSON is none in it."""
    try:
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(finite(told), separators=(",", ":"), ensure_ascii=False)
