"""Trains a Fusion Prior on a frozen diffusion model: the noise-prediction loss, fixed steps.

What a step draws follows from the seed and the step's number alone, so that a training that was
interrupted goes on as if it had not been, and that it does not matter how many GPUs share it.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import JsonValue
from pydantic_core import to_jsonable_python
from torch import Tensor, nn

from decoder.bundle import HVFRecord
from decoder.painting.base import DiffusionBase
from decoder.painting.prior import Prior, PriorManifest, save_prior
from hvf_core.problem import Problem
from hvf_core.provenance import provenance
from offline_train.checkpoint import identify
from offline_train.prior.batches import Draws, Latents, Seen, n_learnt
from offline_train.prior.networks import PriorNetworks
from offline_train.prior.run import Run
from offline_train.prior.settings import PriorSettings
from offline_train.together import told_of_others


@dataclass(frozen=True)
class PriorProgress:
    """Where a training is, after a step; now and then with means since they were last told."""

    step: int
    n_steps: int
    loss: float | None
    gradient_norm: float | None = None
    """Before it is clipped."""


@dataclass(frozen=True)
class TrainedPrior:
    """What a training leaves: networks on the CPU, in evaluation mode."""

    networks: PriorNetworks
    z_norm: float
    """Mean length of z_f over the training images."""
    history: list[dict[str, float]]
    """Step, and means since the entry before: of the loss, and of the gradients' norm."""
    facts: dict[str, JsonValue]
    """Everything that decided the result."""


_INDIFFERENT = (
    *("steps", "sample_every", "checkpoint_every", "log_every", "device", "latents"),
    *("parts", "recompute"),  # as they are others on another number of GPUs
)
Adapter = dict[str, dict[str, Tensor]]
"""Tensors of an IP-Adapter, by part and name."""
Look = Callable[[int, PriorNetworks], None]
"""Takes a step's number and the averaged networks, to paint something with them."""


def train_prior(
    latents: Latents,
    features: Seen,
    base: DiffusionBase,
    settings: PriorSettings,
    on_progress: Callable[[PriorProgress], None] = lambda progress: None,
    checkpoint_dir: Path | None = None,
    look: Look | None = None,
    start_from: Adapter | None = None,
) -> TrainedPrior:
    """Trains HVF, projector and adapter; the base stays as it is.

    Run under `accelerate launch` it uses all GPUs that it is given. The last `n_samples` images
    are not learnt from.

    Args:
        latents: (images, 4, side, side), mean latents times the VAE's scaling factor, in the order
            of `features.items`.
        features: what the image encoders see in the images.
        base: the diffusion model; it is moved to the GPU. Afterwards its UNet has the trained
            adapter's processors.
        settings: how.
        on_progress: called after every step, on the first process.
        checkpoint_dir: where states of trainings are kept; one of the same data and settings that
            was interrupted goes on from there.
        look: called every `sample_every` steps and at the end, on the first process.
        start_from: an IP-Adapter to begin with, in place of the UNet's own keys and values.

    Raises:
        Problem: too few images, a loss that is no longer finite, a checkpoint that is damaged or
            further on, an IP-Adapter of another base, or a base that predicts no noise.
    """
    _check_predicts_noise(base)
    n_images = n_learnt(len(features.items), settings)
    # The precision is set below: an Accelerator's holds for all that a program ever trains.
    accelerator = Accelerator(mixed_precision="no", cpu=settings.device == "cpu")
    facts = _decisive(latents, features, base, settings, start_from)
    _move(base, accelerator.device, settings)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        networks = _networks(base, features, settings, start_from).to(accelerator.device)
    run = Run(networks, settings, accelerator, checkpoint_dir, identify(facts))
    draws = Draws(latents, features, base, settings, accelerator)
    ahead = draws.ahead(range(run.n_noted, settings.steps))
    with told_of_others(accelerator.num_processes, checkpoint_dir), contextlib.closing(ahead):
        for done, drawn in enumerate(ahead, run.n_noted + 1):
            run.learn(drawn)
            ends = done == settings.steps
            saves = done % settings.checkpoint_every == 0 or ends
            is_noted = done % settings.log_every == 0 or saves
            means = run.note(done) if is_noted else (None, None)
            if not accelerator.is_main_process:
                continue
            on_progress(PriorProgress(done, settings.steps, *means))
            if saves:
                run.save()
            if look is not None and (done % settings.sample_every == 0 or ends):
                with run.averaged() as averaged:
                    look(done, averaged)
        accelerator.wait_for_everyone()
    networks = run.finish()
    base.unet.disable_gradient_checkpointing()
    return TrainedPrior(networks, _mean_norm(networks, features, n_images), run.history, facts)


def make_prior(
    directory: Path,
    trained: TrainedPrior,
    features: Seen,
    base: DiffusionBase,
    settings: PriorSettings,
    command: str,
    dtype: torch.dtype = torch.float32,
) -> Prior:
    """Writes what was trained, with where it comes from.

    Args:
        directory: where to; a prior that was there is replaced.
        trained: from `train_prior`, called with the next three.
        features: gives the image encoders.
        base: that it was trained on.
        settings: of the training.
        command: that made it.
        dtype: of the tensors on disk.

    Raises:
        Problem: when a weight is not finite, or `directory` holds something else.
    """
    training = trained.facts | {
        "settings": to_jsonable_python(settings),
        "n_images": n_learnt(len(features.items), settings),
        "final_loss": trained.history[-1]["loss"],
        "checkpoint_rule": "last step" + (", averaged weights" if settings.ema_decay else ""),
        **provenance(command, "torch", "numpy", "diffusers"),
    }
    manifest = PriorManifest(
        embedding_dim=settings.dim,
        projector_hidden=settings.projector_hidden,
        hvf=HVFRecord(hidden=settings.hvf_hidden),
        cross_attention_dim=base.cross_attention_dim,
        n_cross_attentions=base.n_cross_attentions,
        family=base.spec.family,
        base=base.spec.name,
        image_encoders=features.encoders,
        space="",
        z_norm=trained.z_norm,
        training=training,
    )
    networks = trained.networks
    return save_prior(
        directory, manifest, networks.hvf, networks.projector, networks.adapter(), dtype
    )


def _check_predicts_noise(base: DiffusionBase) -> None:
    kind = base.scheduler.config.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise Problem(
            f"the base '{base.spec.name}' predicts '{kind}', a prior is trained on one that "
            "predicts the noise ('epsilon'): train it on the model that yours was distilled from"
        )


def _networks(
    base: DiffusionBase,
    features: Seen,
    settings: PriorSettings,
    start_from: Adapter | None,
) -> PriorNetworks:
    dims = {encoder.name: encoder.dim for encoder in features.encoders}
    widths = (settings.dim, settings.hvf_hidden, settings.projector_hidden)
    networks = PriorNetworks(base, dims, *widths)
    if start_from is not None:
        try:
            networks.start_from(start_from)
        except (KeyError, RuntimeError) as error:
            raise Problem(
                f"the IP-Adapter to start from does not fit the base '{base.spec.name}' "
                f"({' '.join(str(error).split())[:120]}): give one that was made for it"
            ) from None
    return networks.train()


def _move(base: DiffusionBase, device: torch.device, settings: PriorSettings) -> None:
    """The frozen part goes to the device, on a GPU in the precision that is computed in."""
    halved = device.type != "cpu" and settings.precision == "bf16"
    dtype = torch.bfloat16 if halved else torch.float32
    # Not with diffusers' own `to`, which warns of modules that nobody has marked.
    nn.Module.to(base.unet, device, dtype)
    for tensor in (base.prompt_embeds, base.pooled_prompt_embeds):
        tensor.data = tensor.data.to(device, dtype)
    nn.Module.to(base.vae, device)  # which paints samples
    if base.tiny_vae is not None:
        nn.Module.to(base.tiny_vae, device, dtype)
    if settings.recompute:
        base.unet.enable_gradient_checkpointing()


@torch.inference_mode()
def _mean_norm(networks: PriorNetworks, features: Seen, n_images: int) -> float:
    lengths = []
    for first in range(0, n_images, 4096):
        rows = np.arange(first, min(first + 4096, n_images))
        z_f = networks.hvf({n: torch.from_numpy(x) for n, x in features.at(rows).items()})
        lengths.append(float(torch.linalg.vector_norm(z_f, dim=-1).mean()) * len(z_f))
    return sum(lengths) / n_images


def _decisive(
    latents: Latents,
    features: Seen,
    base: DiffusionBase,
    settings: PriorSettings,
    start_from: Adapter | None,
) -> dict[str, JsonValue]:
    """Everything that decides the state after a step; more steps go on from fewer."""
    decisive = {n: x for n, x in to_jsonable_python(settings).items() if n not in _INDIFFERENT}
    return {
        "settings": decisive,
        "latents": list(latents.shape[1:]),
        "items_sha256": identify(list(features.items)),
        "image_encoders": [encoder.model_dump() for encoder in features.encoders],
        "base": base.spec.model_dump(mode="json", include={"name", "family", "unet", "lora"}),
        "unet": _digest(base.unet.conv_in.state_dict() | base.unet.conv_out.state_dict()),
        "starts_from": None if start_from is None else _digest(start_from["image_proj"]),
    }


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Tells models apart by some of their tensors."""
    digest = hashlib.sha256()
    for tensor in tensors.values():
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
