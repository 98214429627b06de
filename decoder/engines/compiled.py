"""The engine of one compiled function: MBP's head and a small gallery's cosines, on one CPU thread.

On a core that has slept a runtime's layers take longer than the arithmetic: after 20 ms of rest
this takes 0.23 ms, where ONNX Runtime and FAISS take 0.59 (512 wide, 200 images, paired).
"""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from decoder.engines.cache import engine_files
from decoder.engines.graph import Scored, UnitLength
from decoder.engines.passes import CannotRun, Pass, Wanted
from decoder.residual import ResMLP
from hvf_core.artifact import file_sha256

_SOURCE = Path(__file__).with_name("residual.c")
_LIBRARY = "residual.so"
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-fno-math-errno", "-shared", "-fPIC")
_MACHINES = {"AVX2": ("-march=x86-64-v3",), "AVX512": ("-march=x86-64-v4",)}
_LOADS = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).residual"
_WAIT_S = 20.0  # three times at most, as a session waits for 90 s


@dataclass(frozen=True)
class _Head:
    """What the function is called with, in the order of its arguments."""

    block: ResMLP
    norm: nn.LayerNorm
    gallery: Tensor | None

    @classmethod
    def of(cls, network: nn.Module) -> Self | None:
        """None where a network is anything else."""
        gallery, unit = None, network
        if isinstance(network, Scored):
            gallery, unit = network.gallery, network.unit
        block = unit.network if isinstance(unit, UnitLength) else None
        if isinstance(block, ResMLP) and isinstance(block.norm, nn.LayerNorm):
            return cls(block, block.norm, gallery)
        return None

    def arrays(self) -> list[np.ndarray]:
        weights = [self.block.expand.weight, self.block.contract.weight]
        weights += [self.norm.weight, self.norm.bias]
        if self.gallery is not None:
            weights.append(self.gallery)
        return [np.ascontiguousarray(one.detach().numpy()) for one in weights]


def can_run(network: nn.Module) -> bool:
    """Whether a network is one that this engine is made for."""
    return _Head.of(network) is not None


def compiled_pass(wanted: Wanted) -> Pass:
    """The function, which the machine's own C compiler makes once.

    Raises:
        CannotRun: another network than it is made for, half precision, or no compiler that works.
    """
    if (head := _Head.of(wanted.network)) is None:
        raise CannotRun("it is made for the head of MBP alone")
    if wanted.precision != "fp32":
        raise CannotRun("it computes in fp32 alone")
    n_hidden, dim = head.block.expand.weight.shape
    n_images = 0 if head.gallery is None else len(head.gallery)
    arrays, hidden = head.arrays(), np.zeros(n_hidden, np.float32)
    x = np.zeros((1, dim), np.float32)
    outputs = tuple(np.zeros(shape, np.float32) for shape in wanted.output_shapes())
    gallery, cosines = (arrays.pop(), outputs[1]) if n_images else (None, None)
    given = (*arrays, gallery, x, hidden, outputs[0], cosines)
    places = [None if one is None else one.ctypes.data_as(ctypes.c_void_p) for one in given]
    sizes = [ctypes.c_long(size) for size in (dim, n_hidden, n_images)]
    function = _library(wanted).residual
    run = partial(function, *sizes, ctypes.c_double(head.norm.eps), *places)
    return Pass(x, outputs, run, given)


def c_compiler() -> str | None:
    """That of this machine, without which the function cannot be made."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def _library(wanted: Wanted) -> ctypes.CDLL:
    compiler = c_compiler()
    if compiler is None:
        raise CannotRun("there is no C compiler: install gcc or clang")
    flags = (*_FLAGS, *_MACHINES.get(torch.backends.cpu.get_cpu_capability(), ()))
    facts = {
        "source": file_sha256(_SOURCE),
        "flags": " ".join(flags),
        "machine": platform.platform(),
        "compiler": _told_by([compiler, "--version"]),
    }

    def make(folder: Path) -> None:
        library = str(folder / _LIBRARY)
        _told_by([compiler, *flags, str(_SOURCE), "-o", library, "-lm"])
        try:  # in another process: whoever opens half a library may be ended by it
            _told_by([sys.executable, "-c", _LOADS, library])
        except CannotRun:
            raise CannotRun(f"what '{compiler}' makes cannot be loaded") from None

    with engine_files(wanted.cache, "compiled", facts, make, wanted.say) as folder:
        return ctypes.CDLL(str(folder / _LIBRARY))


def _told_by(command: Sequence[str]) -> str:
    """What a program says, which is over then, and all that it has started."""
    with TemporaryFile() as said:  # a pipe would wait for its children too
        program = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        try:
            status = program.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            raise CannotRun(f"'{command[0]}' did not end within {_WAIT_S:g} s") from None
        finally:
            if hasattr(os, "killpg"):
                with suppress(ProcessLookupError, PermissionError):  # it is over; of macOS
                    os.killpg(program.pid, signal.SIGKILL)
            program.kill()
            program.wait()
        said.seek(0)
        text = said.read().decode("utf-8", "backslashreplace")
    if status:
        first_line, *_ = [*text.splitlines(), "without a word"]
        raise CannotRun(f"'{command[0]}' ended with {status} ({first_line})")
    return text
