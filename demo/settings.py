"""All that decides the demo's brain model, as data, and where what the demo ships lies."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from demo.head import CHANNELS
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.prior.settings import PRESETS as PRIOR_PRESETS
from stream.acquire.settings import PreprocessSettings

ASSETS = Path(__file__).parent / "assets"
PRIOR = ASSETS / "prior"
VISUAL_CHANNELS = CHANNELS[-17:]  # the paper's, in its order: P7 ... P8, PO7 ... PO8, O1 Oz O2

PREPROCESSING = PreprocessSettings(
    channels=CHANNELS,
    output_channels=VISUAL_CHANNELS,
    rate_hz=250.0,
    tmin_s=0.0,
    tmax_s=0.996,
    baseline_s=(-0.2, 0.0),
    whitening="mvnn",
)


class DemoSettings(BaseModel):
    """How the simulated subject is recorded, and its model trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject_seed: int = 1
    n_concepts: int = 1600
    n_held_out: int = 200
    """Further concepts that the probabilities are calibrated on."""
    calibration_repeats: tuple[int, ...] = (1, 2, 4, 10, 20)
    sessions: int = 8
    soa_s: float = 0.6
    training: TrainSettings = PRESETS["demo"].model_copy(update={"dim": PRIOR_PRESETS["demo"].dim})
