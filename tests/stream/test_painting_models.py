"""The painter with real, if tiny and untrained, models: what it paints, and what it refuses."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.bundle import load_bundle
from decoder.hvf import HVF
from decoder.painting.spec import BASE, BaseSpec
from decoder.painting.step import Start, Step
from hvf_core.problem import Problem
from index.gallery import load_gallery, save_gallery
from stream.pipeline.nodes.easel import OutOfMemory
from stream.pipeline.nodes.painter import DiffusionPainter, open_painter
from stream.pipeline.wire.config import Endpoints, LiveSource, PaintingSettings, SessionConfig
from stream.pipeline.wire.messages import Embedded
from stream.pipeline.wire.orders import changed
from tests.refs import about, answer
from tests.tiny_painting import DIM, write_bundle, write_models, write_prior
from tests.tiny_sdxl import SIZE_PX

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def copied(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models, tmp_path / "models"))


def config(models: Path, **painting: object) -> SessionConfig:
    told = {"prior": models / "prior", "base": str(models / "base")}
    return SessionConfig(
        session="s",
        folder=models,
        endpoints=Endpoints.local(),
        source=LiveSource(eeg="x", markers="y"),
        bundle=models / "bundle",
        gallery=models / "gallery",
        painting=PaintingSettings(**(told | painting)),
    )


def job(z: np.ndarray | None = None, top_id: str = "b") -> Embedded:
    z = np.eye(DIM, dtype=np.float32)[0] if z is None else z
    return Embedded(about=about(1), answer=answer(), top_id=top_id, stamps={}, array=z)


def paint(
    painter: DiffusionPainter,
    what: Embedded,
    seed: int = 1,
    on_step: Callable[[Step], bool] = lambda step: True,
    start: Start | None = None,
) -> np.ndarray | None:
    return painter.paint(what, seed, on_step, start)


@pytest.fixture(scope="module")
def painter(models: Path) -> DiffusionPainter:
    return open_painter(config(models))


def test_settings_that_change_paint_what_a_painter_with_them_would(models: Path) -> None:
    changes = [("set", "painting.ip_scale 0.5"), ("set", "painting.steps 3")]
    steered, wanted = open_painter(config(models)), config(models)
    before = paint(steered, job())
    for order in changes:
        wanted = changed(wanted, *order)
        steered.adopt(wanted)
    fresh = open_painter(wanted)
    assert steered.facts == fresh.facts
    np.testing.assert_array_equal(paint(steered, job()), paint(fresh, job()))
    assert (paint(fresh, job()) != before).any()


def test_it_paints_with_previews_and_says_how(painter: DiffusionPainter) -> None:
    previews = []
    pixels = paint(painter, job(), on_step=lambda step: previews.append(step.preview()) or True)
    assert pixels.shape == (SIZE_PX, SIZE_PX, 3)
    assert [(p.shape, p.dtype) for p in previews] == [((1, *pixels.shape), np.uint8)] * 4
    assert painter.about == "tiny paints 64 px in 4 steps on cpu in float32"
    assert {name: len(painter.facts[name]) for name in ("prior", "bundle")} == {
        "prior": 64,
        "bundle": 64,
    }


def test_a_repeat_paints_the_same_and_another_seed_or_embedding_another(painter) -> None:
    first, again = (paint(painter, job(), seed=7) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (paint(painter, job(), seed=8) != first).any()
    other = np.eye(DIM, dtype=np.float32)[1]
    assert (paint(painter, job(other), seed=7) != first).any()


def test_it_stops_where_it_is_told_to(painter: DiffusionPainter) -> None:
    steps = []
    assert paint(painter, job(), on_step=lambda step: bool(steps.append(step.index))) is None
    assert steps == [0]


def test_it_goes_on_from_an_estimate(painter: DiffusionPainter) -> None:
    estimates = []
    paint(painter, job(), on_step=lambda step: bool(estimates.append(step.estimate)))
    steps = []
    begun = Start(estimates[0], 0.5)
    pixels = paint(painter, job(), on_step=lambda s: steps.append(s.n_steps) or True, start=begun)
    assert steps == [2, 2]
    assert (pixels != paint(painter, job())).any()


def test_it_begins_with_the_first_image_of_the_answer(models: Path) -> None:
    painter = open_painter(config(models, from_top=0.5, steps=6, size_px=32, preview="linear"))
    assert painter.facts["size_px"] == 32
    steps = []
    one, other = (
        paint(painter, job(top_id=top), on_step=lambda s: steps.append(s.n_steps) or True)
        for top in ("b", "d")
    )
    assert steps == [3] * 6
    assert one.shape == (32, 32, 3)
    assert (one != other).any()


def test_an_answer_from_a_gallery_that_was_left_since_is_a_problem(models: Path) -> None:
    painter = open_painter(config(models, from_top=0.5))
    with pytest.raises(Problem, match="the gallery no longer holds 'z'"):
        paint(painter, job(top_id="z"))
    assert paint(painter, job(top_id="b")) is not None


def test_with_less_memory_images_are_smaller_and_there_is_an_end_to_it(models: Path) -> None:
    less = config(models).with_less_memory()
    assert paint(open_painter(less), job()).shape == (32, 32, 3)
    least = less.with_less_memory().with_less_memory()
    with pytest.raises(Problem, match="memory does not suffice to paint even 16 px"):
        open_painter(least)


@pytest.mark.parametrize(
    ("z", "expected"),
    [
        (np.full(DIM, np.nan, np.float32), "values that are not finite cannot be painted"),
        (np.zeros(DIM, np.float32), "values that are not finite cannot be painted"),
    ],
)
def test_an_embedding_that_cannot_be_painted_is_a_problem(painter, z, expected: str) -> None:
    with pytest.raises(Problem, match=expected):
        paint(painter, job(z))
    assert paint(painter, job()) is not None


# --- what is refused when it starts -------------------------------------------------------------


def refusal(models: Path, **painting: object) -> str:
    with pytest.raises(Problem) as caught:
        open_painter(config(models, **painting))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_that_is_not_there(models: Path) -> None:
    assert "the device 'cuda:99' is not there" in refusal(models, device="cuda:99")


def test_weights_that_are_missing(copied: Path) -> None:
    assert "there is no" in refusal(copied, prior=copied / "nowhere")
    assert "neither a preset" in refusal(copied, base=str(copied / "nowhere"))
    shutil.rmtree(copied / "base" / "vae")
    assert "the VAE of the diffusion model 'tiny' cannot be loaded" in refusal(copied)


def test_a_prior_that_is_damaged(copied: Path) -> None:
    weights = copied / "prior" / "projector.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "projector.safetensors is damaged" in refusal(copied)


def test_a_base_of_another_family(copied: Path) -> None:
    path = copied / "base" / BASE
    spec = BaseSpec.model_validate_json(path.read_text())
    path.write_text(spec.model_copy(update={"family": "sdxl"}).model_dump_json())
    assert "is for base models of the family 'tiny'" in refusal(copied)


def test_a_prior_of_another_width(copied: Path) -> None:
    write_prior(copied / "prior", HVF({"toy": 3}, 2 * DIM, DIM), 2 * DIM)
    assert "paints embeddings of 16 numbers, the bundle's have 8" in refusal(copied)


def test_a_bundle_of_another_space(copied: Path) -> None:
    torch.manual_seed(1)
    write_bundle(copied / "bundle", HVF({"toy": 3}, DIM, DIM), DIM)
    assert load_bundle(copied / "bundle").manifest.space[:12] in refusal(copied)


def test_a_gallery_without_images_cannot_be_begun_with(copied: Path) -> None:
    save_gallery(copied / "gallery", replace(load_gallery(copied / "gallery"), images=None))
    assert "the gallery has no images to begin with" in refusal(copied, from_top=0.5)


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "cublas", "python"],
)
def test_every_lack_of_memory_is_the_same(painter, monkeypatch, fault: Exception) -> None:
    def paints_nothing(*_: object) -> None:
        raise fault

    monkeypatch.setattr("stream.pipeline.nodes.painter.Sampler.paint", paints_nothing)
    with pytest.raises(OutOfMemory, match=r"memory|ALLOC"):
        paint(painter, job())


def test_a_lack_of_memory_while_weights_are_loaded_is_no_lack_of_weights(models, monkeypatch):
    def loads_nothing(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr("decoder.painting.base.UNet2DConditionModel.from_pretrained", loads_nothing)
    with pytest.raises(OutOfMemory, match=r"9\.00 GiB"):
        open_painter(config(models))


def test_another_fault_is_not_taken_for_a_lack_of_memory(painter, monkeypatch) -> None:
    def is_wrong(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("stream.pipeline.nodes.painter.Sampler.paint", is_wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        paint(painter, job())
