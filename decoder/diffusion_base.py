"""The frozen diffusion model that paints: a UNet, its VAE, a noise schedule and the empty prompt.

Nothing but safetensors is read, and no text
encoder is needed: the prompt is always empty, so that its encoding is a pair of constants.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from decoder.artifact import cache_folder
from decoder.diffusion_spec import BaseSpec, WeightFile
from decoder.problem import Problem
from decoder.torchvision_ops import declare_missing_ops

declare_missing_ops()

import diffusers  # noqa: E402 - the line above makes it importable
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel  # noqa: E402

EMPTY_PROMPT = "empty_prompt.safetensors"


@dataclass(frozen=True)
class DiffusionBase:
    """A diffusion model, loaded: frozen, in evaluation mode, on one device.

    `prompt_embeds` (1, tokens, width) and `pooled_prompt_embeds` (1, width) are the empty prompt.
    The VAE is in float32 where half precision would overflow it.
    """

    spec: BaseSpec
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler: Any
    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor
    tiny_vae: AutoencoderTiny | None = None

    @property
    def cross_attention_dim(self) -> int:
        """Width of the tokens that the UNet attends to."""
        return self.unet.config.cross_attention_dim

    @property
    def n_cross_attentions(self) -> int:
        """How many layers of the UNet attend to tokens."""
        return sum(name.endswith("attn2.processor") for name in self.unet.attn_processors)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype


def load_base(
    spec: BaseSpec, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusionBase:
    """Loads a diffusion model from its folder, or through the hub's own cache.

    The hub's time-outs are those of huggingface_hub (HF_HUB_DOWNLOAD_TIMEOUT, 10 s).

    Raises:
        Problem: weights are missing, damaged or of another model, or the hub cannot be reached.
    """
    with _told(spec, "the UNet"):
        unet = UNet2DConditionModel.from_pretrained(
            spec.source, subfolder="unet", torch_dtype=dtype, use_safetensors=True
        )
    if spec.unet is not None:
        with _told(spec, "the UNet's weights"):
            unet.load_state_dict(load_file(_fetched(spec.unet)))
    if spec.lora is not None:
        with _told(spec, "the LoRA"):
            _fuse_lora(unet, _fetched(spec.lora))
    with _told(spec, "the VAE"):
        place = {"subfolder": spec.vae_subfolder} if spec.vae else {"subfolder": "vae"}
        # SDXL's own VAE overflows in float16 and says so.
        config = AutoencoderKL.load_config(spec.vae or spec.source, **place)
        vae = AutoencoderKL.from_pretrained(
            spec.vae or spec.source,
            **place,
            torch_dtype=torch.float32 if config.get("force_upcast", True) else dtype,
            use_safetensors=True,
        )
    tiny = None
    if spec.tiny_vae is not None:
        with _told(spec, "the tiny VAE"):
            tiny = AutoencoderTiny.from_pretrained(
                spec.tiny_vae, torch_dtype=dtype, use_safetensors=True
            )
    with _told(spec, "the scheduler"):
        scheduler = getattr(diffusers, spec.scheduler).from_pretrained(
            spec.source, subfolder="scheduler", **spec.scheduler_options
        )
    prompt, pooled = _empty_prompt(spec)
    for network in filter(None, (unet, vae, tiny)):
        network.eval().requires_grad_(False).to(device)
    base = DiffusionBase(
        spec, unet, vae, scheduler, prompt.to(device, dtype), pooled.to(device, dtype), tiny
    )
    _check_prompt(base)
    return base


def empty_prompt_file(spec: BaseSpec) -> Path:
    """Where the encoding of the empty prompt is, or belongs."""
    if spec.empty_prompt is not None:
        return Path(spec.empty_prompt)
    beside = Path(spec.source) / EMPTY_PROMPT
    return beside if beside.is_file() else cache_folder() / "empty-prompts" / f"{spec.family}.st"


def _empty_prompt(spec: BaseSpec) -> tuple[Tensor, Tensor]:
    file = empty_prompt_file(spec)
    try:
        tensors = load_file(file)
        return tensors["prompt_embeds"], tensors["pooled_prompt_embeds"]
    except (OSError, KeyError, SafetensorError):
        raise Problem(
            f"the empty prompt of '{spec.name}' is not in '{file}': make it once with "
            f"`python -m offline_train empty-prompt --base {spec.name}`"
        ) from None


def _check_prompt(base: DiffusionBase) -> None:
    config = base.unet.config
    wanted = (
        config.cross_attention_dim,
        config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim,
    )
    found = (base.prompt_embeds.shape[-1], base.pooled_prompt_embeds.shape[-1])
    if found != wanted:
        raise Problem(
            f"the empty prompt of '{base.spec.name}' has the widths {found}, its UNet takes "
            f"{wanted}: make it again with `python -m offline_train empty-prompt`"
        )


def _fuse_lora(unet: UNet2DConditionModel, file: Path) -> None:
    # Here, as only checkpoints that are LoRAs need peft and transformers.
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader

    state, alphas = Loader.lora_state_dict(
        str(file.parent), weight_name=file.name, unet_config=unet.config, use_safetensors=True
    )
    Loader.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
    unet.fuse_lora()
    unet.unload_lora()


def _fetched(weights: WeightFile) -> Path:
    if weights.source.startswith(("/", ".")):
        return Path(weights.source) / weights.file
    return Path(hf_hub_download(weights.source, weights.file))


@contextmanager
def _told(spec: BaseSpec, part: str) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        RuntimeError,
        ValueError,
        SafetensorError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
    ) as fault:
        reason = " ".join(str(fault).split())[:200]
        raise Problem(
            f"{part} of the diffusion model '{spec.name}' cannot be loaded from '{spec.source}' "
            f"({reason}): connect to the network once, or give a folder that has it with --base"
        ) from fault
