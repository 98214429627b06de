"""The Fusion Prior: what an image embedding must be given for a frozen diffusion model to paint it.

HVF fuses what image encoders see into z_f; the projector makes the condition z_c = z_f + MLP(z_f)
of it; an IP-Adapter, kept as stock diffusers reads it, turns z_c into four tokens that the UNet
attends to (HVF, ICLR 2026). Its HVF is the one that a brain encoder is trained against.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from decoder.bundle import BundleManifest, HVFRecord, ImageEncoderRecord, space_of
from decoder.hvf import HVF
from decoder.residual import ResMLP
from decoder.weights import Network, filled
from hvf_core.artifact import (
    check_files,
    check_finite,
    file_sha256,
    read_manifest,
    sealed_directory,
    space_needed,
    write_manifest,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen

if TYPE_CHECKING:  # it takes seconds, and whoever wants a prior's HVF paints nothing
    from decoder.painting.base import DiffusionBase

SCHEMA_VERSION: Literal[1] = 1
PRIOR = "prior.json"
HVF_FILE, PROJECTOR_FILE = "hvf.safetensors", "projector.safetensors"
ADAPTER_FILE = "ip_adapter.safetensors"
"""Stock diffusers' `load_ip_adapter` takes it as it is."""
_FILES = (HVF_FILE, PROJECTOR_FILE, ADAPTER_FILE)


class PriorManifest(Frozen):
    """What `prior.json` says."""

    schema_version: Literal[1] = SCHEMA_VERSION
    embedding_dim: int = Field(gt=0)
    projector_hidden: int = Field(gt=0)
    hvf: HVFRecord
    cross_attention_dim: int = Field(gt=0)
    """Width of the tokens that the UNet attends to."""
    n_cross_attentions: int = Field(gt=0)
    """Layers of the UNet that attend to them."""
    family: str
    """Of the base models that it fits (`BaseSpec.family`)."""
    base: str
    """The one that it was trained on."""
    image_encoders: tuple[ImageEncoderRecord, ...] = Field(min_length=1)
    space: str
    """Names the embedding space; that of a bundle must be the same (`bundle.space_of`)."""
    z_norm: float = Field(gt=0, allow_inf_nan=False)
    """Mean L2 norm of z_f over the training images."""
    training: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of each file, by its name."""


def make_projector(dim: int, hidden: int) -> ResMLP:
    """The projector, z_c = z_f + MLP(z_f): neither biases nor a norm (hidden 4096 in the paper)."""
    return ResMLP(dim, hidden, dropout=0.0, norm=False)


@dataclass(frozen=True)
class Prior:
    """A Fusion Prior on disk, verified; networks are on the CPU, frozen, in evaluation mode."""

    directory: Path
    manifest: PriorManifest

    @cached_property
    def hvf(self) -> HVF:
        dims = {encoder.name: encoder.dim for encoder in self.manifest.image_encoders}
        sizes = (dims, self.manifest.embedding_dim, self.manifest.hvf.hidden)
        return self._filled(lambda: HVF(*sizes), HVF_FILE)

    @cached_property
    def projector(self) -> ResMLP:
        sizes = (self.manifest.embedding_dim, self.manifest.projector_hidden)
        return self._filled(lambda: make_projector(*sizes), PROJECTOR_FILE)

    @cached_property
    def adapter(self) -> dict[str, dict[str, Tensor]]:
        """`image_proj` and `ip_adapter`, as `Sampler` and stock diffusers take them."""
        return read_adapter(self.directory / ADAPTER_FILE)

    @torch.inference_mode()
    def condition(self, z: Tensor, *, skip_projector: bool = False) -> Tensor:
        """What the adapter takes, z_c (n, dim), of embeddings (n, dim).

        Nothing ties the length of a brain embedding to that of an image's: the loss that it was
        trained with compares directions only, and a live one has the length 1. So embeddings are
        first brought to the mean length of the training images' (`z_norm`).

        Args:
            z: of a brain or of images.
            skip_projector: give z itself, as the released code of the paper does when it
                paints from the brain.
        """
        z = z.float()
        z = z * (self.manifest.z_norm / torch.linalg.vector_norm(z, dim=-1, keepdim=True))
        return z if skip_projector else self.projector(z)

    def _filled(self, make: Callable[[], Network], file: str) -> Network:
        path = self.directory / file
        return filled(make, _tensors(path), path).requires_grad_(False)


def save_prior(
    directory: Path,
    manifest: PriorManifest,
    hvf: HVF,
    projector: ResMLP,
    adapter: Mapping[str, Mapping[str, Tensor]],
    dtype: torch.dtype = torch.float32,
) -> Prior:
    """Writes a prior whole or not at all; a prior that was there is replaced.

    The manifest's `files` and `space` are filled in here. The adapter is `image_proj` and
    `ip_adapter`, as stock diffusers names them; `dtype` is that of the tensors on disk.

    Raises:
        Problem: when a weight is not finite, or `directory` holds something else.
    """
    parts = {
        HVF_FILE: hvf.state_dict(),
        PROJECTOR_FILE: projector.state_dict(),
        ADAPTER_FILE: {
            f"{part}.{name}": tensor
            for part, tensors in adapter.items()
            for name, tensor in tensors.items()
        },
    }
    with sealed_directory(directory, PRIOR) as draft:
        for file, tensors in parts.items():
            kept = {n: t.detach().to("cpu", dtype).contiguous() for n, t in tensors.items()}
            check_finite(file, {name: tensor.numpy() for name, tensor in kept.items()})
            with space_needed(directory):
                save_file(kept, draft / file)
        update = {
            "space": _space(draft / HVF_FILE, manifest),
            "files": {file: file_sha256(draft / file) for file in parts},
        }
        write_manifest(draft / PRIOR, manifest.model_copy(update=update))
    return load_prior(directory)


def read_prior(directory: Path) -> PriorManifest:
    """What a prior says of itself; its files are only known to be named.

    Raises:
        Problem: when the manifest is missing, damaged, or made by a newer program.
    """
    return read_manifest(directory, PRIOR, PriorManifest, SCHEMA_VERSION, _FILES)


def load_prior(directory: Path) -> Prior:
    """Opens a prior and verifies its manifest, its files and the name of its space.

    Raises:
        Problem: when it is missing, damaged, made by a newer program, or not consistent.
    """
    manifest = read_prior(directory)
    check_files(directory, manifest.files)
    if _space(directory / HVF_FILE, manifest) != manifest.space:
        raise Problem(
            f"the embedding space that '{directory / PRIOR}' names is not that of its HVF and "
            "image encoders: make the prior again"
        )
    return Prior(directory, manifest)


def check_fits(prior: Prior, base: "DiffusionBase") -> None:
    """Refuses a base model that the prior was not made for.

    Raises:
        Problem: another family, another width of tokens, or another number of layers.
    """
    manifest, spec = prior.manifest, base.spec
    if manifest.family != spec.family:
        raise Problem(
            f"the prior '{prior.directory}' is for base models of the family '{manifest.family}', "
            f"'{spec.name}' is of '{spec.family}': give one of the former with --base"
        )
    wanted = (manifest.n_cross_attentions, manifest.cross_attention_dim)
    found = (base.n_cross_attentions, base.cross_attention_dim)
    if wanted != found:
        raise Problem(
            f"the prior '{prior.directory}' needs a UNet with {wanted[0]} cross-attentions to "
            f"tokens of the width {wanted[1]}, '{spec.name}' has {found[0]} to {found[1]}: give "
            f"the base that it was trained on ('{manifest.base}') with --base"
        )


def check_bundle(prior: Prior, bundle: BundleManifest) -> None:
    """Refuses a prior that a bundle's embeddings mean nothing to.

    Raises:
        Problem: when the bundle decodes into another space than the prior paints from.
    """
    manifest = prior.manifest
    way_out = f"train the bundle with `python -m offline_train mbp ... --prior {prior.directory}`"
    if manifest.embedding_dim != bundle.embedding_dim:
        raise Problem(
            f"the prior '{prior.directory}' paints embeddings of {manifest.embedding_dim} numbers, "
            f"the bundle's have {bundle.embedding_dim}: {way_out}"
        )
    if manifest.space != bundle.space:
        raise Problem(
            f"the prior '{prior.directory}' paints from the embedding space "
            f"{manifest.space[:12]}, the bundle decodes into {bundle.space[:12]}: {way_out}"
        )


def read_adapter(file: Path) -> dict[str, dict[str, Tensor]]:
    """`image_proj` and `ip_adapter` of a plain IP-Adapter as stock diffusers keeps it.

    Raises:
        Problem: the file is not there, damaged, or something else.
    """
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in _tensors(file).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor.float()
    if parts.keys() != {"image_proj", "ip_adapter"} or not all(parts.values()):
        raise Problem(
            f"'{file}' is no plain IP-Adapter (it has {', '.join(sorted(parts))}): give one such "
            "as ip-adapter_sdxl_vit-h.safetensors"
        )
    return parts


def _space(hvf_file: Path, manifest: PriorManifest) -> str:
    # In float32, as a bundle keeps the same HVF.
    arrays = {n: t.float().numpy() for n, t in _tensors(hvf_file).items()}
    return space_of(arrays, manifest.image_encoders)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise Problem(
            f"'{path}' cannot be read as safetensors ({error}): fetch or make it again"
        ) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Problem(
                f"tensor {name} of '{path}' has values that are not finite: make or fetch it again"
            )
    return tensors
