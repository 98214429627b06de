"""All that defines a session, in one file that every node reads: config.json in its folder."""

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from decoder.calibration import Evidence
from decoder.engines.choice import EngineChoice, Precision
from hvf_core.problem import Problem
from stream.acquire.adaptation import AdaptationSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.reject import RejectSettings
from stream.acquire.triggers import TriggerSettings

PreviewGrade = Literal["none", "linear", "tiny", "full"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoints(_Settings):
    """ZeroMQ addresses; the node named first binds."""

    trials: str
    """reader to decode: trials (PUSH/PULL)."""
    reports: str
    """results from all others: announcements, outcomes, answers, images (PULL/PUSH)."""
    results: str
    """results to everyone: answers, images, ledger (PUB/SUB)."""
    recording: str
    """record from reader: raw samples and markers (PULL/PUSH)."""
    control: str
    """supervisor to every node: readiness, heartbeats, commands (ROUTER/DEALER)."""
    embeddings: str = ""
    """paint from decode: what to paint, the latest only (PULL/PUSH); sessions that were
    recorded before there was a painter have none."""

    @classmethod
    def local(cls) -> "Endpoints":
        """Addresses that only this machine reaches: ipc, or loopback tcp where ipc is missing."""
        names = cls.model_fields
        if hasattr(socket, "AF_UNIX"):
            folder = tempfile.mkdtemp(prefix="hvf-")
            return cls(**{name: f"ipc://{folder}/{name}" for name in names})
        ports = _free_ports(len(names))
        return cls(**{name: f"tcp://127.0.0.1:{ports.pop()}" for name in names})

    @field_validator("*")
    @classmethod
    def _stays_here(cls, endpoint: str) -> str:
        if not endpoint.startswith(("ipc://", "tcp://127.0.0.1:", "tcp://localhost:")):
            raise ValueError(f"endpoint '{endpoint}' leaves this machine, which needs CURVE keys")
        return endpoint


def _free_ports(n: int) -> list[int]:
    with ExitStack() as open_:
        sockets = [open_.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class LiveSource(_Settings):
    """EEG and markers from LSL."""

    kind: Literal["lsl"] = "lsl"
    eeg: str
    markers: str | None
    """None where the markers are in a trigger channel of the EEG stream."""
    wait_s: float = 10.0


class FileSource(_Settings):
    """A recording, read in virtual time: as fast as it can be decoded."""

    kind: Literal["file"] = "file"
    path: Path
    start_s: float = 0.0
    stop_s: float | None = None
    stim_channel: str | None = None
    eeg_stream: str | None = None
    marker_stream: str | None = None
    """Which streams of an XDF file, by name or id, where several could be meant."""


class TrialSettings(_Settings):
    """How trials are cut where no bundle says so, and what is waited for."""

    tmin_s: float = -0.2
    tmax_s: float = 1.0
    no_data_after_s: float = 2.0
    """A trial whose samples have not come this long after its window is dropped as `no_data`."""
    history_s: float = 30.0
    """How far back a marker may lie when it arrives."""
    max_unanswered: int = 256
    """Trials that may wait for an answer; what comes on top is dropped as `overflow`."""


class DecodingSettings(_Settings):
    """How trials are answered."""

    tmax_s: tuple[float, ...] = ()
    """Times after onset at which provisional answers are given, before the one at the end."""
    evidence: Evidence = "mean"
    """How repeats of a stimulus are put together."""
    min_confidence: float = Field(default=0.0, ge=0.0, le=1.0)
    """Answers with less are marked `abstain`."""
    engine: EngineChoice = "auto"
    precision: Precision = "fp32"
    adaptation: AdaptationSettings | None = None
    """Follow the session's covariance, without labels; None: leave the trials as they are."""
    rest: Path | None = None
    """A resting recording from which the adaptation starts."""


class PaintingSettings(_Settings):
    """What paints the image that was seen, and how; None stands for what the base asks for."""

    prior: Path
    """Folder of the Fusion Prior."""
    base: str | None = None
    """Folder of the diffusion model, or the name of a preset; None: the prior names it."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance: float | None = Field(default=None, ge=0.0)
    size_px: int | None = Field(default=None, ge=8, multiple_of=8)
    halvings: int = 0
    """How often the size is halved: the supervisor's answer to memory that does not suffice."""
    preview: PreviewGrade | None = None
    """What shows the image while it comes; None: the tiny decoder where the base has one."""
    ip_scale: float = Field(default=1.0, ge=0.0)
    """Weight of the image tokens; 0: the brain has no influence."""
    skip_projector: bool = False
    """Paint the embedding itself, as the paper's released code does, not what the projector makes
    of it."""
    refine: bool = False
    """Begin with a provisional embedding, and go on from there with the final one."""
    refine_strength: float = Field(default=0.6, gt=0.0, le=1.0)
    """How much noise is added to go on: 1 keeps nothing of what there was."""
    from_top: float | None = Field(default=None, gt=0.0, le=1.0)
    """Begin with the first image of the answer, and add so much noise; None: begin with noise."""
    seed: int = 0
    """Trial n is painted from the seed `seed + n`."""

    def with_less_memory(self) -> "PaintingSettings":
        """The same at half the size, which needs about a quarter of the memory for activations."""
        return self.model_copy(update={"halvings": self.halvings + 1})


class SessionConfig(_Settings):
    """One session."""

    session: str
    folder: Path
    endpoints: Endpoints
    source: LiveSource | FileSource
    marker_rule: MarkerRule = MarkerRule()
    trials: TrialSettings = TrialSettings()
    channel_map: dict[str, str] = {}
    """Names of the stream's channels to those that the bundle knows."""
    reject: RejectSettings = RejectSettings()
    trigger: TriggerSettings | None = None
    """A channel of the EEG stream that opens trials, or is compared with the marker stream."""
    bundle: Path | None = None
    gallery: Path | None = None
    decoding: DecodingSettings = DecodingSettings()
    painting: PaintingSettings | None = None
    """None: nothing is painted."""
    top_k: int = 5
    first_trial: int = 1
    realtime: bool = True
    """Whether stamps and clock run together: not so for recordings that are played faster."""
    duration_s: float | None = None
    save_trials: Path | None = None
    record: bool = True
    seed: int | None = None
    simulated: bool = False
    """Whether the EEG is made up; its numbers are then called so wherever they are shown."""

    @model_validator(mode="after")
    def _paints_what_is_decoded(self) -> "SessionConfig":
        if self.painting is not None and self.bundle is None:
            raise ValueError("a session without a bundle has nothing to paint")
        return self

    def with_less_memory(self) -> "SessionConfig":
        """The same with a painting that needs less of it."""
        return self.model_copy(update={"painting": self.painting.with_less_memory()})

    def write(self, name: str = "config.json") -> Path:
        """Writes the config into the session folder and returns its path."""
        path = self.folder / name
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path


def read_config(path: Path) -> SessionConfig:
    """The config of a session.

    Raises:
        Problem: the file cannot be read or is no config.
    """
    try:
        return SessionConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem(
            f"the session config '{path}' cannot be used ({str(error).splitlines()[0]}); start the "
            "session again with run_realtime.py, which writes it"
        ) from None
