"""Which diffusion model paints, and how: data, not code. Nothing here imports torch.

Those offered by name are in `presets.toml`. All have SDXL's architecture, so that one Fusion Prior
fits them all; it is trained on `sdxl-base`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from hvf_core.hub.load import Source
from hvf_core.problem import Problem
from hvf_core.specs import Frozen, is_path, read_presets, read_spec, source_from

BASE = "base.json"

SchedulerName = Literal[
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LCMScheduler",
    "TCDScheduler",
]


class WeightFile(Frozen):
    """One safetensors file."""

    source: str
    """A folder if it begins with `.` or `/`, otherwise a repository on the hub."""
    file: str = Field(pattern=r"\.safetensors$")


class BaseSpec(Frozen):
    """One diffusion model, and how it is sampled.

    A source is a folder if it begins with `.` or `/`, otherwise a repository on the hub.
    """

    name: str
    family: str
    """A Fusion Prior fits all models of one family: those with the same UNet architecture."""
    source: str
    """Has `unet/`, `vae/` and `scheduler/` as diffusers writes them."""
    unet: WeightFile | None = None
    """Weights that take the place of those in `unet/`."""
    lora: WeightFile | None = None
    """Fused into the UNet."""
    vae: str | None = None
    """A VAE in place of that in `vae/`; see `vae_subfolder`."""
    vae_subfolder: str | None = None
    tiny_vae: str | None = None
    """A small decoder of the same latents, for previews (TAESD; an AutoencoderTiny)."""
    empty_prompt: str | None = None
    """Safetensors file of the empty prompt; None: in `source`, or in the cache."""
    scheduler: SchedulerName
    scheduler_options: dict[str, JsonValue] = Field(default_factory=dict)
    """What differs from `scheduler/`."""
    steps: int = Field(ge=1)
    timesteps: tuple[int, ...] | None = None
    """The noise levels to stop at, where the checkpoint prescribes them."""
    guidance: float = Field(ge=0)
    """Scale of classifier-free guidance; up to 1 there is none."""
    eta: float = 0.0
    """Noise that is added in each step, for schedulers that ask (TCD)."""
    size_px: int = Field(ge=8, multiple_of=8)
    latent_rgb: tuple[tuple[float, float, float, float, float], ...] | None = None
    """What makes red, green and blue, in 0 to 255, of the four channels of a latent and of 1."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """What of it is on the hub, with what the empty prompt is made of."""
        own = ["scheduler/*.json", *_files("unet")[: 1 if self.unet else 2]]
        if not self.empty_prompt:
            for n in ("", "_2"):
                own += [f"tokenizer{n}/*", f"text_encoder{n}/config.json"]
                own += [f"text_encoder{n}/model.safetensors"]
        if not self.vae:
            own += _files("vae")
        found = [_source(self.source, own)]
        if self.vae:
            found.append(_source(self.vae, _files(self.vae_subfolder)))
        if self.tiny_vae:
            found.append(_source(self.tiny_vae, _files(None)))
        found += [_source(one.source, [one.file]) for one in (self.unet, self.lora) if one]
        return tuple(source for source in found if not is_path(source.place))

    def at(self, folder: Path) -> "BaseSpec":
        """The same with its relative paths taken from `folder`."""

        def absolute(place: str | WeightFile | None) -> str | WeightFile | None:
            if isinstance(place, WeightFile):
                return place.model_copy(update={"source": absolute(place.source)})
            return place and source_from(folder, place)

        places = ("source", "unet", "lora", "vae", "tiny_vae", "empty_prompt")
        return self.model_copy(update={name: absolute(getattr(self, name)) for name in places})


class _Published(Frozen):
    name: str
    licence: str
    bytes: dict[str, int]


PRESETS = read_presets(Path(__file__).with_name("presets.toml"), BaseSpec)
_PUBLISHED = read_presets(Path(__file__).with_name("published.toml"), _Published)


def _files(subfolder: str | None) -> list[str]:
    """What diffusers writes of a network."""
    folder = f"{subfolder}/" if subfolder else ""
    return [f"{folder}config.json", f"{folder}diffusion_pytorch_model.safetensors"]


def _source(place: str, files: list[str]) -> Source:
    known = _PUBLISHED.get(place)
    if known is None:
        return Source(place=place, files=tuple(files))
    n_bytes = sum(known.bytes.get(file, 0) for file in files)
    return Source(place=place, files=tuple(files), bytes=n_bytes, licence=known.licence)


def read_base_spec(base: str | Path) -> BaseSpec:
    """The spec of a preset by its name, or of `base.json` in a folder.

    Raises:
        Problem: there is neither, or the file is no spec.
    """
    if str(base) in PRESETS:
        return PRESETS[str(base)]
    file = Path(base) / BASE if Path(base).is_dir() else Path(base)
    if not file.is_file():
        raise Problem(
            f"'{base}' is neither a preset ({', '.join(PRESETS)}) nor a folder with {BASE}: "
            "give one of them"
        )
    return read_spec(file, BaseSpec, "the diffusion model").at(file.parent)
