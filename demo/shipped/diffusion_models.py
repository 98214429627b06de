"""Trains what the demo paints with: a UNet of SDXL's shape, and a tiny decoder for previews.

The UNet learns to paint training concepts from captions (noise prediction on latents of the demo's
VAE); a Fusion Prior is then trained on it with the empty caption, as on SDXL. Fixed numbers of
steps, one seed, no choice by test data.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from decoder.painting.base import EMPTY_PROMPT
from decoder.painting.spec import BASE, BaseSpec
from demo.shipped.captions import UNSAID, CaptionEncoder, captions_of
from demo.shipped.image_models import SIZE_PX, drawn, optimiser_of, recipe_of, step_of, write_json
from demo.stimuli import stimuli, training_concepts
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs

declare_missing_ops()

from diffusers.models import (  # noqa: E402 - the line above makes it importable
    AutoencoderTiny,
    UNet2DConditionModel,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler  # noqa: E402

PARTS = ("unet", "tiny_vae")
LATENT_PX = SIZE_PX // 8
TOKEN_WIDTH = 128
_TIME_WIDTH = 16
TIME_IDS = (SIZE_PX, SIZE_PX, 0, 0, SIZE_PX, SIZE_PX)
"""Height, width and crop, which SDXL is told of every picture."""


@dataclass(frozen=True)
class PaintRecipe:
    """How the UNet and the tiny decoder are trained."""

    seed: int = 2026
    concepts: int = 1800
    exemplars: int = 8
    unet_steps: int = 1666
    unet_schedule_steps: int = 4000
    """Over which the rate would fall to 0; the averaged weights make up for those not taken."""
    unet_batch: int = 64
    unet_rate: float = 1e-3
    caption_dropped: float = 0.15
    """Share of the pictures with the empty caption."""
    word_dropped: float = 0.1
    """Share of the words that are left out of the other captions."""
    snr_limit: float = 5.0
    """Min-SNR weighting (Hang et al., ICCV 2023, equation 5 for noise prediction)."""
    ema_decay: float = 0.998
    tiny_steps: int = 1200
    tiny_batch: int = 8
    tiny_rate: float = 2e-3


def make_diffusion_models(out_dir: Path, recipe: PaintRecipe = PaintRecipe()) -> None:
    """Trains and writes `unet/`, `scheduler/`, `tiny_vae/`, the empty caption and `base.json`;
    and `recipe-diffusion.json`, how it all was made.

    Takes about an hour on two cores. The VAE is that of `out_dir/encoders.json`.
    """
    _, vae = (load_encoder(spec) for spec in read_specs(out_dir / "encoders.json"))
    with Progress() as progress:
        seen = stimuli(training_concepts()[: recipe.concepts], recipe.exemplars)
        pictures = drawn(seen, progress)
        latents = torch.from_numpy(vae.encode(pictures)).unflatten(1, (4, LATENT_PX, LATENT_PX))
        captions = torch.from_numpy(captions_of(seen))
        train_unet(latents, captions, recipe, out_dir, progress)
        train_tiny_decoder(latents, pictures, recipe, out_dir, progress)
    spec = BaseSpec(
        name="demo",
        family="demo",
        source="./",
        tiny_vae="./tiny_vae",
        scheduler="EulerDiscreteScheduler",
        steps=12,
        guidance=2.0,
        size_px=SIZE_PX,
        latent_rgb=fit_latent_rgb(latents[:500], pictures[:500]),
    )
    (out_dir / BASE).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    files = [out_dir / EMPTY_PROMPT]
    files += [file for part in PARTS for file in sorted((out_dir / part).glob("*.safetensors"))]
    report = recipe_of("python -m demo assets --part diffusion", recipe, out_dir, files)
    write_json(out_dir / "recipe-diffusion.json", report)


def make_unet() -> UNet2DConditionModel:
    """SDXL's blocks at a fiftieth of its width; random weights."""
    return UNet2DConditionModel(
        sample_size=LATENT_PX,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 96, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 3, 3),
        transformer_layers_per_block=(1, 1, 1),
        use_linear_projection=True,
        cross_attention_dim=TOKEN_WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=len(TIME_IDS) * _TIME_WIDTH + TOKEN_WIDTH,
        norm_num_groups=16,
    )


def make_scheduler() -> EulerDiscreteScheduler:
    """SDXL's noise schedule; its steps end at the noisiest time, as few steps need it."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        timestep_spacing="trailing",
        interpolation_type="linear",
        use_karras_sigmas=False,
    )


def train_unet(
    latents: Tensor, captions: Tensor, recipe: PaintRecipe, folder: Path, progress: Progress
) -> None:
    """Trains on captioned latents and writes `unet/`, `scheduler/` and the empty caption."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    # diffusers' types leave memory formats out.
    unet = make_unet().train().to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    model = torch.nn.ModuleDict({"unet": unet, "words": CaptionEncoder(TOKEN_WIDTH)})
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    optimiser, schedule = optimiser_of(model, recipe.unet_rate, recipe.unet_schedule_steps)
    alphas = make_scheduler().alphas_cumprod.float()
    time_ids = torch.tensor([TIME_IDS] * recipe.unet_batch, dtype=torch.float32)
    for _ in progress.track(range(recipe.unet_steps), description="training the UNet"):
        index = torch.from_numpy(rng.integers(len(latents), size=recipe.unet_batch))
        said = _dropped(captions[index], recipe, rng)
        clean, noise = latents[index], torch.randn(recipe.unet_batch, *latents.shape[1:])
        times = torch.randint(len(alphas), (recipe.unet_batch,))
        kept = alphas[times].view(-1, 1, 1, 1)
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            tokens, pooled = model["words"](said)
            extra = {"text_embeds": pooled, "time_ids": time_ids}
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            guess = unet(noisy, times, tokens, added_cond_kwargs=extra).sample
        error = functional.mse_loss(guess.float(), noise, reduction="none").mean(dim=(1, 2, 3))
        snr = alphas[times] / (1 - alphas[times])
        step_of(model, (error * snr.clamp(max=recipe.snr_limit) / snr).mean(), optimiser, schedule)
        average.update_parameters(model)
    learnt: Any = copy.deepcopy(average.module).eval()
    tokens, pooled = learnt["words"].empty()
    empty = {"prompt_embeds": tokens.detach(), "pooled_prompt_embeds": pooled.detach()}
    save_file({name: t.half().contiguous() for name, t in empty.items()}, folder / EMPTY_PROMPT)
    learnt["unet"].half().save_pretrained(folder / "unet")
    make_scheduler().save_pretrained(folder / "scheduler")


def train_tiny_decoder(
    latents: Tensor,
    pictures: NDArray[np.uint8],
    recipe: PaintRecipe,
    folder: Path,
    progress: Progress,
) -> None:
    """Trains a decoder for previews and writes `tiny_vae/`, of the same class as TAESDXL.

    Its encoder is of no use here and stays as it was made.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(24, 24, 24, 24),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
        # Takes and gives latents as the UNet sees them, already scaled.
        scaling_factor=1.0,
    ).train()
    optimiser, schedule = optimiser_of(tiny, recipe.tiny_rate, recipe.tiny_steps)
    for _ in progress.track(range(recipe.tiny_steps), description="training the tiny decoder"):
        index = rng.integers(len(latents), size=recipe.tiny_batch)
        shown = torch.from_numpy(pictures[index]).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16):
            decoded = tiny.decode(latents[torch.from_numpy(index)]).sample
        step_of(tiny, functional.l1_loss(decoded.float(), shown), optimiser, schedule)
    tiny.eval().half().save_pretrained(folder / "tiny_vae")


def fit_latent_rgb(latents: Tensor, pictures: NDArray[np.uint8]) -> tuple[tuple[float, ...], ...]:
    """The linear map from a latent and 1 to the mean colour of its 8 x 8 pixels, by least squares.

    Returns:
        Three rows, of red, green and blue, of five numbers.
    """
    n, channels, side, _ = latents.shape
    seen = latents.permute(0, 2, 3, 1).reshape(-1, channels).numpy()
    seen = np.column_stack([seen, np.ones(len(seen))])
    colours = pictures.reshape(n, side, 8, side, 8, 3).mean(axis=(2, 4)).reshape(-1, 3)
    found = np.linalg.lstsq(seen, colours, rcond=None)[0].T
    return tuple(tuple(round(float(x), 3) for x in row) for row in found)


def _dropped(captions: Tensor, recipe: PaintRecipe, rng: np.random.Generator) -> Tensor:
    words = torch.from_numpy(rng.random(captions.shape) < recipe.word_dropped)
    whole = torch.from_numpy(rng.random(len(captions)) < recipe.caption_dropped)
    return captions.masked_fill(words | whole[:, None], UNSAID)
