"""From latents to pictures, in three grades: a linear map, a tiny decoder, and the VAE."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from decoder.painting.base import DiffusionBase
from hvf_core.problem import Problem

Grade = Literal["none", "linear", "tiny", "full"]
Network = Callable[..., Tensor]


def as_it_is(network: Network) -> Network:
    """Runs a network call by call."""
    return network


def previewer(
    base: DiffusionBase, grade: Grade, run: Callable[[Network], Network] = as_it_is
) -> Callable[[Tensor], np.ndarray | None]:
    """What turns a clean estimate, latents (n, 4, h, w) as the UNet sees them, into pictures.

    A preview is uint8 (n, height, width, 3): of the latents' size if `linear`, and of eight times
    that if `tiny` or `full`.

    Args:
        base: the diffusion model.
        grade: how good they are.
        run: how a network is run.

    Raises:
        Problem: the base lacks what the grade needs.
    """
    if grade == "none":
        return lambda latents: None
    if grade == "full":
        return decoder(base, run)
    if grade == "tiny":
        if base.tiny_vae is None:
            raise Problem(
                f"the base '{base.spec.name}' has no tiny decoder for previews: name one as "
                "tiny_vae in its base.json, or take --preview linear"
            )
        tiny = base.tiny_vae
        # Some schedulers give their estimates in float32 whatever the UNet computes in.
        network = run(lambda latents: tiny.decode(latents.to(tiny.dtype)).sample)
        return lambda latents: _to_pixels(network(latents))
    if base.spec.latent_rgb is None:
        raise Problem(
            f"the base '{base.spec.name}' has no linear map from latents to colours: give "
            "latent_rgb in its base.json, or take --preview full"
        )
    rows = torch.tensor(base.spec.latent_rgb, device=base.device)
    weights, offsets = rows[:, :4], rows[:, 4]

    def linear(latents: Tensor) -> np.ndarray:
        colours = torch.einsum("rc,nchw->nhwr", weights, latents.float()) + offsets
        return finite(colours).clamp(0, 255).round().byte().cpu().numpy()

    return linear


def decoder(
    base: DiffusionBase, run: Callable[[Network], Network] = as_it_is
) -> Callable[[Tensor], np.ndarray]:
    """From latents (n, 4, h, w) as the UNet sees them to pictures: uint8 (n, 8h, 8w, 3)."""
    vae, factor = base.vae, base.vae.config["scaling_factor"]
    network = run(lambda latents: vae.decode(latents.to(vae.dtype) / factor).sample)
    return lambda latents: _to_pixels(network(latents))


@torch.inference_mode()
def encode(base: DiffusionBase, picture: Tensor) -> Tensor:
    """The mean latents (1, 4, side / 8, side / 8) of a square picture, (3, side, side) in 0..1."""
    vae = base.vae
    pixels = (picture[None] * 2 - 1).to(base.device, vae.dtype)
    latents = vae.encode(pixels).latent_dist.mode() * vae.config["scaling_factor"]
    return latents.to(base.dtype)


def _to_pixels(painted: Tensor) -> np.ndarray:
    """From (n, 3, h, w) in -1..1, as stock pipelines round it."""
    unit = (finite(painted) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).float()
    return (unit * 255).round().byte().cpu().numpy()  # a quarter of the bytes to fetch


def finite(values: Tensor) -> Tensor:
    """The same; what is not finite would be painted black.

    Raises:
        Problem: a value is not finite.
    """
    if not values.isfinite().all():
        raise Problem(
            "what is painted has values that are not finite: the weights of the diffusion model, "
            "its VAE or the prior are damaged, or too large for this precision; fetch or make them "
            "again"
        )
    return values
