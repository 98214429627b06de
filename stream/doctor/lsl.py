"""LSL: which liblsl, with which configuration, and whether a stream of this machine arrives."""

import configparser
import os
import secrets
from collections.abc import Iterator
from queue import Empty, SimpleQueue

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.doctor.network import LET_THROUGH
from stream.doctor.verdict import Named, Verdict, verdict
from stream.pipeline.wire.config import SessionConfig

_WAIT_S = 5.0


def library(named: Named) -> Iterator[Verdict]:
    from stream.acquire.lsl import pylsl

    number, file = pylsl.library_version(), os.environ.get("PYLSL_LIB", "")
    yield verdict(
        f"liblsl {number // 100}.{number % 100} from '{pylsl.lib.lib._name}'",
        (file and not os.path.isfile(file), f"PYLSL_LIB is no file ('{file}'), unset it"),
        (number < pylsl.util.MIN_LIBLSL_VERSION, "that is too old for pylsl, unset PYLSL_LIB"),
    )


def configuration(named: Named) -> Iterator[Verdict]:
    from stream.acquire.lsl import config_file

    file, found = os.environ.get("LSLAPICFG", ""), config_file()
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(found or (), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        fault = str(error).splitlines()[0]
        raise Problem(f"'{found}' cannot be read ({fault}): mend it or move it away") from None
    session = parser.get("lab", "SessionID", fallback="default")
    scope = parser.get("multicast", "ResolveScope", fallback="site")
    peers = parser.get("lab", "KnownPeers", fallback="{}")
    used = f"'{found}'" if found else "no lsl_api.cfg"
    yield verdict(
        f"{used}: streams of session '{session}' alone are seen, scope "
        f"'{scope}', known peers '{peers}'",
        (file and file != found, f"LSLAPICFG is no file ('{file}'), mend it"),
    )


def loop(named: Named) -> Iterator[Verdict]:
    """Sends a sample from a private outlet to an inlet of its own, and looks who else is there."""
    from stream.acquire.inlet import Inlet
    from stream.acquire.lsl import DOCTOR, find_stream, list_streams, pylsl

    name = f"{DOCTOR}{secrets.token_hex(4)}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Doctor", 1, 0, "float32", name))
    arrived: SimpleQueue[Chunk] = SimpleQueue()
    try:
        inlet = Inlet(find_stream(name, _WAIT_S), arrived.put)
        inlet.start()
        outlet.wait_for_consumers(_WAIT_S)  # an inlet may be open before its outlet knows of it
        outlet.push_sample([1.0])
        chunk = arrived.get(timeout=_WAIT_S)
    except (Problem, Empty) as fault:
        reason = str(fault) or "no sample came"
        raise Problem(
            f"this machine does not hear its own stream ({reason}): {LET_THROUGH}"
        ) from None
    inlet.stop()
    took_ms = (chunk.readable_s - chunk.raw_s[0]) * 1e3
    yield verdict(
        f"a sample came through LSL in {took_ms:.2f} ms",
        (inlet.offset_s, f"its clock is {inlet.offset_s:.4f} s off itself, end other programs"),
    )
    session = named.settings.session if isinstance(named.settings, SessionConfig) else name
    # Names and types only: a host may be called after a person.
    others = [
        f"'{one.name}' ({one.type})"
        for one in list_streams()
        if one.name != name and not one.source_id.endswith(f"-{session}")  # its results
    ]
    yield verdict(f"streams of others: {', '.join(others) or 'none'}")


CHECKS = (library, configuration, loop)
