"""Specs of image encoders: which ones there are is data, not code. Nothing here imports torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from hvf_core.specs import Frozen, is_path, read_spec, source_from


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
    kind: Literal["open_clip", "autoencoder_kl", "classifier"]
    source: str
    dim: int = Field(gt=0)
    size_px: int = Field(gt=0)
    architecture: str | None = None
    subfolder: str | None = None

    @property
    def path(self) -> Path | None:
        """The local file or folder, if `source` is one."""
        return Path(self.source) if is_path(self.source) else None


def _clip(architecture: str, source: str, dim: int) -> EncoderSpec:
    return EncoderSpec(
        name=architecture,
        kind="open_clip",
        architecture=architecture,
        source=source,
        dim=dim,
        size_px=224,
    )


_VIT_B = _clip("ViT-B-32", "laion2b_s34b_b79k", 512)
_VAE = EncoderSpec(
    name="SDXL-VAE",
    kind="autoencoder_kl",
    source="stabilityai/stable-diffusion-xl-base-1.0",
    subfolder="vae",
    dim=1024,
    size_px=128,
)
PRESETS = {
    "paper": (_clip("RN50", "openai", 1024), _VIT_B, _VAE),
    "paper-prior": (_clip("ViT-H-14", "laion2b_s32b_b79k", 1024), _VIT_B, _VAE),
}
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
    what = f"the list of image encoders, if none of the presets {', '.join(PRESETS)},"
    specs = read_spec(file, tuple[EncoderSpec, ...], what)
    return tuple(
        spec.model_copy(update={"source": source_from(file.parent, spec.source)}) for spec in specs
    )
