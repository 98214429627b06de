"""All that defines a session: the tree of its settings, and config.json, which every node reads."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, model_validator

from decoder.calibration import Evidence
from decoder.devices import Device
from decoder.engines.choice import EngineChoice, Precision
from hvf_core.problem import naming, needed
from hvf_core.settings import Settings, setting
from hvf_core.specs import read_spec
from hvf_core.swift import Wanted
from index.search.kinds import MILVUS, NAMES
from index.search.milvus.settings import MilvusSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.reject import RejectSettings
from stream.acquire.settings import AdaptationSettings
from stream.acquire.triggers import TriggerSettings
from stream.pipeline.books.about import KEPT_AS_IT_IS, AboutSettings, Label
from stream.pipeline.outputs.settings import OutputSettings
from stream.pipeline.wire.endpoints import Endpoints, Transport
from stream.sources.settings import ReadSettings, ReplaySettings

RESERVED = 1000
"""Numbers before the first of a reader that is started again: for markers that none announced."""
NUMBERS = 10**8
"""Of trials that readers give: more markers than any session has. Beyond it are those of markers
that none announced, where none is left of the reserved ones."""
KEPT = "kept"
"""In the session folder, while the session runs: what processes keep for those after them."""
Here = Annotated[Path, AfterValidator(Path.absolute)]
"""A path, from the folder in which the command runs."""


def _folder_or_name(text: str) -> str:
    return os.path.abspath(text) if os.path.exists(text) else text  # whatever it is called


def _known_search(kind: str) -> str:
    if kind not in (known := (*NAMES, MILVUS)):
        raise ValueError(f"there is no search '{kind}': give one of {', '.join(known)}")
    return kind


SearchKind = Annotated[str, AfterValidator(_known_search)]


class LiveSource(Settings):
    """EEG and markers from LSL."""

    kind: Literal["lsl"] = "lsl"
    eeg: str = setting(option="--eeg")
    """Name of the EEG stream."""
    markers: str | None = setting(None, option="--markers")
    """Name of the marker stream; without one the markers are in a trigger channel."""
    source_id: str | None = setting(None, option="--source-id")
    """Source id, host, type or uid of the EEG stream, where several have its name."""
    marker_source_id: str | None = setting(None, option="--marker-source-id")
    """The same of the marker stream."""
    wait_s: float = setting(10.0, option="--wait", ge=0)
    """For the streams to appear."""
    record_also: tuple[str, ...] = setting((), option="--record-also")
    """Other streams for recording.xdf, by name or pattern: Gaze,Photo*."""


class FileSource(ReadSettings):
    """A recording, read in virtual time: as fast as it can be decoded."""

    kind: Literal["file"] = "file"
    path: Path
    stop_s: float | None = None


class Presentation(Settings):
    """What the demo's simulated subject sees, and how its EEG is recorded."""

    trials: int = setting(40, option="--trials", ge=1)
    """Presentations in all."""
    repeats: int = setting(8, option="--repeats", ge=1)
    """Presentations of each image, at most; 1: no image comes again."""
    amplitude: float = setting(1.0, option="--amplitude", ge=0)
    """Of the evoked response; 0: nothing to decode."""
    rate_hz: float = setting(250.0, option="--rate", ge=250, le=2000)
    """Of the EEG."""
    soa_s: float = setting(1.0, option="--soa", ge=0.1)
    """From one image to the next."""
    seed: int = setting(0, option="--seed", ge=0, lt=2**32)
    """Of the recording: order and noise; of the paintings too, where they have none."""


class TrialSettings(Settings):
    """How trials are cut where no bundle says so, and what is waited for."""

    tmin_s: float = setting(-0.2, option="--tmin")
    """Start of a trial where no bundle says so."""
    tmax_s: float = 1.0
    """End of a trial where no bundle says so; --tmax gives it too."""
    no_data_after_s: float = setting(2.0, gt=0)
    """A trial whose samples have not come this long after its window is dropped as `no_data`."""
    history_s: float = setting(30.0, gt=0, le=3600)
    """How far back a marker may lie when it arrives."""
    max_unanswered: int = setting(256, ge=1)
    """Trials that may wait for an answer; what comes on top is dropped as `overflow`."""


class DecodingSettings(Settings):
    """How trials are answered."""

    tmax_s: tuple[float, ...] = setting((), option="--tmax")
    """Also answer at these times after onset, as 0.3,0.5; without bundle the end of a trial."""
    evidence: Evidence = setting("mean", option="--evidence")
    """Of repeats: average their EEG, or add their log-likelihoods."""
    min_confidence: float = setting(0.0, option="--min-confidence", live=True, ge=0, le=1)
    """Answers that are less sure are marked `abstain`."""
    engine: EngineChoice = setting("auto", option="--engine")
    """What runs the network; auto: the fastest here."""
    precision: Precision = setting("fp32", option="--precision")
    """Of the network."""
    device: Device = setting("auto", option="--device")
    """What decodes: cpu, cuda or cuda:1; auto: the first card where there is one."""
    awake: Wanted = "auto"
    """Whether a live session keeps the machine's cores from resting (Linux), so that they wake at
    once; auto: where /dev/cpu_dma_latency may be written."""
    spin: Wanted = "auto"
    """Whether the decoder looks for a trial's last slice without sleeping, from just before it is
    due: sooner where cores are free, later where not; auto: with eight cores or more."""
    search: SearchKind = setting("auto", option="--search", live=True)
    """What finds the images; auto: the gallery's index where it is as good as exact, or exact."""
    milvus: MilvusSettings | None = None
    """The server of --search milvus."""
    among: Here | None = setting(None, option="--among", live=True)
    """File of ids, one a line: answers are among these images of the gallery alone."""
    adaptation: AdaptationSettings | None = setting(None, option="--adapt")
    """Follow the session's covariance, without labels."""
    rest: Here | None = setting(None, option="--rest")
    """Resting recording from which the adaptation starts."""
    adapted: Here | None = setting(None, option="--adapted")
    """Folder that `adapt` has made today: what the session starts from."""
    adapted_for_h: float = setting(12.0, gt=0)
    """What is older is refused."""

    @model_validator(mode="before")
    @classmethod
    def _rest_adapts(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("adaptation"):
            return values
        starts = values.get("rest") or values.get("adapted")
        return values | {"adaptation": {}} if starts else values

    @model_validator(mode="after")
    def _starts_from_one(self) -> "DecodingSettings":
        if self.rest is not None and self.adapted is not None:
            raise ValueError("--rest and --adapted are two things to start from: leave one out")
        return self

    @model_validator(mode="after")
    def _server_is_named(self) -> Self:
        if self.search == MILVUS and self.milvus is None:
            raise ValueError(f"the search '{MILVUS}' needs a server: give --milvus-uri")
        return self


class PaintingSettings(Settings):
    """What paints the image that was seen, and how; None stands for what the base asks for."""

    prior: Here = setting(option="--paint")
    """Folder of a Fusion Prior: paint what was seen with it."""
    base: Annotated[str, AfterValidator(_folder_or_name)] | None = setting(None, option="--base")
    """Diffusion model: a folder or a preset; the prior's own by default."""
    steps: int | None = setting(None, option="--paint-steps", live=True, ge=1, le=1000)
    """Steps of denoising; as many as the base asks for by default."""
    guidance: float | None = setting(None, ge=0)
    """How far the image goes beyond what the embedding asks for; 1: not at all."""
    device: Device = setting("auto", option="--paint-device")
    """What paints: cpu, cuda or cuda:1; auto: the last card where there is one."""
    size_px: int | None = setting(None, option="--paint-size", ge=8, multiple_of=8)
    """Of the image; a multiple of 8."""
    halvings: int = setting(0, ge=0)
    """How often the size is halved: the supervisor's answer to memory that does not suffice."""
    preview: Literal["none", "linear", "tiny", "full"] | None = setting(
        None, option="--preview", live=True
    )
    """What shows the image while it comes; the tiny decoder where the base has one."""
    ip_scale: float = setting(1.0, option="--ip-scale", live=True, ge=0)
    """Influence of the brain on the image; 0: none."""
    skip_projector: bool = setting(False, option="--skip-projector")
    """Paint the embedding itself, as the paper's released code does, not what the projector makes
    of it."""
    refine: bool = setting(False, option="--refine", live=True)
    """Begin with a provisional answer of --tmax, and go on from there with the final one."""
    refine_strength: float = setting(0.6, gt=0, le=1)
    """How much noise is added to go on: 1 keeps nothing of what there was."""
    from_top: float | None = setting(None, option="--from-top", gt=0, le=1)
    """Begin with the first image of the answer; 1 keeps none of it."""
    seed: int = setting(0, ge=0, lt=2**32)
    """Trial n is painted from the seed `seed + n`."""


class SessionSettings(Settings):
    """All that a person may set for a session, on the command line or in a TOML file."""

    source: LiveSource | None = None
    """The LSL streams of `live`; `demo` and `replay` bring their own."""
    demo: Presentation | None = None
    """What the demo's simulated subject sees."""
    replay: ReplaySettings | None = None
    """How `replay` plays a recording."""
    subject: Label | None = setting(None, option="--subject", live=True)
    """Who is recorded: a code of letters and digits, and no name; `none` takes it back."""
    about: AboutSettings = AboutSettings()
    """What exports ask for beside the subject."""
    marker_rule: MarkerRule = MarkerRule()
    """Which markers are stimuli."""
    trials: TrialSettings = TrialSettings()
    """How trials are cut, and what is waited for."""
    channel_map: dict[str, str] = setting({}, option="--rename")
    """Channels that the stream calls otherwise than the bundle: MINE=ITS,MINE=ITS."""
    true_rate_hz: float | None = setting(None, option="--true-rate", gt=0)
    """Of an EEG stream that declares a wrong one."""
    reject: RejectSettings = RejectSettings()
    """Which trials hold no brain signal."""
    trigger: TriggerSettings | None = None
    """A channel of the EEG stream that opens trials, or is compared with the marker stream."""
    bundle: Here | None = setting(None, option="--bundle")
    """Folder of a trained bundle."""
    gallery: Here | None = setting(None, option="--gallery")
    """Folder of a gallery; `gallery` beside the bundle by default."""
    decoding: DecodingSettings = DecodingSettings()
    """How trials are answered."""
    painting: PaintingSettings | None = None
    """What paints the image that was seen, and how."""
    top_k: int = setting(5, live=True, ge=1)
    """Images of an answer."""
    duration_s: float | None = setting(None, option="--duration", gt=0)
    """End the session after this time."""
    save_trials: Here | None = setting(None, option="--save-trials")
    """Write the trials as cut: NAME.npz or NAME-epo.fif."""
    record: bool = True
    """Write the streams to recording.xdf."""
    outputs: OutputSettings = OutputSettings()
    """Where answers go beside the bus."""
    transport: Transport = "auto"
    """Between the session's processes: tcp has keys; auto: ipc, or tcp where that is missing."""

    @model_validator(mode="after")
    def _fits_together(self) -> "SessionSettings":
        decoding, painting, trials = self.decoding, self.painting, self.trials
        tmax_s = (*decoding.tmax_s, trials.tmax_s)[0]
        if self.bundle is None and tmax_s <= trials.tmin_s:
            raise ValueError(
                f"a trial from {trials.tmin_s:g} to {tmax_s:g} s has no samples: give a --tmin "
                "before its --tmax"
            )
        if self.bundle is None and painting is not None:
            raise ValueError("a session without a bundle has nothing to paint: give --bundle")
        if self.bundle is None and (len(decoding.tmax_s) > 1 or decoding.adaptation is not None):
            raise ValueError("give --bundle: without one, trials are cut and not decoded")
        if painting is not None and painting.refine and not decoding.tmax_s:
            raise ValueError("--refine begins with a provisional answer: give --tmax 0.3 too")
        return self


class SessionConfig(SessionSettings):
    """One session: its settings, and what is its own."""

    session: str
    folder: Path
    endpoints: Endpoints
    source: LiveSource | FileSource  # type: ignore[assignment] # a person cannot give all of these
    first_trial: int = 1
    """Number of the reader's first trial; one that was restarted goes on behind the last one."""
    was_told: str | None = None
    """What the session had told a node last that is started again: it goes on from there."""
    realtime: bool = True
    """Whether stamps and clock run together: not so for recordings that are played faster."""
    seed: int | None = None
    adapted_sha256: str | None = None
    """Of what --adapted named, which the session keeps and applies."""
    simulated: bool = False
    """Whether the EEG is made up; its numbers are then called so wherever they are shown."""

    def with_less_memory(self) -> "SessionConfig":
        """The same, painted at half the size: about a quarter of the memory for activations."""
        painting = needed(self.painting)
        smaller = painting.model_copy(update={"halvings": painting.halvings + 1})
        return self.model_copy(update={"painting": smaller})

    @property
    def streams_wait_s(self) -> float:
        """How long the reader may wait for its streams."""
        return self.source.wait_s if isinstance(self.source, LiveSource) else 0.0

    def kept(self, name: str) -> Path:
        """A file that a process keeps for one that is started in its place."""
        return self.folder / KEPT / name

    def write(self, name: str = "config.json") -> Path:
        """Writes the config into the session folder and returns its path."""
        path = self.folder / name
        with naming(path):
            path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path


def read_config(path: Path) -> SessionConfig:
    """The config of a session, as its folder holds it."""
    return read_spec(path, SessionConfig, "the session config", KEPT_AS_IT_IS)
