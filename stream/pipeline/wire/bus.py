"""ZeroMQ sockets as this project uses them: one frame a message, bounded queues, no lingering."""

from collections.abc import Iterator

import zmq

from stream.pipeline.wire.messages import Message, pack, unpack

_QUEUE = 1000  # messages; trials are bounded earlier, by the reader's outbox


def open_socket(
    kind: int, endpoint: str, *, bind: bool, queue: int = _QUEUE, latest_only: bool = False
) -> zmq.Socket:
    """A socket of the process's one context.

    It keeps trying to reach a peer that is away, and drops what it could not send when it closes.
    Where both ends are `latest_only`, a message replaces the one that waits before it, on whichever
    side of the wire that is, and a sender never finds its queue full.
    """
    socket = zmq.Context.instance().socket(kind)
    socket.set_hwm(queue)
    if latest_only:
        socket.setsockopt(zmq.CONFLATE, 1)  # before it binds or connects, else it is ignored
    socket.setsockopt(zmq.LINGER, 1000 if kind in (zmq.PUSH, zmq.DEALER) else 0)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    if kind == zmq.SUB:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    if bind:
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    return socket


def try_send(socket: zmq.Socket, frame: bytes) -> bool:
    """Sends without waiting; False where the queue is full or nobody is there."""
    try:
        socket.send(frame, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def send(socket: zmq.Socket, message: Message) -> bool:
    """`try_send` of a message."""
    return try_send(socket, pack(message))


def receive(socket: zmq.Socket, wait_ms: int = 0) -> Message | None:
    """The next message, or None if none comes in time."""
    if not socket.poll(wait_ms):
        return None
    return unpack(socket.recv())


def drain(socket: zmq.Socket) -> Iterator[Message]:
    """All messages that are there now."""
    while (message := receive(socket)) is not None:
        yield message
