"""Specs of image encoders: which ones there are is data, not code. Nothing here imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from hvf_core.problem import Problem
from hvf_core.specs import Frozen, is_path, read_presets, read_spec, source_from

Kind = Literal["open_clip", "autoencoder_kl", "classifier"]

LOADERS: Mapping[Kind, str] = {
    "open_clip": "index.encoders.clip:load",
    "autoencoder_kl": "index.encoders.vae:load",
    "classifier": "index.encoders.classifier:load",
}
"""The function from a spec to `Parts` that loads each kind."""


class EncoderSpec(Frozen):
    """One image encoder.

    `source` is where its weights are: a path if it begins with `.` or `/`, otherwise a name on a
    hub. By `kind`:

    - `open_clip`: `source` is a pretrained tag of `architecture`, or a .safetensors file.
    - `autoencoder_kl`: `source` is a diffusers repository or folder, `subfolder` the part of it.
    - `classifier`: `source` is a .safetensors file of `index.encoders.classifier.SemanticNet`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Also the name of its tensors in an HVF, hence no dots."""
    kind: Kind
    source: str
    dim: int = Field(gt=0)
    size_px: int = Field(gt=0)
    architecture: str | None = None
    subfolder: str | None = None

    @property
    def path(self) -> Path | None:
        """The local file or folder, if `source` is one."""
        return Path(self.source) if is_path(self.source) else None


_OFFERED = read_presets(Path(__file__).with_name("presets.toml"), EncoderSpec)
_BOTH = (_OFFERED["ViT-B-32"], _OFFERED["SDXL-VAE"])
PRESETS = {"paper": (_OFFERED["RN50"], *_BOTH), "paper-prior": (_OFFERED["ViT-H-14"], *_BOTH)}
"""What the paper (HVF, ICLR 2026) fuses for retrieval, and in its Fusion Prior."""


def read_specs(encoders: str | Path) -> tuple[EncoderSpec, ...]:
    """The encoders of a preset by its name, or of a JSON list.

    Relative paths in a list are taken from its folder.

    Raises:
        Problem: there is neither, or the file is no such list.
    """
    if str(encoders) in PRESETS:
        return PRESETS[str(encoders)]
    file = Path(encoders)
    if not file.is_file():
        raise Problem(
            f"'{encoders}' is neither a file nor a preset of image encoders: give --encoders "
            f"{' or '.join(PRESETS)}, or a JSON list of your own, as docs/training.md shows one"
        )
    specs = read_spec(file, tuple[EncoderSpec, ...], "the list of image encoders")
    return tuple(
        spec.model_copy(update={"source": source_from(file.parent, spec.source)}) for spec in specs
    )
