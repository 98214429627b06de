"""Others on the machine: they reach a session's tcp sockets, and have not all of its keys."""

import json
import socket
from contextlib import closing, suppress
from pathlib import Path

import zmq

from stream.pipeline.wire.frames import pack
from stream.pipeline.wire.messages import End

# Who binds and who connects at each endpoint of a session.
PAIRS = {
    "trials": (zmq.PUSH, zmq.PULL),
    "reports": (zmq.PULL, zmq.PUSH),
    "results": (zmq.XPUB, zmq.SUB),
    "answers": (zmq.XPUB, zmq.SUB),
    "recording": (zmq.PULL, zmq.PUSH),
    "control": (zmq.ROUTER, zmq.DEALER),
    "embeddings": (zmq.PULL, zmq.PUSH),
    "signals": (zmq.XPUB, zmq.SUB),
    "overheard": (zmq.PUSH, zmq.PULL),
}
KNOWS = ("nothing", "the server's key", "wrong keys")
ENDS = pack(End(reason="stop", facts={}))
"""What would end a session, if its results node heard it."""


def intruder(name: str, endpoint: str, knows: str) -> zmq.Socket:
    """A socket that knows an address, and of its keys what is given."""
    kind = PAIRS[name][1]
    address, _, file = endpoint.partition("#")
    stranger = zmq.Context.instance().socket(kind)
    stranger.linger = 0
    if knows != "nothing":
        stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
        stranger.curve_serverkey = zmq.curve_keypair()[0]
    if knows == "the server's key":
        stranger.curve_serverkey = json.loads(Path(file).read_text())["curve_serverkey"].encode()
    if kind == zmq.SUB:
        stranger.subscribe(b"")
    stranger.connect(address)
    with suppress(zmq.Again):  # it may have been turned away by now
        if kind == zmq.DEALER:
            stranger.send_multipart([b"x", b"stop", b""], zmq.NOBLOCK)
        if kind == zmq.PUSH:
            stranger.send(ENDS, zmq.NOBLOCK)
    return stranger


def knock(endpoint: str) -> None:
    """Says at a port what is no ZeroMQ, and how ZeroMQ begins without keys."""
    host, _, port = endpoint.partition("#")[0].removeprefix("tcp://").partition(":")
    hello = b"\xff" + bytes(8) + b"\x7f\3\1NULL" + bytes(48) + b"\4\x26\5READY"
    for said in (b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\xff" * 1000, hello):
        with closing(socket.create_connection((host, int(port)), timeout=5)) as line:
            line.settimeout(0.2)
            line.sendall(said)
            with suppress(OSError):
                line.recv(100)
