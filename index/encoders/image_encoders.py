"""Frozen image encoders. Which ones there are is data (`EncoderSpec`), not code.

An encoder turns images of any size into one float32 vector each, always the same for the same
image and weights. Vectors are not normalised: the fusion's linear maps take them as they come.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from torch import Tensor, nn

from hvf_core.problem import Problem
from hvf_core.specs import is_path, loading, read_spec, source_from
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.classifier import SemanticNet, SemanticNetConfig

COLLAPSED_COSINE = 0.9


class EncoderSpec(BaseModel):
    """One image encoder.

    `source` is where its weights are: a path if it begins with `.` or `/`, otherwise a name on a
    hub. By `kind`:

    - `open_clip`: `source` is a pretrained tag of `architecture`, or a .safetensors file.
    - `autoencoder_kl`: `source` is a diffusers repository or folder, `subfolder` the part of it.
    - `classifier`: `source` is a .safetensors file of `index.encoders.classifier.SemanticNet`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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


# The encoders of the paper: retrieval fuses RN50, ViT-B-32 and the VAE; its Fusion Prior
# takes ViT-H-14 in the place of RN50.
PRESETS = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            name="RN50",
            kind="open_clip",
            architecture="RN50",
            source="openai",
            dim=1024,
            size_px=224,
        ),
        EncoderSpec(
            name="ViT-B-32",
            kind="open_clip",
            architecture="ViT-B-32",
            source="laion2b_s34b_b79k",
            dim=512,
            size_px=224,
        ),
        EncoderSpec(
            name="ViT-H-14",
            kind="open_clip",
            architecture="ViT-H-14",
            source="laion2b_s32b_b79k",
            dim=1024,
            size_px=224,
        ),
        EncoderSpec(
            name="SDXL-VAE",
            kind="autoencoder_kl",
            source="stabilityai/stable-diffusion-xl-base-1.0",
            subfolder="vae",
            dim=1024,
            size_px=128,
        ),
    )
}


def read_specs(file: Path) -> tuple[EncoderSpec, ...]:
    """Reads a JSON list of specs; their paths are taken relative to the file's folder."""
    specs = read_spec(file, tuple[EncoderSpec, ...], "the list of image encoders")
    return tuple(
        spec.model_copy(update={"source": source_from(file.parent, spec.source)}) for spec in specs
    )


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded encoder; `checksum` is the SHA-256 of its weights, whatever file they came from."""

    spec: EncoderSpec
    checksum: str
    _prepare: Callable[[NDArray[np.uint8]], Tensor] = field(repr=False)  # one image
    _embed: Callable[[Tensor], Tensor] = field(repr=False)  # a batch
    _device: torch.device = field(repr=False)

    @torch.inference_mode()
    def encode(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], batch: int = 32
    ) -> NDArray[np.float32]:
        """Embeds RGB images, (n, h, w, 3) or a list of (h, w, 3) of any sizes, as (n, dim)."""
        out = np.empty((len(images), self.spec.dim), np.float32)
        for first in range(0, len(images), batch):
            part = [self._prepare(_checked(image)) for image in images[first : first + batch]]
            embedded = self._embed(torch.stack(part).to(self._device))
            out[first : first + batch] = embedded.float().cpu().numpy()
        return out


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise Problem(
            f"an image is {image.dtype} of shape {image.shape}, expected uint8 of shape "
            "(height, width, 3): convert it to RGB"
        )
    return image


def load_encoder(spec: EncoderSpec, device: str = "cpu") -> ImageEncoder:
    """Loads an encoder's weights, from a file or through its hub's own cache.

    Raises Problem if they cannot be had, are damaged, or do not give `spec.dim` numbers.
    """
    if spec.path and not spec.path.exists():
        raise Problem(
            f"weights of image encoder '{spec.name}' are not at {spec.source}: "
            "put them there or correct 'source' in its spec"
        )
    loader = {
        "open_clip": _load_open_clip,
        "autoencoder_kl": _load_autoencoder_kl,
        "classifier": _load_classifier,
    }[spec.kind]
    way_out = "connect to the network once, or set 'source' to a local copy"
    way_out = "fetch the file again" if spec.path else way_out
    with loading(f"image encoder '{spec.name}'", spec.source, way_out):
        network, prepare, embed = loader(spec)
    network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    encoder = ImageEncoder(spec, _checksum(network), prepare, embed, torch.device(device))
    _try_out(encoder)
    return encoder


def _try_out(encoder: ImageEncoder) -> None:
    spec = encoder.spec
    blank = np.full((spec.size_px, spec.size_px, 3), 128, np.uint8)
    with torch.inference_mode():
        vector = encoder._embed(encoder._prepare(blank)[None].to(encoder._device))
    if vector.shape != (1, spec.dim):
        raise Problem(
            f"image encoder '{spec.name}' gives {vector.numel()} numbers per image, its spec says "
            f"{spec.dim}: correct 'dim' or 'source'"
        )
    if not vector.isfinite().all():
        raise Problem(
            f"image encoder '{spec.name}' gives numbers that are not finite, so its weights "
            f"'{spec.source}' are damaged: fetch them again"
        )


def _checksum(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def squared(image: NDArray[np.uint8], size_px: int) -> Tensor:
    """An RGB image as (3, size_px, size_px) in 0..1: shorter side resized, middle cut out."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    height, width = tensor.shape[2:]
    scale = size_px / min(height, width)
    size = (max(size_px, round(height * scale)), max(size_px, round(width * scale)))
    if size != (height, width):
        tensor = nn.functional.interpolate(tensor, size, mode="bilinear", antialias=True)
    top, left = (size[0] - size_px) // 2, (size[1] - size_px) // 2
    return tensor[0, :, top : top + size_px, left : left + size_px]


_Loaded = tuple[
    nn.Module, Callable[[NDArray[np.uint8]], Tensor], Callable[[Tensor], Tensor]
]  # weights, what prepares one image, what embeds a batch


def _load_open_clip(spec: EncoderSpec) -> _Loaded:
    declare_missing_ops()
    import open_clip

    if spec.path and spec.path.suffix != ".safetensors":
        raise ValueError("only .safetensors files are read, as others can run code")
    model, _, preprocess = open_clip.create_model_and_transforms(
        spec.architecture, pretrained=spec.source
    )
    return model.visual, lambda image: preprocess(Image.fromarray(image)), model.visual


def _load_autoencoder_kl(spec: EncoderSpec) -> _Loaded:
    declare_missing_ops()
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(
        spec.source,
        subfolder=spec.subfolder,
        torch_dtype=torch.float32,
        use_safetensors=True,
        low_cpu_mem_usage=False,
    )

    def embed(images: Tensor) -> Tensor:
        # The mode, as a sample would differ between machines.
        latent = vae.encode(images * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        return latent.flatten(1)

    return vae, lambda image: squared(image, spec.size_px), embed


def load_classifier(spec: EncoderSpec) -> SemanticNet:
    """The network of an encoder of the kind `classifier`; raises as its file is missing or bad."""
    with safe_open(spec.source, framework="pt") as file:
        config = SemanticNetConfig.model_validate_json((file.metadata() or {}).get("config", ""))
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    network = SemanticNet(config)
    network.load_state_dict(weights)
    return network


def _load_classifier(spec: EncoderSpec) -> _Loaded:
    network = load_classifier(spec)
    size_px = network.config.size_px
    return network, lambda image: squared(image, size_px), network.features


def embedding_health(embeddings: NDArray[np.float32]) -> float:
    """Median cosine of random pairs of different rows (n, dim): about 0 to 0.5 is healthy.

    Measured values for comparison: 0.33 for CLIP ViT-B-32, 0.04 for SDXL's VAE.
    """
    rng = np.random.default_rng(0)
    first = rng.integers(len(embeddings), size=4096)
    second = (first + rng.integers(1, len(embeddings), size=4096)) % len(embeddings)
    norms = np.linalg.norm(embeddings, axis=1) + 1e-12
    dots = np.einsum("ij,ij->i", embeddings[first], embeddings[second])
    return float(np.median(dots / (norms[first] * norms[second])))


def refuse_collapsed(embeddings: NDArray[np.float32], name: str) -> None:
    """Raises Problem if unrelated images have nearly the same embedding: a spoilt encoder or cache.

    A collapsed cache still trains, and costs half of the accuracy without any other sign.
    """
    if not np.isfinite(embeddings).all():
        raise Problem(
            f"embeddings '{name}' hold numbers that are not finite: extract the features again"
        )
    cosine = embedding_health(embeddings)
    if cosine > COLLAPSED_COSINE:
        raise Problem(
            f"embeddings '{name}' are collapsed: the median cosine of random pairs is "
            f"{cosine:.3f}, expected at most {COLLAPSED_COSINE}; check the encoder's weights and "
            "extract the features again"
        )
