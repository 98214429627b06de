"""The sampler: from image embeddings to pictures, step by step, given up as soon as it is told to.

The loop is that of diffusers' SDXL pipelines, to the bit, with what those do not have: no text
encoder, keys and values cached (`attention`), the clean estimate of every step for previews,
an end within one step without a VAE decode, and rows of a batch that do not see each other.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from decoder.capture import Captured
from decoder.painting import attention, previews
from decoder.painting.attention import CachedCrossAttention
from decoder.painting.base import DiffusionBase
from decoder.painting.previews import Grade, Network
from decoder.painting.step import Start, Step
from hvf_core.problem import Problem
from hvf_core.torchvision_ops import declare_missing_ops

declare_missing_ops()

from diffusers.models.embeddings import ImageProjection  # noqa: E402 - the line above: importable
from diffusers.utils.torch_utils import randn_tensor  # noqa: E402

N_TOKENS = 4
"""Image tokens of an embedding: those of a plain IP-Adapter, which stock loaders expect."""


@dataclass(frozen=True)
class SamplerSettings:
    """How to paint; None stands for what the base's spec says."""

    steps: int | None = None
    guidance: float | None = None
    size_px: int | None = None
    ip_scale: float = 1.0
    """Weight of the image tokens; 0: the embedding has no influence at all."""
    preview: Grade | None = None
    """None: the tiny decoder where the base has one, else the VAE."""
    channels_last: bool = False
    """Of the UNet: a VAE, most of whose time its norms take, is slower so."""
    captured: bool = False
    """On a card: as CUDA graphs (`decoder.capture`), which take their time and memory once."""


class Sampler:
    """Paints image embeddings with a diffusion model and an IP-Adapter.

    All that does not depend on the embedding is decided and computed here; the base's UNet has the
    adapter's processors from now on.

    Args:
        base: the diffusion model.
        adapter: `image_proj` and `ip_adapter`, each a map of tensors, as stock diffusers names
            them in a plain IP-Adapter checkpoint.
        settings: how to paint.

    Raises:
        Problem: the adapter is of another base model, or the base cannot do what is asked for.
    """

    def __init__(
        self,
        base: DiffusionBase,
        adapter: Mapping[str, Mapping[str, Tensor]],
        settings: SamplerSettings = SamplerSettings(),
    ) -> None:
        spec = base.spec
        self._base = base
        self.steps = settings.steps or spec.steps
        self.size_px = settings.size_px or spec.size_px
        self._guidance = spec.guidance if settings.guidance is None else settings.guidance
        self._guided = self._guidance > 1
        # A checkpoint that prescribes its noise levels can only do without if steps are asked for.
        self._timesteps = spec.timesteps if settings.steps is None else None
        grade = settings.preview or ("tiny" if base.tiny_vae is not None else "full")
        run = _as_graphs(base.device) if settings.captured else previews.as_it_is
        self._preview = previews.previewer(base, grade, run)
        self._decode = previews.decoder(base, run)
        projection = _image_projection(adapter["image_proj"], base)
        self.embedding_dim = projection.image_embeds.in_features
        layers = attention.install(
            base.unet, base.prompt_embeds, adapter["ip_adapter"], settings.ip_scale
        )
        self._tell = run(_teller(projection, layers))
        self._predict = run(_predictor(base, self.size_px))
        if settings.channels_last:
            # diffusers' types leave it out.
            base.unet.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        self._step_takes = inspect.signature(base.scheduler.step).parameters
        self._signal_shares = base.scheduler.alphas_cumprod
        self._check()

    def warm_up(self) -> None:
        """Paints once, so that what is compiled, tuned or loaded at first use is so by now.

        Raises:
            Problem: what is painted is not finite.
        """

        def one_step(step: Step) -> bool:
            previews.finite(step.estimate)
            step.preview()
            return False

        self.paint(torch.zeros(1, self.embedding_dim), [0], one_step)
        with torch.inference_mode():
            self._decode(self._noise([torch.Generator().manual_seed(0)]))
        if self._base.device.type == "cuda":
            torch.cuda.empty_cache()  # of what was tried before it was captured

    @torch.inference_mode()
    def paint(
        self,
        z_c: Tensor,
        seeds: Sequence[int],
        on_step: Callable[[Step], bool] | None = None,
        start: Start | None = None,
    ) -> np.ndarray | None:
        """Paints embeddings.

        Args:
            z_c: (n, dim), the projector's output.
            seeds: one of each; the same seed and embedding paint the same picture.
            on_step: called when a step is done; False gives the picture up, without a VAE decode.
            start: what to begin from; None begins from noise.

        Returns:
            uint8 (n, size, size, 3), or None where it was given up.

        Raises:
            Problem: an embedding of another width, or values that are not finite, in an embedding
                or in what is painted of it.
        """
        latents = self.denoise(z_c, seeds, on_step, start)
        return None if latents is None else self._decode(latents)

    @torch.inference_mode()
    def denoise(
        self,
        z_c: Tensor,
        seeds: Sequence[int],
        on_step: Callable[[Step], bool] | None = None,
        start: Start | None = None,
    ) -> Tensor | None:
        """`paint` up to the latents (n, 4, h, w), as the UNet sees them."""
        if len(seeds) != len(z_c):
            raise ValueError(f"{len(seeds)} seeds for {len(z_c)} embeddings")
        self._bind(z_c)
        scheduler = self._base.scheduler
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        times = self._set_times(start)
        times_seen = times.to(self._base.device)  # at once: a transfer waits for the device
        latents = self._begin(self._noise(generators), times, start)
        offered = {"generator": generators, "eta": self._base.spec.eta}
        extra = {name: offered[name] for name in offered if name in self._step_takes}
        for i, (time, time_seen) in enumerate(zip(times, times_seen, strict=True)):
            seen = torch.cat([latents] * 2) if self._guided else latents
            noise = self._predict(scheduler.scale_model_input(seen, time), time_seen)
            if self._guided:
                without, with_ = noise.chunk(2)
                noise = without + self._guidance * (with_ - without)
            stepped = scheduler.step(noise, time, latents, **extra)
            before, latents = latents, stepped.prev_sample.to(latents.dtype)
            if on_step is None:
                continue
            estimate = self._estimate(stepped, noise, before, time)
            if latents.is_cuda:  # what a GPU was told to do cannot be called back: so not too early
                torch.cuda.current_stream(latents.device).synchronize()
            if not on_step(Step(i, len(times), estimate, self._preview)):
                return None
        return latents

    def _check(self) -> None:
        """Refuses what the first job would fail of."""
        name = self._base.spec.name
        if self.size_px % 8:
            raise Problem(
                f"'{name}' cannot paint {self.size_px} px, as a latent is 8 px wide: give a "
                "multiple of 8"
            )
        try:
            self._set_times(None)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Problem(
                f"the scheduler of '{name}' cannot take these {self.steps} steps ({reason}): give "
                "another number of steps, or mend base.json"
            ) from None

    def _bind(self, z_c: Tensor) -> None:
        if z_c.ndim != 2 or z_c.shape[1] != self.embedding_dim:
            raise Problem(
                f"an embedding of the shape {tuple(z_c.shape)} cannot be painted, the adapter "
                f"takes (n, {self.embedding_dim}): use the bundle that was trained for this prior"
            )
        if not z_c.isfinite().all():
            raise Problem(
                "an embedding with values that are not finite cannot be painted: look at the "
                "amplifier's channels"
            )
        z_c = z_c.to(self._base.device, self._base.dtype)
        if self._guided:  # without the embedding means with an embedding of zeros, as in training
            z_c = torch.cat([torch.zeros_like(z_c), z_c])
        self._tell(z_c)

    def _set_times(self, start: Start | None) -> Tensor:
        scheduler = self._base.scheduler
        if self._timesteps is not None:
            scheduler.set_timesteps(timesteps=list(self._timesteps))
        else:
            scheduler.set_timesteps(self.steps)
        times = scheduler.timesteps
        first = 0
        if start is not None:
            first = len(times) - max(1, int(len(times) * start.strength))
        scheduler.set_begin_index(first)
        return times[first:]

    def _begin(self, noise: Tensor, times: Tensor, start: Start | None) -> Tensor:
        """The latents (n, 4, h, w) before the first step."""
        scheduler = self._base.scheduler
        if start is None:
            return noise * scheduler.init_noise_sigma
        given = start.latents
        if given.shape[1:] != noise.shape[1:] or len(given) not in (1, len(noise)):
            raise Problem(
                f"latents of the shape {tuple(given.shape)} cannot be started from, "
                f"{tuple(noise.shape)} are painted: encode a picture with this sampler"
            )
        return scheduler.add_noise(given.to(noise), noise, times[:1].repeat(len(noise)))

    def _noise(self, generators: list[torch.Generator]) -> Tensor:
        base = self._base
        side = self.size_px // 8
        shape = (len(generators), base.unet.config["in_channels"], side, side)
        return randn_tensor(shape, generators, base.device, base.dtype)

    def _estimate(self, stepped: object, noise: Tensor, latents: Tensor, time: Tensor) -> Tensor:
        """The clean latents; where the scheduler does not say them, from the predicted noise.

        Ho et al., NeurIPS 2020, equation 15.
        """
        for name in ("pred_original_sample", "denoised"):
            found = getattr(stepped, name, None)
            if found is not None:
                return found
        kept = self._signal_shares[int(time)]
        return (latents - (1 - kept).sqrt() * noise) / kept.sqrt()


def _as_graphs(device: torch.device) -> Callable[[Network], Network]:
    """Runs networks as graphs, which use one memory, as they run one after the other."""
    if device.type != "cuda":
        return previews.as_it_is
    return partial(Captured, device=device, pool=torch.cuda.graph_pool_handle())


# What is captured does not know the sampler: it would be kept, with its graphs, until Python looks
# for circles, after a setting has made another one.


def _teller(projection: ImageProjection, layers: Sequence[CachedCrossAttention]) -> Network:
    """Gives embeddings (rows, dim) to the layers, as the tokens (rows, 4, width) returned."""

    def tell(z_c: Tensor) -> Tensor:
        tokens: Tensor = projection(z_c)
        for layer in layers:
            layer.bind(tokens)
        return tokens

    return tell


def _predictor(base: DiffusionBase, size_px: int) -> Network:
    """What the UNet takes for the noise in latents (rows, 4, h, w), at a time."""
    sizes = [[size_px, size_px, 0, 0, size_px, size_px]]
    time_ids = torch.tensor(sizes, dtype=base.dtype, device=base.device)
    conditions: dict[int, dict[str, Tensor]] = {}

    def predict(latents: Tensor, time: Tensor) -> Tensor:
        rows = len(latents)
        if rows not in conditions:
            conditions[rows] = {
                "text_embeds": base.pooled_prompt_embeds.expand(rows, -1).contiguous(),
                "time_ids": time_ids.expand(rows, -1).contiguous(),
            }
        told = {"added_cond_kwargs": conditions[rows], "return_dict": False}
        noise: Tensor = base.unet(latents, time, base.prompt_embeds, **told)[0]
        return noise

    return predict


def _image_projection(weights: Mapping[str, Tensor], base: DiffusionBase) -> ImageProjection:
    """From an embedding to its image tokens."""
    width = base.cross_attention_dim
    names = {"proj.weight", "proj.bias", "norm.weight", "norm.bias"}
    if weights.keys() != names or len(weights["proj.weight"]) != N_TOKENS * width:
        found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        raise Problem(
            f"the adapter's image projection {found} is not one to {N_TOKENS} tokens of the width "
            f"{width}, which the base '{base.spec.name}' attends to: it is of another base model, "
            "give that one with --base"
        )
    with torch.device("meta"):
        projection = ImageProjection(weights["proj.weight"].shape[1], width, N_TOKENS)
    renamed = {name.replace("proj.", "image_embeds."): tensor for name, tensor in weights.items()}
    projection.load_state_dict(renamed, assign=True)
    return projection.to(base.device, base.dtype).eval().requires_grad_(False)
