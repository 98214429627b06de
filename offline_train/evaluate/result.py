"""The result of an evaluation: accuracy and calibration, as JSON and as tables for a terminal."""

from rich import box
from rich.table import Table

from decoder.calibration import Evidence
from hvf_core.specs import Frozen
from offline_train.evaluate.metrics import Estimate, ReliabilityBin
from offline_train.evaluate.seen import Seen, told

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
"""Confidences below which a selective decoder gives no answer."""


class Selective(Frozen):
    """What is left when answers below a confidence are withheld."""

    threshold: float
    coverage: float
    """Share of answers that are given."""
    accuracy: float | None
    """Top-1 of those; None where none is given."""


class Noise(Frozen):
    """The ECE that perfectly calibrated answers would show by chance, between two extremes."""

    independent: float
    """When all answers are independent."""
    shared: float
    """When all answers for a stimulus share their luck."""


class Reliability(Frozen):
    """How far confidence and accuracy agree."""

    n: int
    """Answers."""
    ece: Estimate
    noise: Noise
    bins: tuple[ReliabilityBin, ...]
    """Those that are not empty, of 15 of equal width (Guo et al., ICML 2017)."""


class EvaluationPoint(Frozen):
    """The answers at one end of the window, with this many repeats of a stimulus."""

    tmax_s: float
    repeats: int
    draws: int
    """How often the repeats were drawn."""
    top1: Estimate
    top5: Estimate
    nll: float
    """Mean negative natural logarithm of the right image's probability."""
    ece: Estimate
    noise: Noise
    selective: tuple[Selective, ...]
    hit_rates: tuple[float, ...]
    """Share of draws in which each stimulus came first; differences of two models are paired."""


class Evaluation(Frozen):
    """Accuracy and calibration, by right on stimuli that are held out from training."""

    n_items: int
    """Stimuli decoded."""
    n_way: int
    """Images in the gallery."""
    chance_top1: float
    chance_top5: float
    points: tuple[EvaluationPoint, ...]
    pooled: Reliability
    """Over the answers of all points; its ECE is the headline."""
    final: Reliability | None
    """Over those at the end of the whole window, if there are such points."""
    evidence: Evidence
    calibrated: bool
    """Whether the bundle has a calibration; without one its temperature is 1."""
    simulated: bool
    """Whether the trials are of a simulated subject."""
    tmax_s: float
    """End of the whole window."""
    protocol: str = "inductive: each query is decoded on its own"
    interval: str = "95 %, bootstrap over stimuli"
    seed: int
    space: str
    trials_sha256: str
    seen: Seen | None = None
    """How much of this the bundle was trained on; None where it does not say."""

    def table(self) -> Table:
        """The evaluation as a table for a terminal of 80 columns."""
        calibrated = "calibrated" if self.calibrated else "NOT calibrated (temperature 1)"
        table = Table(
            title=f"{self.n_way}-way retrieval of {self.items}",
            caption=f"{self.protocol}; evidence: {self.evidence}\n"
            f"intervals: {self.interval}\n"
            f"{calibrated}, pooled ECE {_percent(self.pooled.ece)} %, "
            f"by noise alone {_noise(self.pooled.noise)} %",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        columns = ("tmax s", "repeats", "top-1 %", "top-5 %", "ECE %", "noise %")
        for column in columns:
            table.add_column(column, justify="right")
        for i, point in enumerate(self.points):
            same_end = i > 0 and self.points[i - 1].tmax_s == point.tmax_s
            if i > 0 and not same_end:
                table.add_section()
            table.add_row(
                "" if same_end else f"{point.tmax_s:g}",
                str(point.repeats),
                _percent(point.top1),
                _percent(point.top5),
                _percent(point.ece),
                _noise(point.noise),
            )
        table.add_section()
        chance = f"{100 * self.chance_top1:.1f}", f"{100 * self.chance_top5:.1f}"
        table.add_row("chance", "", *chance, "", "")
        return table

    def selective_table(self) -> Table:
        """Accuracy and coverage of the last answers when unsure ones are withheld."""
        last = [p for p in self.points if p.tmax_s == self.points[-1].tmax_s]
        table = Table(
            title=f"top-1 % (answered %) at {last[0].tmax_s:g} s, "
            f"when unsure answers are withheld; {self.items}",
            box=box.SIMPLE_HEAD,
            padding=(0, 1),
        )
        table.add_column("sure", justify="right")
        for point in last:
            name = "1 repeat" if point.repeats == 1 else f"{point.repeats} repeats"
            table.add_column(name, justify="right")
        for i, threshold in enumerate(THRESHOLDS):
            table.add_row(f"{threshold:g}", *[_selective(point.selective[i]) for point in last])
        return table

    @property
    def items(self) -> str:
        """What titles say of what was decoded, such as `200 held-out stimuli (simulated)`."""
        return told(self.seen, self.n_items) + " (simulated)" * self.simulated


def _percent(found: Estimate) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def _noise(noise: Noise) -> str:
    return f"{100 * noise.independent:.1f}-{100 * noise.shared:.1f}"


def _selective(selective: Selective) -> str:
    accuracy = "-" if selective.accuracy is None else f"{100 * selective.accuracy:.1f}"
    return f"{accuracy} ({100 * selective.coverage:.0f})"
