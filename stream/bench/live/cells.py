"""What is measured: the centre, what is varied around it, and the corners, in order of weight."""

from collections.abc import Iterator
from itertools import product
from typing import Literal

from hvf_core.specs import Frozen

Kind = Literal["centre", "window ends", "painting", "engine", "axis", "corner", "live"]
AXES = ("channels", "rate_hz", "soa_s", "images")
_VALUES = {
    "channels": (8, 32, 128, 256, 512),
    "rate_hz": (128.0, 250.0, 500.0, 2000.0, 4000.0),
    "soa_s": (1.0, 0.5, 0.1, 0.05),
    "images": (16_540, 100_000),
}
_CORNERS = {"channels": (512, 8), "rate_hz": (4000.0, 128.0), "soa_s": (0.05, 1.0)}
_MANY_IMAGES = 100_000
_SPAN_S = 6.0  # of trials, in each cell around the centre: all fit into 20 minutes
_LEAST_TRIALS = 10


class Setup(Frozen):
    """A session that is measured; its name is the same in every run."""

    name: str
    kind: Kind
    n_trials: int
    channels: int = 63
    rate_hz: float = 1000.0
    soa_s: float = 0.2
    images: int = 200
    """Of the gallery: as many as that has, or drawn."""
    engine: str = "auto"
    chunk: int = 1
    """Samples in a push."""
    tmax_s: tuple[float, ...] = ()
    """Window ends of provisional answers."""
    plays: Literal["noise", "subject", "live"] = "noise"
    trigger: str | None = None
    is_drawn: bool = False
    """Of the gallery: its embeddings are random."""


def setups(
    trials: int, channels: int, images: int, engines: tuple[str, ...], is_demo: bool
) -> Iterator[Setup]:
    """All of the certificate, the most important first; `channels` and `images` are the bundle's
    and its gallery's, and only the demo's subject has answers that may be right."""
    usual = {"channels": channels, "images": images}
    plays = "subject" if is_demo else "noise"
    yield Setup(name="centre", kind="centre", n_trials=trials, plays=plays, **usual)
    yield from around(channels, images, ("rate_hz",), (250.0,))
    window_ends = {"tmax_s": (0.2, 0.3, 0.5), "plays": plays, "trigger": "Photo", **usual}
    n = max(20, min(trials // 10, 3 * images))
    yield Setup(name="window ends, photodiode", kind="window ends", n_trials=n, **window_ends)
    if is_demo:
        painting = {"soa_s": 2.0, "plays": plays, **usual}
        yield Setup(name="painting", kind="painting", n_trials=_LEAST_TRIALS, **painting)
    for engine in engines:
        yield Setup(name=f"engine {engine}", kind="engine", n_trials=50, engine=engine, **usual)
    yield from around(channels, images)
    yield from corners(images)


def around(
    channels: int, images: int, axes: tuple[str, ...] = AXES, only: tuple[float, ...] = ()
) -> Iterator[Setup]:
    """One thing at a time, away from the centre; what is dear comes last on each axis."""
    centre = {"channels": channels, "images": images}
    for axis in axes:
        for value in only or _VALUES[axis]:
            if value != centre.get(axis) and (only or (axis, value) != ("rate_hz", 250.0)):
                yield _cell("axis", f"{axis.partition('_')[0]} {value:g}", centre | {axis: value})


def corners(images: int) -> Iterator[Setup]:
    """All extremes together; few images are the gallery's own."""
    for many in (_MANY_IMAGES, images):
        for values in product(*_CORNERS.values()):
            what = dict(zip(_CORNERS, values, strict=True)) | {"images": many}
            shown = "{channels} ch, {rate_hz:g} Hz, {soa_s:g} s, {images} images".format(**what)
            yield _cell("corner", f"corner {shown}", what)


def _cell(kind: Kind, name: str, what: dict[str, float]) -> Setup:
    soa_s = what.get("soa_s", 0.2)
    drawn = what["images"] >= _VALUES["images"][0]
    n_trials = max(_LEAST_TRIALS, round(_SPAN_S / soa_s))
    return Setup(name=name, kind=kind, n_trials=n_trials, is_drawn=drawn, **what)
