"""The bundle: one trained brain encoder and everything that is needed to run it live.

A directory with `bundle.json` and one safetensors file for each part. Nothing here imports torch,
because the reader process needs the channels, the window and the preprocessing, and no network.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, JsonValue, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file

from decoder.brain.names import BrainEncoderName
from decoder.calibration import Calibration
from hvf_core.artifact import (
    check_files,
    check_finite,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen

SCHEMA_VERSION: Literal[1] = 1
MANIFEST = "bundle.json"

Part = Literal["brain", "hvf", "preprocessing", "seen"]
PARTS: tuple[Part, ...] = ("brain", "hvf", "preprocessing")
"""Those that every bundle has."""
SEEN: Part = "seen"
"""What it remembers of its training's trials, for evaluations alone; few bundles of before do."""


class ImageEncoderRecord(Frozen):
    """Which frozen image encoder an embedding is from."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Also the name of the encoder's tensors, hence no dots."""
    dim: int = Field(gt=0)
    """Width of its embedding."""
    checksum: str
    """Names the encoder's weights and settings; other weights have another one."""


class BrainEncoderRecord(Frozen):
    """The network from a trial to an embedding."""

    name: BrainEncoderName = "mbp"
    hidden: int = Field(gt=0)
    """Inner width of MBP's residual block; the other encoders have the widths of their papers."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """What an encoder of braindecode was made with, beside what the trials tell."""


class HVFRecord(Frozen):
    """The network from image encoders' embeddings to one embedding."""

    hidden: int = Field(gt=0)
    """Inner width of the residual block."""
    gated: bool = False
    """Whether encoders have weights that are learnt."""


class TrialInfo(Frozen):
    """What preprocessed trials have in common: those of a set, and those that a bundle takes."""

    channels: tuple[str, ...] = Field(min_length=1)
    """In order."""
    kind: str = "eeg"
    """What these channels record: `eeg`, `meg` ...; "" where that is not known."""
    unit: str = "microvolts"
    """In which a stream of them comes, before whitening and scaling; "" where not known."""
    rate_hz: float = Field(gt=0, le=1e6)
    tmin_s: float = Field(ge=-1e3, le=1e3)
    """First sample of a trial after its onset."""
    tmax_s: float = Field(ge=-1e3, le=1e3)
    """Last sample of a trial after its onset, inclusive as in MNE."""
    preprocessing: dict[str, JsonValue] = Field(default_factory=dict)
    """Settings of the preprocessing that makes them, which validates them itself."""

    @property
    def n_times(self) -> int:
        """Samples of a trial: both ends of the window belong to it."""
        return self.n_times_at(self.tmax_s)

    def n_times_at(self, tmax_s: float) -> int:
        """Samples of a trial up to a time after its onset, which belongs to it."""
        return round(tmax_s * self.rate_hz) - round(self.tmin_s * self.rate_hz) + 1

    def mark(self, tmax_s: float) -> int:
        """`n_times_at` an end of the window at which an answer is wanted.

        A time within a sample of the bundle's tmax, such as 1.0 where it is 0.996, means that.

        Raises:
            Problem: when the time leaves no sample, or lies behind the bundle's window.
        """
        n_times = self.n_times_at(tmax_s)
        if not 1 <= n_times <= self.n_times + 1:
            raise Problem(
                f"tmax {tmax_s:g} s is not in the bundle's window, which is {self.tmin_s:g} to "
                f"{self.tmax_s:g} s: ask for times in it, or train a bundle for a longer one"
            )
        return min(n_times, self.n_times)


class BundleManifest(TrialInfo):
    """What `bundle.json` says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    preprocessing: dict[str, JsonValue]
    brain_encoder: BrainEncoderRecord
    image_encoders: tuple[ImageEncoderRecord, ...] = Field(min_length=1)
    hvf: HVFRecord
    embedding_dim: int = Field(gt=0)
    logit_scale: float = Field(allow_inf_nan=False)
    """Natural logarithm of the factor on cosines before the softmax, as learnt."""
    space: str
    """Names the embedding space; see `space_of`."""
    calibration: Calibration | None = None
    """What turns cosines into probabilities; None where no stimuli were held out for it."""
    training: dict[str, JsonValue] = Field(default_factory=dict)
    """Where the weights come from: settings, seed, data checksum, versions, command."""
    metrics: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file, by its name."""

    @model_validator(mode="after")
    def _consistent(self) -> "BundleManifest":
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels {list(self.channels)} name one channel twice")
        if self.tmax_s < self.tmin_s:
            raise ValueError(f"tmax_s {self.tmax_s} lies before tmin_s {self.tmin_s}")
        return self

    def marks(self, tmax_s: Sequence[float] = ()) -> tuple[int, ...]:
        """The marks of these times and of the bundle's own tmax, rising, each once.

        Raises:
            Problem: when a time is not in the bundle's window.
        """
        return tuple(sorted({*map(self.mark, tmax_s), self.n_times}))


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; its arrays are read when they are asked for."""

    directory: Path
    manifest: BundleManifest

    def file(self, part: Part) -> Path:
        return self.directory / _file_of(part)

    def arrays(self, part: Part) -> dict[str, np.ndarray]:
        """Reads the arrays of a part, by name.

        Raises:
            Problem: when its file is damaged, or a value is not finite.
        """
        try:
            arrays = load_file(self.file(part))
        except SafetensorError as error:
            raise Problem(
                f"{self.file(part)} is no safetensors file ({error}): make the bundle again"
            ) from None
        check_finite(str(self.file(part)), arrays)
        return arrays


def space_of(
    hvf_arrays: Mapping[str, np.ndarray], image_encoders: Sequence[ImageEncoderRecord]
) -> str:
    """Names an embedding space: embeddings can be compared only if this is equal for both.

    Returns:
        The SHA-256 of the HVF's weights and of the image encoders' records, in hexadecimal.
    """
    digest = hashlib.sha256()
    for name, array in sorted(hvf_arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    for encoder in sorted(image_encoders, key=lambda record: record.name):
        digest.update(encoder.model_dump_json().encode())
    return digest.hexdigest()


def save_bundle(
    directory: Path, manifest: BundleManifest, parts: Mapping[Part, Mapping[str, np.ndarray]]
) -> Bundle:
    """Writes a bundle of all its parts whole or not at all; one that was there is replaced.

    The manifest's `files` are filled in here. Preprocessing without state has no arrays.

    Raises:
        Problem: when a weight is not finite, or `directory` holds something else.
    """
    for part, arrays in parts.items():
        check_finite(part, arrays)
    with sealed_directory(directory, MANIFEST) as draft:
        files = {
            _file_of(part): write_tensors(draft / _file_of(part), arrays)
            for part, arrays in parts.items()
        }
        write_manifest(draft / MANIFEST, manifest.model_copy(update={"files": files}))
    return load_bundle(directory)


def load_bundle(directory: Path) -> Bundle:
    """Opens a bundle and verifies its files and the name of its space.

    That is the work of whoever starts a session or an evaluation; it reads the whole bundle.

    Raises:
        Problem: when it is missing, damaged, made by a newer program, or not consistent.
    """
    bundle = open_bundle(directory)
    manifest = bundle.manifest
    check_files(directory, manifest.files)
    arrays = {part: bundle.arrays(part) for part in PARTS}
    if space_of(arrays["hvf"], manifest.image_encoders) != manifest.space:
        raise Problem(
            f"the embedding space that {directory / MANIFEST} names is not that of its HVF and "
            "image encoders: make the bundle again"
        )
    return bundle


def open_bundle(directory: Path) -> Bundle:
    """Opens a bundle that was verified before: only its manifest is read.

    Raises:
        Problem: when it is missing, made by a newer program, or its manifest is not consistent.
    """
    files, seen = map(_file_of, PARTS), _file_of(SEEN)
    manifest = read_manifest(directory, MANIFEST, BundleManifest, SCHEMA_VERSION, files, seen)
    return Bundle(directory, manifest)


def _file_of(part: Part) -> str:
    return f"{part}.safetensors"
