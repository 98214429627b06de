"""How long SDXL needs to a first preview, to a picture and to give one up, beside stock diffusers.

`python -m stream.bench.painting`: on a GPU, models of SDXL's full size with random weights, which
take as long as trained ones and need no download; `--tiny` runs models of a thousandth of its size
on any machine, to try the program, not to quote. The stock pipeline has the same weights, adapter,
scheduler, steps and noise; runs of both alternate, in an order drawn anew for each round.

- first preview: from the embedding to an array to look at, after the first step. Stock has none,
  its callback sees noisy latents only; the time given is that of the picture, which comes first.
- steps: all of them, without the VAE, divided by their number.
- given up: from just after a step was let pass, the worst moment, until the painter is free again.
  For stock, its documented `_interrupt`, which still decodes.
"""

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from decoder.painting import previews
from decoder.painting.attention import CROSS
from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import N_TOKENS, Sampler, SamplerSettings
from decoder.painting.spec import PRESETS, BaseSpec
from stream.bench.turns import in_turn

# Once decoder.painting.base has made it importable.
import diffusers  # isort: skip
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel  # isort: skip

DIM = 1024
POOLED = 1280
N_PROMPT_TOKENS = 77
# The configurations of stabilityai/stable-diffusion-xl-base-1.0 and, at the end, madebyollin's
# taesdxl, which has the defaults of its class.
UNET = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + POOLED,
}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": False,  # as in sdxl-vae-fp16-fix, which the presets take
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
TINY_VAE: dict[str, Any] = {}
SDXL = (UNET, VAE, TINY_VAE)
TOY = (
    UNET
    | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "transformer_layers_per_block": (1, 2),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": 64,
        "norm_num_groups": 8,
    },
    VAE | {"block_out_channels": (16,) * 4, "layers_per_block": 1, "norm_num_groups": 8},
    {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4},
)

console = Console(width=100)
Way = Callable[[], float]
"""Does something once; tells how many seconds it took."""


def main(
    base: Annotated[str, typer.Option(help=f"one of {', '.join(PRESETS)}")] = "sdxl-turbo",
    steps: int | None = None,
    runs: int = 20,
    tiny: Annotated[bool, typer.Option("--tiny", help="toy models, also on a CPU")] = False,
) -> None:
    """Times ours and the stock pipeline, in turn, and prints one table."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not tiny:
        raise SystemExit(
            "this machine has no GPU, on which SDXL needs 10 GB; a CPU would need minutes for a "
            "picture: run it where there is one, or try the program with --tiny"
        )
    if tiny:
        torch.set_num_threads(1)  # more have nothing to share out in toy models
    spec = PRESETS[base]
    diffusers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        dtype = torch.float16 if on_gpu else torch.float32
        model = random_base(spec, TOY if tiny else SDXL, dtype)
        adapter = random_adapter(model.unet)
    stock = stock_pipeline(model, adapter)
    settings = SamplerSettings(
        steps=steps, size_px=64 if tiny else None, preview="none", channels_last=True
    )
    ours = Sampler(model, adapter, settings)
    with np.errstate(invalid="ignore"):  # what random weights paint may overflow
        taken_ms = in_turn(_ways(model, stock, ours), runs)
        difference = _difference(model, stock, ours)
    machine = torch.cuda.get_device_name() if on_gpu else "one thread of a CPU"
    console.print(
        _table(taken_ms, f"{'toy models' if tiny else base} on {machine}, {dtype}"),
        f"{ours.size_px} px, {ours.steps} steps, {spec.scheduler}, guidance {spec.guidance:g}; "
        f"random weights, one picture at a time, medians of {runs} runs",
        f"pictures of both differ by at most {difference} of 255",
        sep="\n",
    )


def random_base(
    spec: BaseSpec, configs: tuple[dict[str, Any], ...], dtype: torch.dtype
) -> DiffusionBase:
    """A model with random weights, on the device that is the default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        kinds = (UNet2DConditionModel, AutoencoderKL, AutoencoderTiny)
        networks = [kind(**config) for kind, config in zip(kinds, configs, strict=True)]
        width = networks[0].config.cross_attention_dim
        prompt, pooled = torch.randn(1, N_PROMPT_TOKENS, width), torch.randn(1, POOLED)
    finally:
        torch.set_default_dtype(before)
    for network in networks:
        network.eval().requires_grad_(False)
    with torch.device("cpu"):  # where the sampler wants its numbers
        kind = getattr(diffusers, spec.scheduler)
        scheduler = kind.from_config(SCHEDULER | spec.scheduler_options)
    return DiffusionBase(spec, *networks[:2], scheduler, prompt, pooled, networks[2])


def random_adapter(unet: UNet2DConditionModel) -> dict[str, dict[str, Tensor]]:
    """A plain IP-Adapter for a UNet, in its precision, on the device that is the default."""
    width = unet.config.cross_attention_dim

    def random(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, dtype=unet.dtype) / columns**0.5

    maps = {}
    for i, name in enumerate(unet.attn_processors):
        if name.endswith(CROSS):
            inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            maps |= {f"{i}.to_{kind}_ip.weight": random(inner, width) for kind in "kv"}
    projection = {
        "proj.weight": random(N_TOKENS * width, DIM),
        "proj.bias": torch.zeros(N_TOKENS * width, dtype=unet.dtype),
        "norm.weight": torch.ones(width, dtype=unet.dtype),
        "norm.bias": torch.zeros(width, dtype=unet.dtype),
    }
    return {"image_proj": projection, "ip_adapter": maps}


def stock_pipeline(
    base: DiffusionBase, adapter: dict[str, dict[str, Tensor]]
) -> diffusers.StableDiffusionXLPipeline:
    """Stock diffusers with networks of its own that share the weights of the base's."""
    unet, vae = _twin(base.unet), _twin(base.vae)
    scheduler = type(base.scheduler).from_config(base.scheduler.config)
    parts = (vae, None, None, None, None, unet, scheduler)
    pipe = diffusers.StableDiffusionXLPipeline(*parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_ip_adapter(
        adapter, subfolder="", weight_name="x.safetensors", image_encoder_folder=None
    )
    return pipe


def _twin(network: Any) -> Any:
    with torch.device("meta"):
        twin = type(network).from_config(network.config)
    twin.load_state_dict(network.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)


def _paint_stock(
    base: DiffusionBase, pipe: diffusers.StableDiffusionXLPipeline, ours: Sampler, **more: Any
) -> Any:
    z = _embedding().to(base.device, base.dtype)[:, None]
    prompt = {
        "prompt_embeds": base.prompt_embeds,
        "pooled_prompt_embeds": base.pooled_prompt_embeds,
    }
    if base.spec.guidance > 1:
        z = torch.cat([torch.zeros_like(z), z])
        prompt |= {f"negative_{name}": tensor for name, tensor in prompt.items()}
    prescribed = ours.steps == base.spec.steps and base.spec.timesteps
    return pipe(
        **prompt,
        ip_adapter_image_embeds=[z],
        num_inference_steps=ours.steps,
        timesteps=list(prescribed) if prescribed else None,
        guidance_scale=base.spec.guidance,
        height=ours.size_px,
        width=ours.size_px,
        generator=torch.Generator().manual_seed(0),
        **more,
    ).images


def _embedding() -> Tensor:
    return torch.randn(1, DIM, generator=torch.Generator().manual_seed(1))


def _ways(
    base: DiffusionBase, pipe: diffusers.StableDiffusionXLPipeline, ours: Sampler
) -> dict[tuple[str, str], Way]:
    """What is timed, by its name and by who does it."""
    z = _embedding()
    side = ours.size_px // 8
    latents = torch.randn(1, 4, side, side, device=base.device, dtype=base.dtype)

    def stock(**more: Any) -> Any:
        return _paint_stock(base, pipe, ours, **more)

    @torch.inference_mode()
    def stock_decode() -> None:
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        pipe.image_processor.postprocess(decoded, "pil")

    def first(grade: previews.Grade) -> Way:
        show = previews.previewer(base, grade)
        return _timed(lambda: ours.paint(z, [0], lambda step: show(step.estimate) is None))

    ways = {
        ("steps, each", "stock"): _timed(lambda: stock(output_type="latent"), ours.steps),
        ("steps, each", "ours"): _timed(lambda: ours.denoise(z, [0]), ours.steps),
        ("decode", "stock"): _timed(stock_decode),
        ("decode", "ours"): _timed(torch.inference_mode()(lambda: previews.decode(base, latents))),
        ("picture", "stock"): _timed(stock),
        ("picture", "ours"): _timed(lambda: ours.paint(z, [0])),
    }
    ways |= {(f"first preview, {g}", "ours"): first(g) for g in ("linear", "tiny", "full")}
    if ours.steps > 1:
        ways["given up", "stock"] = lambda: _given_up_by_stock(pipe, stock)
        ways["given up", "ours"] = lambda: _given_up(ours, z)
    return ways


def _given_up(ours: Sampler, z: Tensor) -> float:
    asked_s = 0.0

    def first_passes(step: Any) -> bool:
        nonlocal asked_s
        if step.index == 0:
            asked_s = time.perf_counter()
        return step.index == 0

    painted = ours.paint(z, [0], first_passes)
    assert painted is None
    return time.perf_counter() - asked_s


def _given_up_by_stock(
    pipe: diffusers.StableDiffusionXLPipeline, stock: Callable[..., Any]
) -> float:
    asked_s = 0.0

    def after_step(pipe: Any, index: int, time_: Any, kept: dict[str, Any]) -> dict[str, Any]:
        nonlocal asked_s
        _finish()
        if index == 0:
            asked_s = time.perf_counter()
        elif index == 1:  # as ours: the step that had been let pass is done before anyone is asked
            pipe._interrupt = True
        return kept

    stock(callback_on_step_end=after_step)
    return time.perf_counter() - asked_s


def _timed(work: Callable[[], object], share: int = 1) -> Way:
    def once() -> float:
        _finish()
        began_s = time.perf_counter()
        work()
        _finish()
        return (time.perf_counter() - began_s) / share

    return once


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _table(taken_ms: Mapping[tuple[str, str], np.ndarray], title: str) -> Table:
    table = Table(title=title)
    for column in ("what", "stock ms", "ours ms", "ours of stock"):
        table.add_column(column, justify="left" if column == "what" else "right")
    ms = {job: float(np.median(each)) for job, each in taken_ms.items()}
    for what in dict.fromkeys(what for what, _ in ms):
        stock = ms.get((what, "stock"), ms["picture", "stock"])  # which has no previews
        ours = ms[what, "ours"]
        table.add_row(what, f"{stock:.2f}", f"{ours:.2f}", f"{ours / stock:.2f}")
    return table


def _difference(
    base: DiffusionBase, pipe: diffusers.StableDiffusionXLPipeline, ours: Sampler
) -> int:
    theirs = np.asarray(_paint_stock(base, pipe, ours)[0])
    return int(np.abs(ours.paint(_embedding(), [0])[0].astype(int) - theirs).max())


if __name__ == "__main__":
    typer.run(main)
