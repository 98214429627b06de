"""Where the weights of an image encoder are published, and what `fetch` calls them."""

from pathlib import Path

from hvf_core.hub.load import Source
from hvf_core.problem import Problem
from index.encoders.spec import ENCODERS, PRESETS, EncoderSpec

ADDRESS = "https://"
TIMM_FILE = "model.safetensors"
"""Of each of timm's repositories."""
CLIP_FILES = "open_clip_model.safetensors|open_clip_pytorch_model.bin"
"""Of most of open_clip's: the first, where it is there."""


def on_hub(spec: EncoderSpec) -> bool:
    """Whether its weights are looked for in the hub's cache, and then on the hub."""
    return not (spec.path or spec.kind == "function" or spec.source.startswith(ADDRESS))


def to_fetch(spec: EncoderSpec, preset: str | None = None) -> tuple[tuple[Source, ...], str]:
    """What has to be fetched for an encoder, or its preset, and what `fetch` calls that.

    Nothing for files that are here, and for functions of one's own.

    Raises:
        Problem: open_clip does not know its weights.
    """
    if preset:
        return tuple(ENCODERS[one.name].published for one in PRESETS[preset].encoders), preset
    if alike := [n for n in ENCODERS.values() if _weights(n.spec) == _weights(spec)]:
        named = next((n for n in alike if n.spec == spec), alike[0])
        return (named.published,), named.spec.name
    if not on_hub(spec):
        return (), ""
    if spec.kind == "open_clip":
        return (_of_open_clip(spec),), f"open_clip:{spec.architecture}:{spec.source}"
    if spec.kind == "timm":
        is_own = spec.source == f"timm/{spec.architecture}"
        name = f"timm:{spec.architecture}" if is_own else ""
        return (Source(place=spec.source, files=(TIMM_FILE,)),), name
    folder = f"{spec.subfolder}/" if spec.subfolder else ""
    files = (f"{folder}config.json", f"{folder}diffusion_pytorch_model.safetensors")
    name = f"diffusers-vae:{spec.source}/{folder}".rstrip("/")
    return (Source(place=spec.source, files=files),), name


def _weights(spec: EncoderSpec) -> tuple[str | None, ...]:
    """What of a spec says which weights it has."""
    return spec.kind, spec.source, spec.subfolder, spec.architecture


def _of_open_clip(spec: EncoderSpec) -> Source:
    """As open_clip's own table has it: tensors alone, where the repository has such a file."""
    from hvf_core.torchvision_ops import declare_missing_ops

    declare_missing_ops()
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    tag = get_pretrained_cfg(spec.architecture, spec.source)
    if not tag:
        there = ", ".join(list_pretrained_tags_by_model(spec.architecture))
        raise Problem(
            f"image encoder '{spec.name}': open_clip has no weights '{spec.source}' of "
            f"'{spec.architecture}': name {there or 'another architecture'}, or a file, @FILE"
        )
    place, _, file = tag["hf_hub"].rpartition("/")
    files = f"{Path(file).stem}.safetensors|{file}" if file else CLIP_FILES
    return Source(place=place, files=(files,))
