"""The program: its commit, its packages in versions that fit, and the devices it computes on."""

import os
import platform
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from decoder.engines.choice import ON_CPU, ON_GPU
from hvf_core.problem import Problem
from hvf_core.provenance import versions
from stream.doctor.verdict import Named, Verdict, verdict

_ROOT = Path(__file__).parents[2]
_SHOWN = ("torch", "torchvision", "numpy", "pylsl", "pyzmq", "mne", "diffusers", "onnxruntime")
VARIABLES = (
    *("HVF_LIVE_CACHE", "PYLSL_LIB", "LSLAPICFG", "HF_HOME", "HF_HUB_OFFLINE", "TMPDIR"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONPATH"),
)
"""All of the environment that is told."""


def program(named: Named) -> Iterator[Verdict]:
    commit = said_by("git", "-C", str(_ROOT), "describe", "--always", "--dirty")
    installed = _version("hvf-live") or "(not installed)"
    system = f"Python {platform.python_version()} on {platform.platform()}"
    yield verdict(f"hvf-live {installed}, commit {commit or 'unknown'}, {system}")
    found = [f"{name}='{os.environ[name]}'" for name in VARIABLES if name in os.environ]
    yield verdict(f"variables: {', '.join(found) or 'none'}")


def packages(named: Named) -> Iterator[Verdict]:
    """What pyproject.toml asks for now, perhaps after a pull; extras only where they are there."""
    file = _ROOT / "pyproject.toml"
    if not file.is_file():
        return  # a wheel, whose packages pip has chosen
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    # torchvision is built for one version of torch, and says which.
    built_for = requires("torchvision") or [] if _version("torchvision") else []
    needed = [*project["dependencies"], *(line for line in built_for if line.startswith("torch="))]
    if wrong := [*_wrong(needed, True), *_wrong(extras, False)]:
        raise Problem(f"{'; '.join(wrong)}: run `pip install -c constraints.txt -e .` again")
    told = ", ".join(f"{name} {number}" for name, number in versions(*_SHOWN).items())
    yield verdict(f"packages fit: {told}")


def _wrong(lines: Sequence[str], are_needed: bool) -> Iterator[str]:
    for one in map(Requirement, lines):
        is_meant = one.marker is None or one.marker.evaluate({"extra": ""})
        if not is_meant or (one.name == "faiss-cpu" and _version("faiss-gpu")):
            continue  # the latter takes its place
        found = _version(one.name)
        if are_needed if not found else not one.specifier.contains(found, prereleases=True):
            yield f"{one.name} is {found or 'missing'}, needed is {one}"


def devices(named: Named) -> Iterator[Verdict]:
    import torch

    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    cards = "; ".join(said_by("nvidia-smi", query, "--format=csv,noheader").splitlines())
    is_idle, cuda = cards and not torch.cuda.is_available(), torch.version.cuda
    yield verdict(
        f"torch {torch.__version__}, NVIDIA cards: {cards or 'none'}",
        (is_idle and cuda is None, "that is a CPU build, install the CUDA build"),
        (is_idle, f"bring the driver up to CUDA {cuda}, or unset CUDA_VISIBLE_DEVICES"),
    )
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    for name in [*names, *["mps"] * torch.backends.mps.is_available()]:
        try:
            torch.ones(8, device=name).sum().item()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise Problem(f"{name} does not compute ({reason}): install another build") from None
        yield verdict(f"{name} computes")


def engines(named: Named) -> Iterator[Verdict]:
    import torch  # before FAISS, as each brings an OpenMP runtime

    from decoder.engines.compiled import c_compiler
    from decoder.engines.export import require_onnx
    from index.search.flat import refuse_two_builds

    fault = ""
    try:
        require_onnx()
    except Problem as problem:
        fault = f"; {problem}"
    with_gpu = torch.cuda.is_available()
    order = ON_GPU if with_gpu else ON_CPU
    yield verdict(
        f"engines, as they are tried: {', '.join(order)}{fault}",
        (fault and not (with_gpu or c_compiler()), "answers come later without it"),
    )
    if find_spec("onnxruntime"):
        yield _onnx_runtime(with_gpu)
    refuse_two_builds()
    import faiss

    n_gpus, is_built = faiss.get_num_gpus(), hasattr(faiss, "StandardGpuResources")
    built_for = f"GPUs, of which it sees {n_gpus}" if is_built else "CPUs"
    yield verdict(
        f"FAISS {faiss.__version__} for {built_for}",
        (with_gpu and not is_built, 'the README\'s ".[gpu]" brings it'),
        (with_gpu and not n_gpus, "bring the driver up to CUDA 12.6 or newer"),
    )


def _onnx_runtime(with_gpu: bool) -> Verdict:
    """What ONNX Runtime's build computes with; the engine tensorrt needs TensorRT beside it."""
    import onnxruntime

    found = [one.removesuffix("ExecutionProvider") for one in onnxruntime.get_available_providers()]
    lacks = with_gpu and not ("Tensorrt" in found and find_spec("tensorrt"))
    return verdict(
        f"ONNX Runtime {onnxruntime.__version__} for {', '.join(found)}",
        (
            bool(_version("onnxruntime") and _version("onnxruntime-gpu")),
            "onnxruntime and onnxruntime-gpu overwrite each other, uninstall both and install one",
        ),
        (lacks, 'for the engine tensorrt uninstall it, and install ".[tensorrt]" in its place'),
    )


def said_by(*command: str) -> str:
    """What a program prints; nothing where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    return str(versions(package).get(package, ""))


CHECKS = (program, packages, devices, engines)
