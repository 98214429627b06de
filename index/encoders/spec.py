"""Specs of image encoders: which ones there are is data, not code. Nothing here imports torch."""

import tomllib
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from hvf_core.hub.load import Source
from hvf_core.problem import Problem
from hvf_core.specs import Frozen, first_fault, is_path, read_spec, source_from
from index.encoders.said import FORMS, fields_of, local, words_of

Kind = Literal["open_clip", "diffusers-vae", "timm", "classifier", "function"]
Pool = Literal["cls", "mean", "patches"]
Dtype = Literal["float32", "bfloat16", "float16"]
Resize = tuple[int, Literal["bilinear", "bicubic"]]
Channels = tuple[float, float, float]

LOADERS: Mapping[Kind, str] = {
    "open_clip": "index.encoders.clip:load",
    "diffusers-vae": "index.encoders.vae:load",
    "timm": "index.encoders.timm_models:load",
    "classifier": "index.encoders.classifier:load",
    "function": "index.encoders.own:load",
}
"""The function from a spec to `Parts` that loads each kind."""


def _renamed(kind: object) -> object:
    return "diffusers-vae" if kind == "autoencoder_kl" else kind  # its name in older lists


class EncoderSpec(Frozen):
    """One image encoder; what is left out is as its kind has it.

    `source` is where its weights are: a path if it begins with `.` or `/`, otherwise a name on a
    hub. By `kind`:

    - `open_clip`: `source` is a pretrained tag of `architecture`, or a .safetensors file.
    - `diffusers-vae`: `source` is a diffusers repository or folder, `subfolder` the part of it.
    - `timm`: `source` is a repository with timm's weights of `architecture`, the https address of a
      checkpoint of it, or a file: .safetensors, or a .pth of which nothing but tensors is read.
    - `classifier`: `source` is a .safetensors file of `index.encoders.classifier.SemanticNet`.
    - `function`: `source` is `module:function`, one of your own that gives `Parts` for this spec.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """Also the name of its tensors in an HVF, hence no dots."""
    kind: Annotated[Kind, BeforeValidator(_renamed)]
    source: str
    dim: int = Field(0, gt=0)
    """Numbers per image; left out, whatever it gives, which is known once it is loaded."""
    size_px: int = Field(0, gt=0)
    """Side of the square that the network sees."""
    architecture: str | None = None
    subfolder: str | None = None
    layer: int | None = Field(None, ge=1)
    """`timm`: after how many blocks, without the norm after the last one."""
    pool: Pool | None = None
    """`timm`: the class token, the mean of all tokens, or of those of the image alone."""
    dtype: Dtype = "float32"
    """What it computes in; embeddings are float32 in any case."""
    resize: tuple[Resize, ...] = ()
    """`timm`: what the shorter side becomes, step by step, before the middle is cut out."""
    mean: Channels | None = None
    std: Channels | None = None
    # Not told where nothing is blurred: what is decided by a spec keeps the name that it had.
    blur_px: int | None = Field(None, ge=3, exclude_if=lambda value: value is None)
    """Side of the Gaussian, in pixels of 224, that an image is blurred by outside its middle."""

    @property
    def path(self) -> Path | None:
        """The local file or folder, if `source` is one."""
        return Path(self.source) if is_path(self.source) else None

    @model_validator(mode="after")
    def _says_what_is_needed_and_nothing_in_vain(self) -> Self:
        if self.kind in ("open_clip", "timm") and not self.architecture:
            raise ValueError(f"encoders of the kind {self.kind} need an 'architecture'")
        if self.kind not in ("timm", "function"):
            for field in ("layer", "pool", "resize", "mean", "std"):
                if getattr(self, field):
                    raise ValueError(f"'{field}' is for encoders of the kind timm")
        if self.blur_px is not None and self.blur_px % 2 == 0:
            raise ValueError(
                f"'blur_px' is {self.blur_px}, and a kernel has a middle: say an odd one"
            )
        if self.kind in ("diffusers-vae", "classifier") and self.dtype != "float32":
            raise ValueError(f"encoders of the kind {self.kind} compute in float32")
        return self


class Named(Frozen):
    """An encoder that has a name."""

    spec: EncoderSpec
    published: Source
    about: str


class Preset(Frozen):
    """Encoders that belong together."""

    encoders: tuple[EncoderSpec, ...]
    about: str


def _catalogue(file: Path) -> tuple[Mapping[str, Named], Mapping[str, Preset]]:
    tables: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    named = {}
    for name, table in tables["encoders"].items():
        published, about = Source(**table.pop("published")), table.pop("about")
        spec = EncoderSpec(name=name, **table)
        named[name] = Named(spec=spec, published=published, about=about)
    presets = {
        name: Preset(encoders=tuple(named[n].spec for n in table["encoders"]), about=table["about"])
        for name, table in tables["presets"].items()
    }
    return named, presets


ENCODERS, PRESETS = _catalogue(Path(__file__).with_name("presets.toml"))


def read_specs(encoders: str | Path) -> tuple[EncoderSpec, ...]:
    """The image encoders that are said.

    Args:
        encoders: a JSON list, whose relative paths are taken from its folder; or names of presets
            and encoders, and what `index.encoders.said` reads, with commas between them.

    Raises:
        Problem: it is none of these, the file is no such list, or two encoders have one name.
    """
    if isfile(encoders):  # of which Path makes an error where it is too long for a name
        folder = Path(encoders).parent
        listed = read_spec(Path(encoders), tuple[EncoderSpec, ...], "the list of image encoders")
        specs = [s.model_copy(update={"source": source_from(folder, s.source)}) for s in listed]
    else:
        specs = [spec for text in str(encoders).split(",") for spec in _said(text.strip())]
    twice = [name for name, times in Counter(spec.name for spec in specs).items() if times > 1]
    if twice:
        raise Problem(
            f"'{encoders}' has more than one image encoder '{twice[0]}': leave one out, or name "
            "them in a JSON list"
        )
    return tuple(specs)


def _said(text: str) -> tuple[EncoderSpec, ...]:
    """The encoders of a preset, or the one that is said by its name or in words."""
    if text in PRESETS:
        return PRESETS[text].encoders
    said, _, file = text.partition("@")
    name, *words = said.split(":")
    if not (name in ENCODERS or words or (file and name in ("classifier", "diffusers-vae"))):
        close = get_close_matches(text, [*PRESETS, *ENCODERS], 1)
        meant = f" (did you mean '{close[0]}'?)" if close else ""
        raise Problem(
            f"'{text}' is neither a file nor a preset of image encoders nor one of them{meant}: "
            f"give --encoders {', '.join(PRESETS)}; or, with commas between them, some of "
            f"{', '.join(ENCODERS)}, {', '.join(FORMS)}; or a JSON list (docs/encoders.md)"
        )
    if name in ENCODERS:
        left_out = {"dim"} if words else set()  # as a VAE's goes with its size
        fields = ENCODERS[name].spec.model_dump(exclude=left_out)
        fields |= words_of(words, text) | {"name": "-".join([name, *words])}
        fields |= {"source": local(file)} if file else {}
    else:
        fields = fields_of(text)
    try:
        spec = EncoderSpec.model_validate(fields)
    except ValidationError as error:
        raise Problem(
            f"image encoder '{text}' is not valid {first_fault(error)}: leave out what does not fit"
        ) from None
    known = (named.spec for named in ENCODERS.values())
    return (next((one for one in known if _is(one, spec)), spec),)


def _is(known: EncoderSpec, spec: EncoderSpec) -> bool:
    """Whether a spec says the same as one that is known, but for its name, or less."""
    more = {"name": known.name, "dim": known.dim, "size_px": spec.size_px or known.size_px}
    return spec.model_copy(update=more) == known
