"""What a benchmark ran on: the machine, how busy it was, versions, and checksums of models."""

import os
import platform
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from decoder.bundle import MANIFEST as BUNDLE
from hvf_core.artifact import file_sha256
from hvf_core.provenance import command_line, versions
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
