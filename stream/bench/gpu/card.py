"""The device that is measured: its clock, its memory, and what its chip can do at most."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from decoder.capture import capture
from decoder.devices import device_of, stream_on

Work = Callable[[], object]
Figures = dict[str, Any]
"""What a row says; numbers have their unit in their names."""

SIZES_GB = (8, 12, 24)
"""Of the cards that people have."""
_USABLE = 0.95  # of such a card: a screen and the driver take the rest
_PAUSE_S = 0.02
_ENOUGH_S = 2.0


class Limits(NamedTuple):
    """What the chip was measured to do, in this very process."""

    copy_gb_per_s: float
    """Bytes read and written by a copy from the card to itself."""
    half_tflops: float
    single_tflops: float
    """Of a product of square matrices; without TF32."""

    def floor_ms(self, n_bytes: float, flops: float, half: bool) -> float:
        """The longer of moving so many bytes, each once, and of so many operations."""
        rate = (self.half_tflops if half else self.single_tflops) * 1e12
        return 1e3 * max(n_bytes / (self.copy_gb_per_s * 1e9), flops / rate)


@dataclass(frozen=True)
class Card:
    """A CUDA device or, for trying all this out, the CPU; `tiny` is for the latter."""

    device: torch.device
    tiny: bool = False

    @classmethod
    def named(cls, name: str, tiny: bool) -> "Card":
        """The one of a setting; raises Problem where it is not there."""
        device = device_of(name)
        if str(device) == "cuda":
            device = torch.device("cuda", torch.cuda.current_device())
        return cls(device, tiny)

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def half(self) -> torch.dtype:
        """What networks that paint compute in."""
        return torch.float16 if self.is_gpu else torch.float32

    def facts(self) -> Figures:
        """What it is, for every row."""
        told: Figures = {"torch": torch.__version__, "device": str(self.device)}
        if not self.is_gpu:
            return told
        its = torch.cuda.get_device_properties(self.device)
        size = {"card": its.name, "card_gib": round(its.total_memory / 2**30, 1)}
        return told | size | {"cuda": torch.version.cuda}

    def wait(self) -> None:
        """Until nothing is left to do."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def timed(self, work: Work, n: int, *, waits: bool = True, pause_s: float = 0.0) -> np.ndarray:
        """Milliseconds from each call, on the host, until the card has done it.

        Work that itself waits for the card `waits` for nothing more. After some seconds it is
        enough, however often it was called by then.
        """
        for _ in range(1 if self.tiny else 3):
            work()
        self.wait()
        taken_s: list[float] = []
        ends_s = time.perf_counter() + _ENOUGH_S
        while len(taken_s) < (2 if self.tiny else n):
            if pause_s:
                time.sleep(pause_s)
            began_s = time.perf_counter()
            work()
            if waits:
                self.wait()
            taken_s.append(time.perf_counter() - began_s)
            if began_s > ends_s and len(taken_s) > 2:
                break
        return 1e3 * np.array(taken_s)

    def figures(
        self, work: Work, n: int, *, n_bytes: float, flops: float, half: bool, waits: bool = True
    ) -> Figures:
        """How long work takes, and how many times as long as the chip needs at least."""
        floor_ms = self.limits.floor_ms(n_bytes, flops, half)
        found = spread(self.timed(work, n, waits=waits))
        by_floor = {"floor_ms": floor_ms, "times_floor": found["p50_ms"] / floor_ms}
        return {**found, "bytes": n_bytes, "flops": flops, **by_floor}

    def answers(self, work: Work, **least: Any) -> Figures:
        """`figures` of what ends on the host, back to back and after a pause as between trials."""
        found = self.figures(work, 2000, waits=False, **least)
        rested = self.timed(work, 40, waits=False, pause_s=_PAUSE_S)
        return found | {"rested_p50_ms": _p(rested, 50), "rested_max_ms": float(rested.max())}

    @contextmanager
    def memory(self, figures: Figures) -> Iterator[None]:
        """Puts into figures what was allocated and held at most meanwhile."""
        _ = self.limits  # which would else be measured meanwhile
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.is_gpu:
            self.wait()
            figures["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
            figures["held_gib"] = torch.cuda.max_memory_reserved(self.device) / 2**30

    def used_gib(self) -> float:
        """Of the card by all programs together, what CUDA itself takes too."""
        if not self.is_gpu:
            return 0.0
        free, total = torch.cuda.mem_get_info(self.device)
        return (total - free) / 2**30

    def context_gib(self) -> float:
        """The same without what torch holds here: CUDA's own, and other programs'."""
        held = torch.cuda.memory_reserved(self.device) if self.is_gpu else 0
        return self.used_gib() - held / 2**30

    def fits(self, work: Work) -> str:
        """The smallest card on which work was done: this one with a limit on what is allocated."""
        if not self.is_gpu:
            return "not known without a card"
        total_gib = torch.cuda.get_device_properties(self.device).total_memory / 2**30
        own_gib = self.context_gib()
        for size_gb in SIZES_GB:
            allowed_gib = _USABLE * size_gb - own_gib
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(
                min(1.0, allowed_gib / total_gib), self.device
            )
            try:
                work()
                self.wait()
            except torch.OutOfMemoryError:
                continue
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0, self.device)
            return f"{size_gb} GB"
        return f"more than {SIZES_GB[-1]} GB"

    @cached_property
    def limits(self) -> Limits:
        n, side = (2**10, 64) if self.tiny else (2**28, 8192)
        x = torch.randn(n, device=self.device)
        y = torch.empty_like(x)
        copied_ms = np.median(self.timed(partial(y.copy_, x), 20))
        del x, y
        half, single = (self._tflops(side // k, t) for k, t in ((1, self.half), (2, torch.float32)))
        return Limits(2 * 4 * n / copied_ms / 1e6, half, single)

    def _tflops(self, side: int, dtype: torch.dtype) -> float:
        a, b = torch.randn(2, side, side, device=self.device, dtype=dtype)
        return float(2 * side**3 / np.median(self.timed(lambda: a @ b, 20)) / 1e9)


class Captured:
    """Work from an array on the host to arrays on the host, as one CUDA graph.

    Both copies are in the graph. Without a card it is done call by call, and `how` says so.

    Args:
        card: that it is done on.
        work: from a float32 tensor of `shape` to tensors, without looking at any value.
        shape: of the input.
        urgent: whether it goes before other work on the card.
    """

    def __init__(
        self,
        card: Card,
        work: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
        shape: tuple[int, ...],
        *,
        urgent: bool = True,
    ) -> None:
        host_x = torch.zeros(shape, pin_memory=card.is_gpu)
        x = host_x.to(card.device, copy=True)
        with torch.inference_mode():
            made = work(x)
        on_host = [torch.empty(y.shape, dtype=y.dtype, pin_memory=card.is_gpu) for y in made]
        self._x, self._outputs = host_x.numpy(), tuple(y.numpy() for y in on_host)

        @torch.inference_mode()
        def step() -> None:
            x.copy_(host_x, non_blocking=True)
            for host, y in zip(on_host, work(x), strict=True):
                host.copy_(y, non_blocking=True)

        self._run, self.how = step, "call by call: there is no CUDA graph on the CPU"
        if card.is_gpu:
            self._run, self.how = _capture(card, step, urgent), "one CUDA graph"
        self._alive = step  # what the graph reaches only by its address

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs, good until the next call."""
        self._x[...] = x
        self._run()
        return self._outputs


def _capture(card: Card, step: Callable[[], None], urgent: bool) -> Callable[[], None]:
    stream = stream_on(card.device, urgent=urgent)
    graph = capture(step, stream)

    def run() -> None:
        with torch.cuda.stream(stream):
            graph.replay()
        stream.synchronize()

    return run


def spread(taken_ms: np.ndarray) -> Figures:
    """Percentiles of times, their mean, standard deviation and number."""
    found = {f"p{q:g}_ms": _p(taken_ms, q) for q in (50, 95, 99, 99.9)}
    whole = {"max_ms": taken_ms.max(), "mean_ms": taken_ms.mean(), "sd_ms": taken_ms.std()}
    return {**found, **{name: float(ms) for name, ms in whole.items()}, "n": len(taken_ms)}


def flops_of(work: Work) -> float:
    """Operations of work on torch, a product and a sum counted as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _p(taken_ms: np.ndarray, q: float) -> float:
    return float(np.percentile(taken_ms, q))
