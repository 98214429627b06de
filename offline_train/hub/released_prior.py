"""The Fusion Priors that the paper's authors have released, as a prior of this project.

They are folders `fusion_encoder`, `proj` and `attn_adapter`, as diffusers writes models. Image
encoders go by the names of the files that they were loaded from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from decoder.bundle import HVFRecord, ImageEncoderRecord
from decoder.hvf import HVF
from decoder.painting.prior import Prior, PriorManifest, make_projector, save_prior
from decoder.painting.sampler import N_TOKENS
from decoder.painting.spec import BaseSpec
from decoder.weights import filled
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from hvf_core.provenance import provenance

FILE = "diffusion_pytorch_model.safetensors"
NAMES = {
    "CLIP-ViT-H-14-laion2B-s32B-b79K": "ViT-H-14",
    "CLIP-ViT-B-32-laion2B-s34B-b79K": "ViT-B-32",
    "vae": "SDXL-VAE",
    "RN50": "RN50",
    "synclr_vit_b_16": "SynCLR",
    "dinov2-base": "DINOv2-base",
}
"""What this project calls the image encoders of the released files."""
_HEAD = {
    "vision_model.block.layers.0.ff.w1.weight": "head.expand.weight",
    "vision_model.block.layers.0.ff.w2.weight": "head.contract.weight",
    "vision_model.block.layers.0.norm.weight": "head.norm.weight",
    "vision_model.block.layers.0.norm.bias": "head.norm.bias",
}
_PROJECTOR = {"adapter.ff.w1.weight": "expand.weight", "adapter.ff.w2.weight": "contract.weight"}
_MAPS, _ADAPTER = "vision_model.proj_maps.", "attn_processors."


def encoders_of(folder: Path) -> dict[str, str]:
    """The image encoders that a released prior fuses: what it calls them, and this project.

    Raises:
        Problem: the folder is none, or one of them is not known.
    """
    fusion = _tensors(folder / "fusion_encoder")
    keys = [name[len(_MAPS) :].removesuffix(".weight") for name in fusion if _is_map(name)]
    return {key: name_of(key, folder) for key in keys}


def name_of(key: str, where: Path) -> str:
    """What this project calls an image encoder of the released files."""
    if key not in NAMES:
        raise Problem(
            f"'{where}' is of the image encoder '{key}', known are {', '.join(NAMES)}: give one of "
            "the released ones"
        )
    return NAMES[key]


def import_prior(
    folder: Path,
    out: Path,
    records: Sequence[ImageEncoderRecord],
    base: BaseSpec,
    command: str,
    dtype: torch.dtype = torch.float32,
) -> Prior:
    """Writes a released prior as one of this project.

    The mean length of z_f, elsewhere measured on images, is that of what the LayerNorm gives in
    which z_f ends: its weights are the spreads of the numbers, its biases their means.

    Args:
        folder: what was released.
        records: of the image encoders of `encoders_of`, in any order.
        base: a model of the family that it was trained on.
        dtype: of the tensors on disk.

    Raises:
        Problem: files are missing, damaged or of another layout, or an encoder is another one.
    """
    fusion, proj = _tensors(folder / "fusion_encoder"), _tensors(folder / "proj")
    maps = _tensors(folder / "attn_adapter")
    keys = {name: key for key, name in encoders_of(folder).items()}
    if {record.name for record in records} != keys.keys():
        given = ", ".join(record.name for record in records)
        raise Problem(f"'{folder}' fuses {', '.join(keys)}, and {given} are given: give the former")
    taken = {
        f"{_MAPS}{keys[r.name]}.{kind}": f"maps.{r.name}.{kind}"
        for r in records
        for kind in ("weight", "bias")
    }
    hvf, projector = _renamed(fusion, taken | _HEAD), _renamed(fusion, _PROJECTOR)
    if len(hvf) + len(projector) != len(fusion) or len(hvf) != len(taken | _HEAD):
        raise _other_layout(folder)
    dims = {r.name: r.dim for r in records}
    hidden, dim = hvf["head.expand.weight"].shape
    width = proj["norm.weight"].shape[0]
    if proj["proj.weight"].shape != (N_TOKENS * width, dim):
        raise _other_layout(folder)
    adapter = {name.removeprefix(_ADAPTER): tensor for name, tensor in maps.items()}
    projector_hidden = projector["expand.weight"].shape[0]
    length = (hvf["head.norm.weight"].square() + hvf["head.norm.bias"].square()).sum().sqrt()
    files = {
        f"{part}/{FILE}": file_sha256(folder / part / FILE)
        for part in ("fusion_encoder", "proj", "attn_adapter")
    }
    manifest = PriorManifest(
        embedding_dim=dim,
        projector_hidden=projector_hidden,
        hvf=HVFRecord(hidden=hidden),
        cross_attention_dim=width,
        n_cross_attentions=len(maps) // 2,
        family=base.family,
        base=base.name,
        image_encoders=tuple(records),
        space="",
        z_norm=float(length),
        training={"imported": files, "z_norm_rule": "LayerNorm", **provenance(command, "torch")},
    )
    where = folder / "fusion_encoder" / FILE
    return save_prior(
        out,
        manifest,
        filled(lambda: HVF(dims, dim, hidden), hvf, where),
        filled(lambda: make_projector(dim, projector_hidden), projector, where),
        {"image_proj": proj, "ip_adapter": adapter},
        dtype,
    )


def _is_map(name: str) -> bool:
    return name.startswith(_MAPS) and name.endswith(".weight")


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {names[name]: tensor for name, tensor in tensors.items() if name in names}


def _tensors(part: Path) -> dict[str, Tensor]:
    try:
        return {name: tensor.float() for name, tensor in load_file(part / FILE).items()}
    except (OSError, SafetensorError) as error:
        raise Problem(
            f"'{part / FILE}' cannot be read ({error}): give the folder of a Fusion Prior as it "
            "was released, with fusion_encoder, proj and attn_adapter in it, or download it again"
        ) from None


def _other_layout(folder: Path) -> Problem:
    return Problem(
        f"'{folder}' is no Fusion Prior of one block and {N_TOKENS} tokens, as the released ones "
        "are: give one of these"
    )
