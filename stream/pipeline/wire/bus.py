"""ZeroMQ sockets as this project uses them: one frame a message, bounded queues, no lingering."""

from collections.abc import Callable, Iterator, Sequence

import zmq

from hvf_core.problem import Problem
from stream.pipeline.wire.frames import pack, prefix, unpack
from stream.pipeline.wire.keys import secure
from stream.pipeline.wire.messages import Message

_QUEUE = 1000  # messages; trials are bounded earlier, by the reader's outbox
_LARGEST = 2**30  # bytes of a message; who sends a larger one is cut off before it is taken in


def open_socket(
    kind: int,
    endpoint: str,
    *,
    bind: bool,
    queue: int = _QUEUE,
    latest_only: bool = False,
    hears: Sequence[type] = (),
    line: str = "",
    also: str = "",
) -> zmq.SyncSocket:
    """A socket of the process's one context.

    It keeps trying to reach a peer that is away, and drops what it could not send when it closes.
    Where both ends are `latest_only`, a message replaces the one that waits before it, on whichever
    side of the wire that is, and a sender never finds its queue full. A SUB socket `hears` the
    kinds of messages that are given, or all; what it does not hear is never sent to it. A ROUTER
    knows it as `line`, and nobody else by that name meanwhile. One that binds is reached at `also`,
    too, with the keys of that address.

    Raises:
        Problem: the address is taken, or cannot be; the keys that it needs are not there.
    """
    socket: zmq.SyncSocket = zmq.Context.instance().socket(kind)
    socket.set_hwm(queue)
    socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST)
    if latest_only:
        socket.setsockopt(zmq.CONFLATE, 1)  # before it binds or connects, else it is ignored
    socket.setsockopt(zmq.LINGER, 1000 if kind in (zmq.PUSH, zmq.DEALER) else 0)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    if line:
        socket.setsockopt(zmq.ROUTING_ID, line.encode())
    if kind == zmq.SUB:
        for begins in [prefix(message) for message in hears] or [b""]:
            socket.setsockopt(zmq.SUBSCRIBE, begins)
    is_tcp = endpoint.startswith("tcp:")
    address = secure(socket, endpoint, bind=bind) if is_tcp else endpoint
    if not bind:
        socket.connect(address)
        return socket
    _bind(socket, address, "start the session again" if is_tcp else "give --set transport=tcp")
    if also:  # keys are those of the addresses that a socket is bound to from then on
        _bind(socket, secure(socket, also, bind=True), "give another address with --listen")
    return socket


def _bind(socket: zmq.SyncSocket, address: str, way_out: str) -> None:
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise Problem(f"nobody can be met at '{address}' ({error}): {way_out}") from None


def try_send(socket: zmq.SyncSocket, frame: bytes) -> bool:
    """Sends without waiting; False where the queue is full or nobody is there."""
    try:
        socket.send(frame, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def send(socket: zmq.SyncSocket, message: Message) -> bool:
    """`try_send` of a message."""
    return try_send(socket, pack(message))


def receive(socket: zmq.SyncSocket, wait_ms: int = 0) -> Message | None:
    """The next message, or None if none comes in time."""
    if not socket.poll(wait_ms):
        return None
    return unpack(socket.recv())


def drain(socket: zmq.SyncSocket) -> Iterator[Message]:
    """All messages that are there now."""
    while (message := receive(socket)) is not None:
        yield message


class Listener:
    """Takes the messages of one session from a socket; what is none of them costs itself alone.

    Such frames are counted, and told at the 1st, 10th, 100th and so on: they flood no log.

    Args:
        socket: what they come from.
        session: whose they are.
        tell: hears what a person should know.
    """

    def __init__(self, socket: zmq.SyncSocket, session: str, tell: Callable[[str], object]):
        self.n_passed_over = 0
        self._socket, self._session, self._tell = socket, session, tell

    @property
    def is_waiting(self) -> bool:
        """Whether something is there to be taken."""
        return bool(self._socket.poll(0))

    def receive(self, wait_ms: int = 0) -> Message | None:
        """The next message; None if none comes in time, or what comes is none."""
        if not self._socket.poll(wait_ms):
            return None
        try:
            return unpack(self._socket.recv(), self._session)
        except Problem as problem:
            self.pass_over(problem)
            return None

    def drain(self) -> Iterator[Message]:
        """All messages that are there now."""
        while self._socket.poll(0):
            if (message := self.receive()) is not None:
                yield message

    def pass_over(self, why: Problem) -> None:
        """Counts what is not to be taken; a receiver says so too, of what does not suit him."""
        self.n_passed_over += 1
        n = str(self.n_passed_over)
        if n.strip("0") == "1":
            what = "a message is" if n == "1" else f"{n} messages are by now"
            self._tell(f"{what} passed over: {why}")

    def close(self) -> None:
        self._socket.close(0)


class Publisher:
    """Sends messages, with their number and the session's id, to those who hear their kind.

    It never waits for anybody.

    Args:
        left: what goes out of a message.
        also: a second address, of other hosts.

    Attributes:
        seq: number of the last message; set it to begin elsewhere than at 1.
    """

    def __init__(
        self,
        endpoint: str,
        session: str,
        left: Callable[[Message], Message] = lambda message: message,
        also: str = "",
    ):
        self.seq, self._session, self._left = 0, session, left
        self._socket = open_socket(zmq.XPUB, endpoint, bind=True, also=also)
        self._heard: set[bytes] = set()  # with what frames begin that somebody hears

    def is_heard(self, kind: type) -> bool:
        """Whether anybody hears a kind of message now."""
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            change = self._socket.recv()
            if change[:1] == b"\1":
                self._heard.add(change[1:])
            elif change[:1] == b"\0":  # anything else is said by no subscriber
                self._heard.discard(change[1:])
        return not self._heard.isdisjoint((b"", prefix(kind)))

    def publish(self, message: Message) -> None:
        """Sends a message; one that nobody hears costs its number only."""
        self.seq += 1
        if self.is_heard(type(message)):
            try_send(self._socket, pack(self._left(message), self.seq, self._session))

    def close(self) -> None:
        self._socket.close(0)
