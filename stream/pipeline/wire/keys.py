"""The keys of a session's tcp sockets (CURVE): who has them is let in, and nobody else.

They are files in a folder that only this user can enter: `client.json` holds the options, by their
names, of a socket that connects, `server.json` those of one that binds.
"""

import os
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import zmq
from pydantic import Field
from zmq.utils import z85

from hvf_core.problem import Problem
from hvf_core.specs import Frozen, read_spec
from stream.pipeline.wire.endpoints import BINDING_KEYS

LAB = ("results", "signals", "control", "answers")
"""The sockets that other hosts reach, in the order of their ports, from that of --listen on."""

_Key = Annotated[str, Field(min_length=40, max_length=40)]


class _Connects(Frozen):
    """Options of a socket that connects, by ZeroMQ's names."""

    curve_serverkey: _Key
    curve_publickey: _Key
    curve_secretkey: _Key


class _Binds(Frozen):
    """Options of a socket that binds."""

    curve_server: Literal[1] = 1
    curve_secretkey: _Key
    zap_domain: _Key
    """The one key that is let in."""
    zap_enforce_domain: Literal[1] = 1
    """Nobody is while no door is kept."""


def write_keys(endpoint: str) -> None:
    """Makes keys of a session where its endpoints of tcp name them; other endpoints have none."""
    if endpoint.startswith("tcp:"):
        _make(endpoint.partition("#")[2])


def lab_keys() -> Path:
    """The keys of this user for other hosts, which he keeps: a copy of them is let in."""
    from typer import get_app_dir  # here, as few sessions need it

    return Path(get_app_dir("hvf-live")) / "keys" / "hvf-live.keys"


def make_lab_keys(anew: bool = False) -> None:
    """Makes `lab_keys` where there are none, whole or not at all; `anew` in place of others.

    Raises:
        Problem: the folder cannot be written, or is a file; those that are there are no keys, or
            other users can read them.
    """
    folder = lab_keys().parent
    is_whole = all(file.is_file() for file in _files(str(lab_keys())))
    if is_whole and not anew:
        refuse_useless_keys()
        return
    if folder.exists() and not folder.is_dir():
        raise Problem(f"'{folder}' is a file where the folder of keys belongs: move it away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft:  # none but this user's
            made = Path(draft) / folder.name
            made.mkdir(mode=0o700)
            _make(str(made / lab_keys().name))
            if anew or not is_whole:
                with suppress(FileNotFoundError):
                    folder.rename(Path(draft) / "before")
            with suppress(OSError):  # another session was first
                made.rename(folder)
    except OSError as error:
        raise Problem(
            f"no keys can be kept in '{folder}' ({error.strerror}), and nobody is let in without: "
            "leave out --listen, or make room there"
        ) from None


def refuse_useless_keys() -> None:
    """Refuses keys of the lab that are not whole, or that other users of this machine can read.

    Raises:
        Problem: it names the first file at fault, and the way out.
    """
    for path, kind in _files(str(lab_keys())).items():
        if not path.is_file():
            raise Problem(
                f"'{path}' is missing, and half of the keys let nobody in: `keys make` makes others"
            )
        try:
            read_spec(path, kind, "the file of keys")
        except Problem as problem:
            raise Problem(f"{problem}, or make others with `keys renew`") from None
    _refuse_open_keys()


def _refuse_open_keys() -> None:
    if os.name != "posix":  # Windows keeps a user's folders from others by other means
        return
    folder = lab_keys().parent
    for path, most in ((folder, 0o700), *((file, 0o600) for file in sorted(folder.iterdir()))):
        # A link has no mode of its own, and one to nothing none at all.
        if path.exists() and (mode := path.stat().st_mode & 0o777) & ~most:
            raise Problem(
                f"'{path}' has the mode {mode:04o}, so that others can read who is let in: run "
                f"`chmod {most:o} '{path}'`, and `keys renew` if somebody may have done so"
            )


def lab_endpoint(listen: str | None, name: str) -> str:
    """Where programs of other hosts find a socket of a session; "" where they are not let in."""
    if listen is None:
        return ""
    host, _, port = listen.rpartition(":")
    return f"tcp://{host}:{int(port) + LAB.index(name)}#{lab_keys()}"


def _make(file: str) -> None:
    server, server_secret = map(bytes.decode, zmq.curve_keypair())
    client, client_secret = map(bytes.decode, zmq.curve_keypair())
    connects = _Connects(
        curve_serverkey=server, curve_publickey=client, curve_secretkey=client_secret
    )
    binds = _Binds(curve_secretkey=server_secret, zap_domain=client)
    for path, options in zip(_files(file), (connects, binds), strict=True):
        path.touch(mode=0o600)
        path.write_text(options.model_dump_json(indent=2) + "\n", encoding="utf-8")


def secure(socket: zmq.SyncSocket, endpoint: str, *, bind: bool) -> str:
    """Gives a socket the keys that its endpoint names; returns where it is to bind or connect.

    Raises:
        Problem: it names none, or they cannot be read.
    """
    address, _, file = endpoint.partition("#")
    if not file:
        raise Problem(f"'{endpoint}' has no keys: give ADDRESS#FILE, with the file of its keys")
    path, kind = list(_files(file).items())[bind]
    if not path.is_file():
        raise Problem(f"the keys of the session, '{path}', are gone: start it again")
    for name, value in read_spec(path, kind, "the file of a session's keys"):
        setattr(socket, name, value.encode() if isinstance(value, str) else value)
    if bind:
        _keep_door(socket.context)
    return address


def _files(file: str) -> dict[Path, type[_Connects] | type[_Binds]]:
    """Of one lot of keys: the file of those that connect, and that of those that bind."""
    return {Path(file): _Connects, Path(file).with_name(BINDING_KEYS): _Binds}


@cache
def _keep_door(context: zmq.SyncContext) -> None:
    """Starts a thread that answers ZeroMQ's question (ZAP) whether a key is to be let in."""
    door = context.socket(zmq.REP)
    door.bind("inproc://zeromq.zap.01")
    threading.Thread(target=_let_in, args=(door,), name="door", daemon=True).start()


def _let_in(door: zmq.SyncSocket) -> None:
    with suppress(zmq.ContextTerminated), door:
        while True:
            version, request, domain, _, _, mechanism, *proved = door.recv_multipart()
            known = mechanism == b"CURVE" and z85.encode(proved[0]) == domain
            status = (b"200", b"welcome") if known else (b"400", b"no key of this session")
            door.send_multipart([version, request, *status, b"", b""])
