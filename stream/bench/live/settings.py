"""What the certificate measures, and what it requires."""

from pathlib import Path
from typing import Any

from hvf_core.settings import Settings, setting
from stream.pipeline.wire.config import Here


class Requirements(Settings):
    """What an answer has to keep at a subscriber, counted from the push of its last sample."""

    p50_ms: float = setting(5.0, option="--p50", gt=0)
    """Half of the answers come within it."""
    p99_ms: float = setting(16.7, option="--p99", gt=0)
    """Of 100 answers 99 come within it, by default a frame of a screen of 60 Hz; of fewer than 300
    trials 95 are asked for instead, as these do not show a p99."""
    jitter_ms: float = setting(5.0, option="--jitter", gt=0)
    """SD from trial to trial."""
    cpu: float = setting(0.8, option="--cpu", gt=0)
    """Of all cores that there are, what the session's processes take together."""
    lost: int = setting(0, option="--lost", ge=0)
    """Markers without an answer, or answers that came twice."""


class LiveBenchSettings(Settings):
    """What is measured, with what, for how long."""

    bundle: Here | None = setting(None, option="--bundle")
    """Folder of a trained bundle, the demo's by default."""
    gallery: Here | None = setting(None, option="--gallery")
    """Folder of a gallery; `gallery` beside the bundle by default."""
    trials: int = setting(2000, option="--trials", ge=2)
    """Trials of the centre: 63 channels at 1 kHz, a trial every 0.2 s."""
    channels: int | None = setting(None, option="--channels", gt=0)
    """Measure one set-up of your own in place of all others: its channels, 63 by default."""
    rate_hz: float | None = setting(None, option="--rate", gt=0)
    """Its rate, 1000 by default."""
    soa_s: float | None = setting(None, option="--soa", gt=0)
    """From one image to the next in it, 0.2 s by default."""
    images: int | None = setting(None, option="--images", gt=1)
    """Of its gallery: where that has another number, one is drawn."""
    minutes: float = setting(20.0, option="--minutes", gt=0)
    """For all of it: what does not fit in is not measured, the corners first."""
    out: Path = setting(Path("certificate"), option="--out")
    """Folder of the certificate, with the moment in its name, where it is not given."""
    compare: Here | None = setting(None, option="--compare")
    """The certificate.jsonl of an earlier run: name what got slower."""
    slower: float = setting(0.2, option="--slower", gt=0)
    """Share by which a median has to have grown, beyond noise, to be named: runs differ by 20 %."""
    eeg: str | None = setting(None, option="--eeg")
    """An EEG stream that is there, as an amplifier's: measure a session on it, and nothing else."""
    markers: str | None = setting(None, option="--markers")
    """Its marker stream."""
    trigger: str | None = setting(None, option="--trigger")
    """Its channel with a photodiode or with triggers."""
    requirements: Requirements = Requirements()
    """What each measurement has to keep."""

    @property
    def own(self) -> dict[str, Any]:
        """What was said of a set-up of one's own; nothing: all set-ups are measured."""
        said = self.model_dump(include={"channels", "rate_hz", "soa_s", "images"})
        return {name: value for name, value in said.items() if value is not None}
