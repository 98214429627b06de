"""What a benchmark ran on: machine, load, versions, checksums; and what processes took of it."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from decoder.bundle import MANIFEST as BUNDLE
from hvf_core.artifact import file_sha256
from hvf_core.provenance import command_line, versions
from hvf_core.swift import LATENCY_FILE
from index.gallery.manifest import MANIFEST as GALLERY

_PACKAGES = (
    *("hvf-live", "torch", "onnxruntime", "numpy", "faiss-cpu", "faiss-gpu", "pyzmq", "pylsl"),
    *("mne-lsl", "diffusers", "tensorrt"),
)


def machine(bundle: Path | None = None, gallery: Path | None = None) -> dict[str, Any]:
    """The header of a benchmark, ready for JSON; what the system does not tell is None.

    `load` is the load average of the last minute before: more than a core that is busy with
    something else makes every latency longer.
    """
    cores, memory = psutil.cpu_count(logical=False), psutil.virtual_memory()
    with_manifests = ((bundle, BUNDLE), (gallery, GALLERY))
    checksums = [file_sha256(folder / name) if folder else None for folder, name in with_manifests]
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        "memory_gb": round(memory.total / 1e9, 1),
        "system": platform.platform(),
        "kernel": platform.release(),
        "governor": _governor(),
        "keeps_awake": os.access(LATENCY_FILE, os.W_OK),
        "is_virtual": "hypervisor" in _cpu_info().get("flags", "").split(),
        "gpus": _gpus(),
        "liblsl": _liblsl(),
        "versions": versions(*_PACKAGES),
        "bundle": checksums[0],
        "gallery": checksums[1],
        "command": command_line(),
        "load": load(),
    }


def load() -> float:
    """Processes that wanted a core, in the mean of the last minute."""
    return round(psutil.getloadavg()[0], 2)


def header(found: Mapping[str, Any]) -> str:
    """A machine in one line."""
    parts = [f"{found['cpu']}, {found['cores']} cores, {found['memory_gb']:g} GB", found["system"]]
    parts += [f"governor {found['governor']}"] if found["governor"] else []
    parts += ["a session keeps its cores awake"] if found.get("keeps_awake") else []
    parts += ["a virtual machine"] if found["is_virtual"] else []
    parts += found["gpus"]
    return "; ".join([*parts, f"load before {found['load']:g}"])


def _cpu_info() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cpu_name() -> str:
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def _governor() -> str | None:
    files = Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
    return ", ".join(sorted({file.read_text().strip() for file in files})) or None


def _gpus() -> list[str]:
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_name(i) for i in range(n)]


def _liblsl() -> str | None:
    if find_spec("pylsl") is None:  # as where a card alone is measured
        return None
    from stream.acquire.lsl import pylsl

    number = pylsl.library_version()
    return f"{number // 100}.{number % 100}"


@dataclass(frozen=True)
class Usage:
    """What a process used while trials came: rows of `at`, one a second.

    Columns: seconds on the LSL clock, CPU seconds so far (user and system, all threads), bytes in
    memory (RSS), open files (handles).
    """

    at: np.ndarray

    @property
    def cpu(self) -> float:
        """Of one core."""
        first, last = self.at[0], self.at[-1]
        return float((last[1] - first[1]) / max(1e-9, last[0] - first[0]))

    @property
    def rss_bytes(self) -> float:
        """At most."""
        return float(self.at[:, 2].max())


def used_by(process: psutil.Process) -> tuple[float, float, float]:
    """CPU seconds so far, bytes in memory, handles."""
    times = process.cpu_times()
    return times.user + times.system, process.memory_info().rss, n_handles(process)


def node_of(process: psutil.Process) -> str | None:
    """The node that a process of a session is; None where it is none."""
    try:
        modules = (word.partition("stream.pipeline.nodes.")[2] for word in process.cmdline())
        return next(filter(None, modules), None)
    except psutil.Error:
        return None


def n_handles(process: psutil.Process) -> int:
    """Files, sockets and the like that a process has open."""
    count = process.num_fds if os.name == "posix" else getattr(process, "num_handles")  # noqa: B009
    return int(count())
