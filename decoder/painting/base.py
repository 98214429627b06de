"""The frozen diffusion model that paints: a UNet, its VAE, a noise schedule and the empty prompt.

Nothing but safetensors is read, and no text encoder is needed: the prompt is always empty, so that
its encoding is a pair of constants.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from decoder.painting.spec import BASE, PRESETS, BaseSpec, WeightFile
from hvf_core.artifact import cache_folder
from hvf_core.hub.load import from_hub
from hvf_core.problem import Problem
from hvf_core.specs import is_path, loading
from hvf_core.torchvision_ops import declare_missing_ops

declare_missing_ops()

import diffusers  # noqa: E402 - the line above makes it importable
from diffusers.configuration_utils import ConfigMixin  # noqa: E402
from diffusers.models import (  # noqa: E402
    AutoencoderKL,
    AutoencoderTiny,
    ModelMixin,
    UNet2DConditionModel,
)

EMPTY_PROMPT = "empty_prompt.safetensors"
T = TypeVar("T")
Network = TypeVar("Network", bound=ModelMixin)


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
        return self.unet.config["cross_attention_dim"]

    @property
    def n_cross_attentions(self) -> int:
        """How many layers of the UNet attend to tokens."""
        return sum(name.endswith("attn2.processor") for name in self.unet.attn_processors)

    @cached_property
    def device(self) -> torch.device:
        return self.unet.device  # which diffusers looks for in every layer, for milliseconds

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of a model come from: folders, the hub's cache, or else the hub."""

    spec: BaseSpec

    def get(self, part: str, source: str, load: Callable[[], T]) -> T:
        """What `load` makes of the source."""
        is_folder = is_path(source)
        if is_folder and not Path(source).is_dir():
            raise Problem(
                f"there is no folder '{source}' with the diffusion model '{self.spec.name}' or "
                f"{part} of it: copy it there, or give another model with --base"
            )
        way_out = "check its name and your access (`hf auth login`), or give a folder with --base"
        if is_folder:
            way_out = "copy the whole folder again, or give another model with --base"
        what = f"{part} of the diffusion model '{self.spec.name}'"
        with loading(what, source, way_out, HTTPError):
            if is_folder:
                return load()
            fetch = self.spec.name if self.spec in PRESETS.values() else f"FOLDER/{BASE}"
            return from_hub(what, self.spec.sources, fetch, load)

    def network(
        self, part: str, kind: type[Network], source: str, subfolder: str | None, dtype: torch.dtype
    ) -> Network:
        """One of diffusers' networks."""

        def load() -> Network:
            loaded: Any = kind.from_pretrained(
                source,
                subfolder=subfolder,
                torch_dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
            )
            network, found = loaded
            if missing := sorted(found["missing_keys"]):  # diffusers only warns of them
                raise ValueError(f"{len(missing)} tensors are missing, such as {missing[0]}")
            return network

        return self.get(part, source, load)

    def config(
        self, part: str, kind: type[ConfigMixin], source: str, subfolder: str | None
    ) -> dict[str, Any]:
        """The settings of a network alone."""
        load: Any = kind.load_config  # whose types tell of a tuple
        return self.get(part, source, lambda: load(source, subfolder=subfolder))

    def weights(self, part: str, weights: WeightFile, load: Callable[[Path], T]) -> T:
        """What `load` makes of one safetensors file."""

        def from_file() -> T:
            if Path(weights.source).is_dir():
                return load(Path(weights.source) / weights.file)
            return load(Path(hf_hub_download(weights.source, weights.file)))

        return self.get(part, weights.source, from_file)


def load_base(
    spec: BaseSpec, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusionBase:
    """Loads a diffusion model from its folder, or through the hub's own cache.

    What is in the cache is taken without a question to the network.

    Args:
        spec: which one.
        device: where to.
        dtype: precision of all but a VAE that would overflow in it.

    Raises:
        Problem: weights are missing, damaged or of another model, or the hub cannot be reached.
    """
    files = ModelFiles(spec)
    with _diffusers_quiet():
        # What is small first, so that what is missing is told at once.
        scheduler = files.get(
            "the scheduler",
            spec.source,
            lambda: getattr(diffusers, spec.scheduler).from_pretrained(
                spec.source, subfolder="scheduler", **spec.scheduler_options
            ),
        )
        prompt, pooled = _empty_prompt(spec)
        unet = _load_unet(spec, files, dtype)
        vae = _load_vae(spec, files, dtype)
        tiny = None
        if spec.tiny_vae:
            tiny = files.network("the tiny VAE", AutoencoderTiny, spec.tiny_vae, None, dtype)
    for network in filter(None, (unet, vae, tiny)):
        network.eval().requires_grad_(False).to(device)
    base = DiffusionBase(
        spec, unet, vae, scheduler, prompt.to(device, dtype), pooled.to(device, dtype), tiny
    )
    _check_parts(base)
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


def _check_parts(base: DiffusionBase) -> None:
    """Refuses parts that do not fit each other, or are not of SDXL's kind."""
    unet: Any = base.unet.config  # whose types do not tell of the attributes
    vae: Any = base.vae.config
    name = base.spec.name
    if unet.addition_embed_type != "text_time":
        raise Problem(
            f"the UNet of the diffusion model '{name}' takes no picture sizes and pooled prompt, "
            "as SDXL's does: give a model of SDXL's kind with --base"
        )
    if unet.in_channels != vae.latent_channels:
        raise Problem(
            f"the UNet of the diffusion model '{name}' takes {unet.in_channels} channels, its "
            f"VAE has {vae.latent_channels}: give a model that paints whole pictures "
            "with --base"
        )
    pooled = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
    prompts = (base.prompt_embeds, base.pooled_prompt_embeds)
    found = tuple(tuple(prompt.shape) for prompt in prompts)
    wanted = ((1, *found[0][1:2], unet.cross_attention_dim), (1, pooled))
    if found != wanted:
        raise Problem(
            f"the empty prompt of '{name}' has the shapes {found[0]} and {found[1]}, its UNet "
            f"takes (1, tokens, {unet.cross_attention_dim}) and (1, {pooled}): make it again "
            f"with `python -m offline_train empty-prompt --base {name}`"
        )


def _load_unet(spec: BaseSpec, files: ModelFiles, dtype: torch.dtype) -> UNet2DConditionModel:
    part = "the UNet"
    if spec.unet is None:
        unet = files.network(part, UNet2DConditionModel, spec.source, "unet", dtype)
    else:  # whose weights are not those in `unet/`: these, of 10 GB, need not be fetched
        config = files.config(part, UNet2DConditionModel, spec.source, "unet")
        unet = files.weights(part, spec.unet, lambda file: _filled_unet(config, file, dtype))
    if spec.lora is not None:
        files.weights("the LoRA", spec.lora, lambda file: _fuse_lora(unet, file))
    return unet


def _load_vae(spec: BaseSpec, files: ModelFiles, dtype: torch.dtype) -> AutoencoderKL:
    """SDXL's own VAE overflows in float16, and says so by `force_upcast`."""
    place = (spec.vae, spec.vae_subfolder) if spec.vae else (spec.source, "vae")
    config = files.config("the VAE", AutoencoderKL, *place)
    if dtype == torch.float16 and config.get("force_upcast", True):
        dtype = torch.float32
    return files.network("the VAE", AutoencoderKL, *place, dtype)


def _filled_unet(config: dict[str, Any], file: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(config)
    unet.load_state_dict(load_file(file), assign=True)
    return unet.to(dtype)


def _fuse_lora(unet: UNet2DConditionModel, file: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("peft", "transformers")):
        raise ValueError(
            "it needs peft and transformers: run `pip install -c constraints.txt -e '.[sdxl]'`"
        )
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader  # needs both

    state, alphas = Loader.lora_state_dict(
        str(file.parent), weight_name=file.name, unet_config=unet.config, use_safetensors=True
    )
    Loader.load_lora_into_unet(state, network_alphas=alphas, unet=unet)
    if not getattr(unet, "peft_config", None):  # diffusers only warns of it
        raise ValueError("it has no weights for a UNet")
    unet.fuse_lora()
    unet.unload_lora()


@contextmanager
def _diffusers_quiet() -> Iterator[None]:
    """Keeps diffusers from telling what is checked here, raised anyway, or does not matter."""
    logging = diffusers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
