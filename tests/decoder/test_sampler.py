"""The sampler against diffusers' own pipelines, and what those cannot do."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from decoder.painting import previews
from decoder.painting.base import DiffusionBase, load_base
from decoder.painting.sampler import Sampler, SamplerSettings, Start, Step
from decoder.painting.spec import PRESETS
from hvf_core.problem import Problem
from index.encoders.parts import squared
from tests.tiny_sdxl import DIM, SIZE_PX, tiny_adapter, tiny_base

pytestmark = pytest.mark.slow

EULER, ANCESTRAL = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"
SCHEDULERS = (EULER, ANCESTRAL, "LCMScheduler", "TCDScheduler")
LATENT = SIZE_PX // 8


def embeddings(n: int, seed: int = 5) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


PLAIN = SamplerSettings()


def sampler(folder: Path, settings: SamplerSettings = PLAIN, **spec: Any) -> Sampler:
    base = tiny_base(folder, **spec)
    return Sampler(base, tiny_adapter(base.unet), settings)


def stock(
    base: DiffusionBase,
    z: Tensor,
    seed: int,
    *,
    scale: float = 1.0,
    guidance: float = 0.0,
    start: Start | None = None,
) -> np.ndarray:
    """What diffusers' pipeline paints of one embedding, with the base's own settings."""
    kind = "StableDiffusionXLPipeline" if start is None else "StableDiffusionXLImg2ImgPipeline"
    parts = (base.vae, None, None, None, None, base.unet, base.scheduler)
    pipe = getattr(diffusers, kind)(*parts, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_ip_adapter(
        tiny_adapter(base.unet),
        subfolder="",
        weight_name="x.safetensors",
        image_encoder_folder=None,
    )
    pipe.set_ip_adapter_scale(scale)
    images = z[:, None]
    prompt = {
        "prompt_embeds": base.prompt_embeds,
        "pooled_prompt_embeds": base.pooled_prompt_embeds,
    }
    if guidance > 1:
        images = torch.cat([torch.zeros_like(images), images])
        prompt |= {f"negative_{name}": tensor for name, tensor in prompt.items()}
    begun = {"height": SIZE_PX, "width": SIZE_PX}
    if start is not None:
        begun = {"image": start.latents, "strength": start.strength}
        begun |= {"original_size": (SIZE_PX,) * 2, "target_size": (SIZE_PX,) * 2}
    return pipe(
        **prompt,
        **begun,
        ip_adapter_image_embeds=[images],
        num_inference_steps=base.spec.steps,
        timesteps=None if base.spec.timesteps is None else list(base.spec.timesteps),
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images


@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_its_loop_is_that_of_the_stock_pipeline(
    tmp_path: Path, scheduler: str, guidance: float
) -> None:
    ours = sampler(tmp_path, scheduler=scheduler, guidance=guidance).denoise(embeddings(1), [7])
    theirs = stock(
        tiny_base(tmp_path, scheduler=scheduler, guidance=guidance),
        embeddings(1),
        7,
        guidance=guidance,
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"sdxl-lightning-4"}))
def test_the_schedule_of_a_preset_is_that_of_the_stock_pipeline(
    tmp_path: Path, preset: str
) -> None:
    told = ("scheduler", "scheduler_options", "steps", "timesteps", "guidance", "eta")
    spec = {name: getattr(PRESETS[preset], name) for name in told}
    seen: list[Step] = []
    ours = sampler(tmp_path, **spec).denoise(
        embeddings(1), [7], lambda step: seen.append(step) or True
    )
    theirs = stock(tiny_base(tmp_path, **spec), embeddings(1), 7, guidance=PRESETS[preset].guidance)
    assert len(seen) == PRESETS[preset].steps
    assert torch.equal(ours, theirs)


def latents(n: int = 1, side: int = LATENT) -> Tensor:
    return torch.randn(n, 4, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_starting_from_a_picture_is_that_of_the_stock_pipeline(
    tmp_path: Path, scheduler: str, guidance: float
) -> None:
    start, spec = Start(latents(), 0.5), {"scheduler": scheduler, "guidance": guidance}
    ours = sampler(tmp_path, **spec).denoise(embeddings(1), [7], start=start)
    theirs = stock(tiny_base(tmp_path, **spec), embeddings(1), 7, guidance=guidance, start=start)
    assert torch.equal(ours, theirs)


def test_rows_of_a_batch_start_each_from_its_own_picture_or_all_from_one(tmp_path: Path) -> None:
    painter, z, starts = sampler(tmp_path, scheduler=ANCESTRAL), embeddings(2), latents(2)
    for given in (starts, starts[:1]):
        together = painter.denoise(z, [1, 2], start=Start(given, 0.5))
        for row in range(2):
            start = Start(given[row : row + 1] if len(given) > 1 else given, 0.5)
            alone = painter.denoise(z[row : row + 1], [row + 1], start=start)
            assert torch.allclose(together[row : row + 1], alone, atol=2e-5)


def test_a_start_of_another_shape_or_strength_is_refused(tmp_path: Path) -> None:
    painter = sampler(tmp_path)
    with pytest.raises(Problem, match=r"\(1, 4, 4, 4\) cannot be started from, \(1, 4, 8, 8\)"):
        painter.paint(embeddings(1), [7], start=Start(latents(side=4), 0.5))
    with pytest.raises(Problem, match=r"strength of 1\.5"):
        Start(latents(), 1.5)


def test_the_picture_is_that_of_the_stock_pipeline(tmp_path: Path) -> None:
    painter = sampler(tmp_path)
    painted = painter.paint(embeddings(1), [7])
    base = tiny_base(tmp_path)
    latents = stock(base, embeddings(1), 7)
    decoded = base.vae.decode(latents / base.vae.config.scaling_factor).sample.detach()
    expected = diffusers.image_processor.VaeImageProcessor().postprocess(decoded, "pil")[0]
    assert np.array_equal(painted[0], np.asarray(expected))


@pytest.mark.parametrize("guidance", [0.0, 4.0])
@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL])
def test_rows_of_a_batch_do_not_see_each_other(
    tmp_path: Path, scheduler: str, guidance: float
) -> None:
    painter = sampler(tmp_path, scheduler=scheduler, guidance=guidance)
    z = embeddings(3)
    together = painter.denoise(z, [1, 2, 3])
    for row in range(3):
        alone = painter.denoise(z[row : row + 1], [row + 1])
        assert torch.allclose(together[row : row + 1], alone, atol=2e-5)
    assert not torch.allclose(together[:1], together[1:2], atol=0.1)


def test_the_embedding_decides_and_at_scale_0_it_does_not(tmp_path: Path) -> None:
    painter = sampler(tmp_path / "with")
    assert not torch.equal(
        painter.denoise(embeddings(1, seed=5), [7]), painter.denoise(embeddings(1, seed=6), [7])
    )
    without = sampler(tmp_path / "without", SamplerSettings(ip_scale=0))
    first = without.denoise(embeddings(1, seed=5), [7])
    assert torch.equal(first, without.denoise(embeddings(1, seed=6), [7]))
    assert torch.equal(first, stock(tiny_base(tmp_path / "b"), embeddings(1), 7, scale=0.0))


def test_the_same_seed_paints_the_same_and_another_another(tmp_path: Path) -> None:
    painter = sampler(tmp_path, scheduler=ANCESTRAL)
    first = painter.paint(embeddings(1), [7])
    assert np.array_equal(first, painter.paint(embeddings(1), [7]))
    assert not np.array_equal(first, painter.paint(embeddings(1), [8]))


@pytest.mark.parametrize("last", [0, 1, 3])
def test_a_picture_that_is_given_up_ends_within_the_step_without_a_vae_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    painter = sampler(tmp_path, SamplerSettings(preview="none"))
    calls = {"unet": 0, "vae": 0}
    for kind, model in (("unet", painter._base.unet), ("vae", painter._base.vae)):
        method = {"unet": "forward", "vae": "decode"}[kind]
        real = getattr(model, method)

        def counted(*args: Any, kind: str = kind, real: Any = real, **more: Any) -> Any:
            calls[kind] += 1
            return real(*args, **more)

        monkeypatch.setattr(model, method, counted)
    assert painter.paint(embeddings(1), [7], lambda step: step.index < last) is None
    assert calls == {"unet": last + 1, "vae": 0}
    assert painter.paint(embeddings(1), [7]) is not None
    assert calls["vae"] == 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_estimate_of_the_last_step_is_the_picture(tmp_path: Path, scheduler: str) -> None:
    seen: list[Step] = []
    painter = sampler(tmp_path, scheduler=scheduler)
    latents = painter.denoise(embeddings(1), [7], lambda step: seen.append(step) or True)
    assert [step.index for step in seen] == [0, 1, 2, 3]
    assert {step.n_steps for step in seen} == {4}
    # Ancestral samplers and Euler end at sigma 0; the others at the first of the noise levels.
    assert torch.allclose(seen[-1].estimate, latents, atol=0.1)
    assert not torch.allclose(seen[0].estimate, latents, atol=0.1)


GRADES = [("linear", LATENT), ("tiny", SIZE_PX), ("full", SIZE_PX)]


@pytest.mark.parametrize(("grade", "side"), GRADES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_previews_come_after_every_step_in_every_precision(
    tmp_path: Path, grade: Any, side: int, dtype: torch.dtype
) -> None:
    shapes = []
    base = load_base(tiny_base(tmp_path).spec, dtype=dtype)
    painter = Sampler(base, tiny_adapter(base.unet), SamplerSettings(preview=grade))
    painter.paint(embeddings(2), [1, 2], lambda step: shapes.append(step.preview().shape) or True)
    assert shapes == [(2, side, side, 3)] * 4


def test_a_full_preview_of_the_last_step_is_the_picture(tmp_path: Path) -> None:
    shown: list[np.ndarray] = []
    painter = sampler(tmp_path, SamplerSettings(preview="full"))
    painted = painter.paint(embeddings(1), [7], lambda s: shown.append(s.preview()) or True)
    assert np.abs(shown[-1].astype(int) - painted).max() <= 1


def test_the_linear_preview_is_the_map_that_the_spec_gives(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    latents = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(3))
    shown = previews.previewer(base, "linear")(latents)
    for n, y, x in np.ndindex(2, 3, 5):
        for colour, (*weights, offset) in enumerate(base.spec.latent_rgb):
            value = sum(w * float(latents[n, c, y, x]) for c, w in enumerate(weights)) + offset
            assert abs(shown[n, y, x, colour] - min(255, max(0, value))) <= 0.51


def test_a_picture_of_the_gallery_is_begun_with_by_its_middle(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (SIZE_PX, SIZE_PX + 16, 3), np.uint8)
    middle = torch.from_numpy(picture[:, 8:-8]).permute(2, 0, 1)[None] / 127.5 - 1
    expected = base.vae.encode(middle).latent_dist.mode() * base.vae.config.scaling_factor
    found = previews.encode(base, squared(picture, SIZE_PX))
    assert torch.allclose(found, expected, atol=1e-5)


def test_channels_last_and_half_precision_paint_nearly_the_same(tmp_path: Path) -> None:
    plain = sampler(tmp_path).denoise(embeddings(1), [7])
    spec = tiny_base(tmp_path).spec
    base = load_base(spec, dtype=torch.bfloat16)
    assert base.unet.dtype == torch.bfloat16
    half = Sampler(base, tiny_adapter(base.unet), SamplerSettings(channels_last=True))
    found = half.denoise(embeddings(1), [7]).float()
    assert torch.nn.functional.cosine_similarity(found.ravel(), plain.ravel(), dim=0) > 0.98
    assert half.paint(embeddings(1), [7]).shape == (1, SIZE_PX, SIZE_PX, 3)


def test_a_vae_that_overflows_in_half_precision_stays_in_float32(tmp_path: Path) -> None:
    spec = tiny_base(tmp_path).spec
    assert load_base(spec, dtype=torch.float16).vae.dtype == torch.float32  # force_upcast


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_embedding_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    z = embeddings(2)
    z[1, 3] = value
    with pytest.raises(Problem, match="not finite"):
        sampler(tmp_path).paint(z, [1, 2])


@pytest.mark.parametrize("part", ["unet", "vae", "adapter", "tiny_vae"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_paint_no_black_picture(
    tmp_path: Path, part: str, value: float
) -> None:
    base = tiny_base(tmp_path)
    adapter = tiny_adapter(base.unet)
    if part == "adapter":
        adapter["image_proj"]["proj.bias"][3] = value
    else:
        with torch.no_grad():  # where it reaches every pixel
            list(
                getattr(base, part).decoder.parameters()
                if "vae" in part
                else [base.unet.conv_out.weight]
            )[-1].view(-1)[:3] = value
    painter = Sampler(
        base, adapter, SamplerSettings(preview="tiny" if part == "tiny_vae" else "none")
    )
    with pytest.raises(Problem, match="painted has values that are not finite"):
        painter.warm_up()
    if part != "tiny_vae":
        with pytest.raises(Problem, match="painted has values that are not finite"):
            painter.paint(embeddings(1), [1])


def test_what_no_job_could_do_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"cannot paint 60 px.*multiple of 8"):
        sampler(tmp_path / "a", SamplerSettings(size_px=60))
    with pytest.raises(Problem, match=r"scheduler of 'tiny' cannot take these 70 steps.*50"):
        sampler(tmp_path / "b", SamplerSettings(steps=70), scheduler="LCMScheduler")
    with pytest.raises(Problem, match="scheduler of 'tiny' cannot take these 1 steps"):
        sampler(tmp_path / "c", scheduler=ANCESTRAL, steps=1, timesteps=(800,))


def test_every_embedding_needs_a_seed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 seeds for 2 embeddings"):
        sampler(tmp_path).paint(embeddings(2), [1])


@pytest.mark.parametrize("preview", ["none", "tiny"])
def test_warming_up_takes_a_step_and_decodes_and_changes_nothing(
    tmp_path: Path, preview: Any
) -> None:
    painter = sampler(tmp_path, SamplerSettings(preview=preview))
    before = painter.paint(embeddings(1), [7])
    painter.warm_up()
    assert np.array_equal(painter.paint(embeddings(1), [7]), before)


@pytest.mark.slow
def test_the_sampler_can_be_imported_before_anything_else() -> None:
    """Also on a machine whose torchvision has no operators, without which diffusers fails."""
    program = """
import sys
import hvf_core.torchvision_ops

class EndsAtDiffusers:
    def find_spec(self, name, *_):
        if name == "diffusers":
            sys.exit("diffusers")

sys.meta_path.insert(0, EndsAtDiffusers())
hvf_core.torchvision_ops.declare_missing_ops = lambda: print("declared")
import decoder.painting.sampler
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("declared\n", "diffusers\n")


def test_an_embedding_of_another_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=rf"\(1, 9\).*\(n, {DIM}\)"):
        sampler(tmp_path).paint(torch.zeros(1, 9), [1])


def test_adapters_of_other_models_are_refused(tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    good = tiny_adapter(base.unet)
    fewer = dict(list(good["ip_adapter"].items())[:-2])
    with pytest.raises(Problem, match=r"14 maps.*8 cross-attentions need 16"):
        Sampler(base, good | {"ip_adapter": fewer})
    narrow = {name: tensor[:, :-1] for name, tensor in good["ip_adapter"].items()}
    with pytest.raises(Problem, match="another base model"):
        Sampler(base, good | {"ip_adapter": narrow})
    projection = dict(good["image_proj"])
    projection["proj.weight"] = projection["proj.weight"][:-4]
    with pytest.raises(Problem, match="4 tokens of the width 64"):
        Sampler(base, good | {"image_proj": projection})


def test_a_sampler_goes_at_once_with_all_that_its_graphs_hold(tmp_path: Path) -> None:
    painter = sampler(tmp_path, SamplerSettings(captured=True))
    painter.warm_up()
    left = weakref.ref(painter)
    gc.disable()  # which would find it later, when another one has not found its memory
    try:
        del painter
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: nothing is captured")
@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_captured_steps_paint_the_same_whatever_was_painted_between(
    tmp_path: Path, guidance: float
) -> None:
    shown: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for captured, pictures in shown.items():
        spec = tiny_base(tmp_path / str(captured)).spec
        base = load_base(spec, device="cuda", dtype=torch.float16)
        how = SamplerSettings(guidance=guidance, preview="tiny", captured=captured)
        painter = Sampler(base, tiny_adapter(base.unet), how)

        def keep(step: Step, pictures: list[np.ndarray] = pictures) -> bool:
            pictures.append(step.preview())
            return True

        for n, seed in ((1, 1), (2, 2), (1, 3), (2, 4), (1, 1)):
            seeds = [seed + i for i in range(n)]
            pictures.append(painter.paint(embeddings(n, seed), seeds, keep))
    for plain, again in zip(shown[False], shown[True], strict=True):
        assert np.abs(plain.astype(int) - again).max() <= 1  # in half precision
    assert (shown[True][4] == shown[True][-1]).all()  # of one seed and embedding
    assert (shown[True][4] != shown[True][14]).any()
