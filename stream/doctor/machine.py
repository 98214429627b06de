"""The machine: its cores, memory and sleep, the room on its disks, the sockets of a session."""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import median

from hvf_core.artifact import cache_folder
from hvf_core.problem import Problem
from hvf_core.swift import LATENCY_RULE, keep_awake
from stream.doctor.verdict import Named, Verdict, verdict

_LITTLE_GB = 2.0  # the demo's decoder and painter hold 1 GB together
_FEW_FILES = 1024  # macOS begins with 256; liblsl opens several for each stream and interface
_LATE_MS = 5.0  # Windows wakes every 15.6 ms unless a program asks for more
_SLOW_MS = 100.0
_HOUR_GB = 3600 * 1000 * (63 * 4 + 9) / 1e9  # 63 channels of float32 at 1 kHz, with their stamps
_ON_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "fuse.sshfs", "davfs", "webdav", "lustre")


def cores(named: Named) -> Iterator[Verdict]:
    import psutil

    n, load = psutil.cpu_count() or 1, psutil.getloadavg()[0]
    files = Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
    saves_power = "powersave" in {file.read_text().strip() for file in files}
    yield verdict(
        f"{n} cores ({platform.machine()}), and {load:.1f} programs want one",
        (n < 2, "reader and decoder want one each, take a machine with more"),
        (load > n - 0.5, "end other programs, they make answers late"),
        (saves_power, "they save power, run `sudo cpupower frequency-set -g performance`"),
    )
    memory = psutil.virtual_memory()
    free_gb = memory.available / 1e9
    yield verdict(
        f"{free_gb:.1f} of {memory.total / 1e9:.1f} GB memory are free",
        (free_gb < _LITTLE_GB, "end other programs, or do without painting"),
    )


def limits(named: Named) -> Iterator[Verdict]:
    late_ms = []
    for _ in range(20):
        began_s = time.perf_counter()
        time.sleep(0.001)
        late_ms.append((time.perf_counter() - began_s) * 1e3 - 1)
    yield verdict(
        f"sleep wakes {median(late_ms):.1f} ms late (median; at most {max(late_ms):.1f} ms)",
        (median(late_ms) > _LATE_MS, "what is played here comes in bursts, end other programs"),
    )
    if sys.platform == "linux":
        with keep_awake("auto") or nullcontext() as file:
            yield verdict(
                "a session keeps the cores awake"
                if file
                else f"a session lets the cores rest, unless udev says {LATENCY_RULE}"
            )
    if os.name == "posix":
        import resource

        n_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        is_low = 0 <= n_files < _FEW_FILES
        yield verdict(
            f"a process may open {n_files} files", (is_low, f"run `ulimit -n {_FEW_FILES}` before")
        )


def sessions(named: Named) -> Iterator[Verdict]:
    folder = named.session or Path("sessions")
    yield _disk("sessions", folder.absolute(), "give another folder with --out")


def cache(named: Named) -> Iterator[Verdict]:
    yield _disk("cache", cache_folder(), "name another in the variable HVF_LIVE_CACHE")


def _disk(what: str, folder: Path, way_out: str) -> Verdict:
    """Whether a folder, or that in which it will be made, has room and is written quickly."""
    import psutil

    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(1_000_000))
            file.flush()
            began_s = time.perf_counter()
            os.fsync(file.fileno())
            took_ms = (time.perf_counter() - began_s) * 1e3
    except OSError as error:
        fault = f"{what} '{folder}' cannot be written ({error.strerror})"
        raise Problem(f"{fault}: {way_out}") from None
    free_gb = psutil.disk_usage(str(there)).free / 1e9
    text = f"{what} '{folder}': {free_gb:.1f} GB free, 1 MB is on the disk after {took_ms:.0f} ms"
    room = f"an hour of 63 channels at 1 kHz takes {_HOUR_GB:.2f}, make room or {way_out}"
    if free_gb < _HOUR_GB:
        raise Problem(f"{text}: {room}")
    mounts = [p for p in psutil.disk_partitions(all=True) if there.is_relative_to(p.mountpoint)]
    kind = max(mounts, key=lambda p: len(p.mountpoint)).fstype if mounts else ""
    return verdict(
        text,
        (kind.startswith(_ON_NETWORK), f"it is on the network ({kind}), {way_out}, on a disk here"),
        (free_gb < 4 * _HOUR_GB, room),
        (took_ms > _SLOW_MS, f"the disk is slow or busy, {way_out}"),
    )


def sockets(named: Named) -> Iterator[Verdict]:
    """Sends a message as the processes of a session do."""
    import zmq

    from stream.pipeline.wire.bus import open_socket, receive, send
    from stream.pipeline.wire.endpoints import Endpoints
    from stream.pipeline.wire.keys import write_keys
    from stream.pipeline.wire.messages import Noted

    endpoints = Endpoints.local(named.settings.transport)
    place = endpoints.reports
    with ExitStack() as last:
        last.callback(endpoints.remove)
        write_keys(place)
        pull = last.enter_context(open_socket(zmq.PULL, place, bind=True))
        push = last.enter_context(open_socket(zmq.PUSH, place, bind=False))
        send(push, Noted(node="doctor", text="", facts={}))
        if receive(pull, 3000) is None:
            way_out = "let the firewall pass 127.0.0.1, or give --set transport=tcp"
            raise Problem(f"what is sent to '{place}' does not arrive within 3 s: {way_out}")
    yield verdict(f"processes reach each other over {place.partition(':')[0]}")


CHECKS = (cores, limits, sessions, cache, sockets)
