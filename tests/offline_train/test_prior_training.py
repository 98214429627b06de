"""Training a Fusion Prior on a tiny base: what learns, what does not, and going on."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from decoder.bundle import ImageEncoderRecord
from decoder.painting.base import DiffusionBase
from decoder.painting.spec import PRESETS as BASES
from hvf_core.problem import Problem
from offline_train.data.features import Features
from offline_train.prior.batches import Draws, seed_of_step
from offline_train.prior.networks import PriorNetworks
from offline_train.prior.settings import PRESETS, PriorSettings
from offline_train.prior.training import PriorProgress, TrainedPrior, make_prior, train_prior
from tests.full_sdxl import full_base
from tests.tiny_sdxl import SIZE_PX, tiny_adapter, tiny_base
from tests.together import together

pytestmark = pytest.mark.slow

SETTINGS = PriorSettings(
    steps=12,
    batch_size=4,
    lr=1e-3,
    dim=12,
    hvf_hidden=8,
    projector_hidden=16,
    ema_decay=0.9,
    precision="no",
    n_samples=2,
    sample_every=6,
    checkpoint_every=4,
    log_every=4,
    device="cpu",
)
N_IMAGES = 14


@pytest.fixture
def base(tmp_path: Path) -> DiffusionBase:
    return tiny_base(tmp_path / "base")


def world(seed: int = 0) -> tuple[np.ndarray, Features]:
    rng = np.random.default_rng(seed)
    side = SIZE_PX // 8
    latents = rng.normal(size=(N_IMAGES, 4, side, side)).astype(np.float32)
    encoders = (
        ImageEncoderRecord(name="what", dim=5, checksum="a"),
        ImageEncoderRecord(name="how", dim=4 * side**2, checksum="b"),
    )
    what = rng.normal(size=(N_IMAGES, 5)).astype(np.float32)
    items = tuple(f"image {n}" for n in range(N_IMAGES))
    return latents, Features(items, encoders, {"what": what, "how": latents.reshape(N_IMAGES, -1)})


def learn(base: DiffusionBase, **changes: object) -> TrainedPrior:
    settings = SETTINGS.model_copy(update=changes)
    return train_prior(*world(), base, settings)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrainedPrior:
    """What `SETTINGS` make, beside which others are held."""
    return learn(tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> TrainedPrior:
    """Last weights of four steps: their mean follows the first ones, and would hide the others."""
    return learn(tiny_base(tmp_path_factory.mktemp("base")), ema_decay=0.0, steps=4)


def weights(trained: TrainedPrior) -> dict[str, torch.Tensor]:
    return trained.networks.state_dict()


def test_only_hvf_projector_and_adapter_learn(base: DiffusionBase) -> None:
    before = {name: t.clone() for name, t in base.unet.state_dict().items()}
    networks = PriorNetworks(base, {"what": 5, "how": 256}, 12, 8, 16).train()
    latents, features = world()
    embeddings = {name: torch.from_numpy(x) for name, x in features.embeddings.items()}
    condition = {
        "text_embeds": base.pooled_prompt_embeds.expand(N_IMAGES, -1),
        "time_ids": torch.zeros(N_IMAGES, 6),
    }
    times = torch.full((N_IMAGES,), 500)
    dropped = torch.zeros(N_IMAGES, dtype=torch.bool)
    networks(torch.from_numpy(latents), times, embeddings, dropped, condition).sum().backward()
    grown = {name: p.grad for name, p in networks.named_parameters()}
    assert all(g is not None and g.abs().sum() > 0 for g in grown.values())
    assert {name.split(".")[0] for name in grown} == {"hvf", "projector", "image_proj", "maps"}
    frozen = (*base.unet.parameters(), *base.vae.parameters())
    owned = {id(p) for p in networks.parameters()}
    assert all(p.grad is None for p in frozen if id(p) not in owned)
    learn(base, steps=2)
    after = base.unet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_papers_recipe() -> None:
    paper, released = PRESETS["paper"], PRESETS["released"]
    assert (paper.steps, paper.batch_size, paper.size_px) == (100_000, 32, 512)
    assert (paper.lr, paper.betas, paper.weight_decay) == (1e-4, (0.9, 0.999), 0.01)
    assert (paper.dropped, paper.grad_clip, paper.shuffle) == (0.1, 1.0, True)
    assert (released.steps, released.grad_clip, released.shuffle) == (40_000, None, False)


def test_a_step_of_the_papers_training_on_sdxl_without_its_memory() -> None:
    """On the meta device: every shape of the real model, forth and back, and no numbers."""
    paper = PRESETS["paper"]
    dims = {"ViT-H-14": 1024, "ViT-B-32": 512, "SDXL-VAE": 1024}
    base = full_base(BASES["sdxl-base"], torch.float32)
    with torch.device("meta"):
        widths = (paper.dim, paper.hvf_hidden, paper.projector_hidden)
        networks = PriorNetworks(base, dims, *widths)
        guess = networks(
            torch.zeros(2, 4, 64, 64),
            torch.zeros(2, dtype=torch.long),
            {name: torch.zeros(2, dim) for name, dim in dims.items()},
            torch.zeros(2, dtype=torch.bool),
            {
                "text_embeds": base.pooled_prompt_embeds.expand(2, -1),
                "time_ids": torch.zeros(2, 6),
            },
        )
        functional.mse_loss(guess, torch.zeros(2, 4, 64, 64)).backward()
    counts = {
        part: sum(p.numel() for p in getattr(networks, part).parameters())
        for part in ("hvf", "projector", "image_proj", "maps")
    }
    assert counts == {
        "hvf": 11_015_168,
        "projector": 8_388_608,
        "image_proj": 8_400_896,
        "maps": 340_787_200,
    }
    assert all(p.grad is not None for p in networks.parameters())
    learnt = {id(p) for p in networks.parameters()}
    assert all(p.grad is None for p in base.unet.parameters() if id(p) not in learnt)


def test_what_is_trained_is_what_stock_diffusers_computes(base: DiffusionBase) -> None:
    """One pass of the training's networks, and of the UNet with the adapter loaded into it."""
    torch.manual_seed(4)
    networks = PriorNetworks(base, {"what": 5}, 12, 8, 16).eval()
    noisy, what = torch.randn(2, 4, 8, 8), torch.randn(2, 5)
    times, dropped = torch.tensor([300, 700]), torch.tensor([False, False])
    condition = {
        "text_embeds": base.pooled_prompt_embeds.expand(2, -1),
        "time_ids": torch.full((2, 6), 64.0),
    }
    adapter = {part: dict(tensors) for part, tensors in networks.adapter().items()}
    with torch.no_grad():
        ours = networks(noisy, times, {"what": what}, dropped, condition)
        z_c = networks.projector(networks.hvf({"what": what}))
        base.unet._load_ip_adapter_weights([adapter])
        theirs = base.unet(
            noisy,
            times,
            base.prompt_embeds.expand(2, -1, -1),
            added_cond_kwargs=condition | {"image_embeds": [z_c[:, None]]},
        ).sample
    assert torch.equal(ours, theirs)


def test_keys_and_values_begin_as_the_unet_s_own(base: DiffusionBase) -> None:
    networks = PriorNetworks(base, {"what": 5}, 12, 8, 16)
    adapter = networks.adapter()["ip_adapter"]
    names = list(base.unet.attn_processors)
    assert len(adapter) == 16
    for name, tensor in adapter.items():
        i, kind = int(name.split(".")[0]), name.split("_")[1]
        layer = base.unet.get_submodule(names[i].removesuffix(".processor"))
        assert torch.equal(tensor, getattr(layer, f"to_{kind}").weight)


def test_it_can_begin_with_a_given_adapter_and_refuses_another_model_s(base: DiffusionBase) -> None:
    given = tiny_adapter(base.unet)
    trained = train_prior(
        *world(), base, SETTINGS.model_copy(update={"steps": 1, "lr": 0.0}), start_from=given
    )
    for part, tensors in trained.networks.adapter().items():
        for name, tensor in tensors.items():
            assert torch.allclose(tensor, given[part][name]), name
    given["ip_adapter"].popitem()
    with pytest.raises(Problem, match="does not fit the base 'tiny'"):
        train_prior(*world(), base, SETTINGS, start_from=given)


def test_the_loss_is_the_noise_that_is_not_seen(base: DiffusionBase) -> None:
    """One step by hand, from the same draws."""
    settings = SETTINGS.model_copy(update={"steps": 1, "lr": 0.0, "dropped": 0.0})
    trained = train_prior(*world(), base, settings)
    latents, features = world()
    order = np.arange(N_IMAGES - 2)
    np.random.default_rng([settings.seed, 0]).shuffle(order)
    rows = order[:4]
    rng = torch.Generator().manual_seed(seed_of_step(settings.seed, 0))
    noise = torch.randn(4, *latents.shape[1:], generator=rng)
    times = torch.randint(1000, (4,), generator=rng)
    noisy = base.scheduler.add_noise  # Euler's has another parametrisation, hence by hand
    assert noisy is not None
    kept = base.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
    seen = kept.sqrt() * torch.from_numpy(latents[rows]) + (1 - kept).sqrt() * noise
    trained.networks.use()
    with torch.no_grad():
        networks = trained.networks
        z_f = networks.hvf({n: torch.from_numpy(x[rows]) for n, x in features.embeddings.items()})
        tokens = networks.image_proj(networks.projector(z_f))[:, None]
        guess = base.unet(
            seen,
            times,
            (base.prompt_embeds.expand(4, -1, -1), [tokens]),
            added_cond_kwargs={
                "text_embeds": base.pooled_prompt_embeds.expand(4, -1),
                "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 4),
            },
        ).sample
    assert trained.history[0]["loss"] == pytest.approx(float(((guess - noise) ** 2).mean()), 1e-4)


def test_dropped_conditions_are_zeros(base: DiffusionBase) -> None:
    networks = PriorNetworks(base, {"what": 5}, 12, 8, 16).eval()
    rng = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=rng)
    condition = {
        "text_embeds": base.pooled_prompt_embeds.expand(2, -1),
        "time_ids": torch.zeros(2, 6),
    }

    def see(what: torch.Tensor, dropped: list[bool]) -> torch.Tensor:
        times = torch.tensor([300, 300])
        with torch.no_grad():
            return networks(noisy, times, {"what": what}, torch.tensor(dropped), condition)

    one, other = (torch.randn(2, 5, generator=rng) for _ in range(2))
    assert torch.equal(see(one, [True, True]), see(other, [True, True]))
    mixed = see(one, [True, False])
    assert torch.allclose(mixed[0], see(other, [True, True])[0], atol=1e-6)
    assert not torch.allclose(mixed[1], see(other, [False, False])[1], atol=1e-4)


def test_more_steps_go_on_from_fewer_and_fewer_are_not_given_for_more(
    base: DiffusionBase, tmp_path: Path
) -> None:
    for asked in ({"lr": 2e-3}, {}):  # another training begins for itself
        settings = SETTINGS.model_copy(update={"steps": 4, **asked})
        train_prior(*world(), base, settings, checkpoint_dir=tmp_path / "state")
    assert len(list((tmp_path / "state").iterdir())) == 2
    fewer = SETTINGS.model_copy(update={"steps": 2})
    with pytest.raises(Problem, match=r"is 4 steps far, .* give --steps 4 or more, .*safetensors'"):
        train_prior(*world(), base, fewer, checkpoint_dir=tmp_path / "state")


def test_clipping_clips(tmp_path: Path) -> None:
    """With nearly no gradient let through, only AdamW's decay of the weights is left."""
    moved = {}
    for clip in (None, 1e-12):
        base = tiny_base(tmp_path / "base")
        start = PriorNetworks(base, {"what": 5, "how": 256}, 12, 8, 16).adapter()["ip_adapter"]
        start = {name: t.clone() for name, t in start.items()}
        trained = learn(base, grad_clip=clip, weight_decay=0.0, ema_decay=0.0, steps=4)
        end = trained.networks.adapter()["ip_adapter"]
        moved[clip] = sum(float((end[name] - t).abs().sum()) for name, t in start.items())
    assert moved[1e-12] < 0.05 * moved[None]


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(base: DiffusionBase) -> None:
    from accelerate import Accelerator

    latents, features = world()
    accelerator = Accelerator(cpu=True)
    for shuffle in (True, False):
        settings = SETTINGS.model_copy(update={"shuffle": shuffle})
        draws = Draws(latents, features, base, settings, accelerator)
        rows = np.concatenate([draws._rows(step) for step in range(6)])  # two epochs of 12 images
        first, second = rows[:12], rows[12:]
        assert sorted(first) == sorted(second) == list(range(12))
        assert np.array_equal(first, np.arange(12)) is not shuffle
        assert np.array_equal(first, second) is not shuffle


def test_the_result_is_the_mean_of_the_weights(base: DiffusionBase, plain: TrainedPrior) -> None:
    last = learn(base, ema_decay=0.0)
    assert any(not torch.equal(t, weights(last)[name]) for name, t in weights(plain).items())


def test_it_learns(base: DiffusionBase) -> None:
    trained = learn(base, steps=120, lr=3e-3, log_every=20)
    assert trained.history[-1]["loss"] < trained.history[0]["loss"]


def test_what_is_looked_at_is_not_learnt_from(base: DiffusionBase) -> None:
    latents, features = world()
    spoilt = latents.copy()
    spoilt[-2:] = 1e6
    one = train_prior(latents, features, base, SETTINGS)
    other = train_prior(spoilt, features, base, SETTINGS)
    assert one.history == other.history


def test_samples_are_painted_and_the_training_goes_on_the_same(
    base: DiffusionBase, plain: TrainedPrior, tmp_path: Path
) -> None:
    from offline_train.prior.samples import PriorBoard

    pictures = [np.full((SIZE_PX, SIZE_PX, 3), 90, np.uint8)] * 2
    board = PriorBoard(tmp_path / "board", pictures, world()[1], base)
    looked = train_prior(*world(), base, SETTINGS, board.tell, look=board.look)
    board.close()
    assert looked.history == plain.history
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [e.step for e in events.Images("seen, painted")] == [6, 12]
    assert (events.Images("seen, painted")[0].width, len(events.Scalars("loss"))) == (128, 3)


def test_a_prior_is_written_with_where_it_comes_from(base: DiffusionBase, tmp_path: Path) -> None:
    trained = learn(base)
    features = world()[1]
    prior = make_prior(tmp_path / "prior", trained, features, base, SETTINGS, "the command")
    manifest = prior.manifest
    assert (manifest.base, manifest.family, manifest.n_cross_attentions) == ("tiny", "tiny", 8)
    assert manifest.training["command"] == "the command"
    assert manifest.training["n_images"] == N_IMAGES - 2
    with torch.no_grad():
        z_f = prior.hvf({n: torch.from_numpy(x[:-2]) for n, x in features.embeddings.items()})
    assert manifest.z_norm == pytest.approx(float(z_f.norm(dim=1).mean()), 1e-4)


def test_a_loss_that_is_not_finite_ends_with_a_sentence(base: DiffusionBase) -> None:
    latents, features = world()
    with pytest.raises(Problem, match="the training diverged"):
        train_prior(latents * np.nan, features, base, SETTINGS)


def test_too_few_images_are_refused(base: DiffusionBase) -> None:
    with pytest.raises(Problem, match="leave nothing to learn from"):
        train_prior(*world(), base, SETTINGS.model_copy(update={"n_samples": N_IMAGES}))


def test_parts_and_recomputing_change_nothing_but_rounding(
    short: TrainedPrior, tmp_path: Path
) -> None:
    for changes in ({"parts": 2}, {"recompute": True}):
        base, recomputes = tiny_base(tmp_path / "base"), []
        settings = SETTINGS.model_copy(update={"ema_decay": 0.0, "steps": 4, **changes})

        def look(step: int, networks: PriorNetworks, base=base, recomputes=recomputes) -> None:
            recomputes.append(base.unet.is_gradient_checkpointing)

        other = train_prior(*world(), base, settings, look=look)
        assert recomputes == ["recompute" in changes]
        assert not base.unet.is_gradient_checkpointing
        assert other.history[0]["loss"] == pytest.approx(short.history[0]["loss"], rel=1e-5)
        for name, tensor in weights(short).items():
            torch.testing.assert_close(weights(other)[name], tensor, atol=2e-4, rtol=0)


def test_what_is_recomputed_is_not_kept(base: DiffusionBase) -> None:
    kept = {}
    for recompute in (False, True):
        base.unet.gradient_checkpointing = False
        if recompute:
            base.unet.enable_gradient_checkpointing()
        sizes = []
        networks = PriorNetworks(base, {"what": 5}, 12, 8, 16)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            networks(
                torch.zeros(2, 4, 8, 8),
                torch.tensor([3, 4]),
                {"what": torch.ones(2, 5)},
                torch.tensor([False, False]),
                {
                    "text_embeds": base.pooled_prompt_embeds.expand(2, -1),
                    "time_ids": torch.zeros(2, 6),
                },
            )
        kept[recompute] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


def test_half_precision_learns_about_the_same(base: DiffusionBase, plain: TrainedPrior) -> None:
    half = learn(base, precision="bf16")
    assert half.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=2e-2)
    assert half.history != plain.history
    assert {t.dtype for t in weights(half).values()} == {torch.float32}


def test_more_steps_go_on_from_fewer(
    base: DiffusionBase, plain: TrainedPrior, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    train_prior(*world(), base, SETTINGS.model_copy(update={"steps": 8}), checkpoint_dir=state)
    base = tiny_base(tmp_path / "base")
    more = train_prior(*world(), base, SETTINGS, checkpoint_dir=state)
    assert more.history == plain.history
    assert all(torch.equal(t, weights(plain)[name]) for name, t in weights(more).items())


def test_a_training_may_be_left_between_two_points_of_its_curve(tmp_path: Path) -> None:
    """A state is kept when it is due, not only where the loss is told as well."""
    changes = {"log_every": 100, "checkpoint_every": 5}
    whole = learn(tiny_base(tmp_path / "base"), **changes)
    assert [point["step"] for point in whole.history] == [5, 10, 12]

    def interrupt(progress: PriorProgress) -> None:
        if progress.step == 7:
            raise KeyboardInterrupt

    settings = SETTINGS.model_copy(update=changes)
    with pytest.raises(KeyboardInterrupt):
        train_prior(*world(), tiny_base(tmp_path / "base"), settings, interrupt, tmp_path / "state")
    base, steps = tiny_base(tmp_path / "base"), []
    resumed = train_prior(
        *world(), base, settings, lambda p: steps.append(p.step), tmp_path / "state"
    )
    assert steps[0] == 6
    assert resumed.history == whole.history


def test_a_base_that_predicts_no_noise_is_refused(base: DiffusionBase) -> None:
    base.scheduler.register_to_config(prediction_type="v_prediction")
    with pytest.raises(Problem, match=r"'tiny' predicts 'v_prediction', .* \('epsilon'\)"):
        train_prior(*world(), base, SETTINGS)


def test_a_batch_that_cannot_be_shared_out_is_refused(base: DiffusionBase) -> None:
    with pytest.raises(Problem, match=r"4 images cannot be shared .* multiple of 3 as"):
        train_prior(*world(), base, SETTINGS.model_copy(update={"parts": 3}))


TOGETHER = SETTINGS.model_copy(update={"ema_decay": 0.0, "steps": 6, "checkpoint_every": 2})


class Cut:
    """Latents of which the reader is killed, in the middle of a training."""

    def __init__(self, latents: np.ndarray, n_reads: int) -> None:
        self._latents, self._n_left, self.shape = latents, n_reads, latents.shape

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self._n_left -= 1
        if self._n_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._latents[rows]


def _train_in(rank: int, folder: Path, n_reads: int) -> None:
    """One of two processes that train together."""
    latents, features = world()
    read = Cut(latents, n_reads) if rank else latents
    base = tiny_base(folder / f"base-{rank}")
    try:
        trained = train_prior(read, features, base, TOGETHER, checkpoint_dir=folder / "state")
    except Problem as problem:
        (folder / "said").write_text(str(problem))
        os._exit(1)
    torch.save(trained.networks.state_dict(), folder / f"{rank}.pt")


def in_two(folder: Path, n_reads: int = 99) -> list[int | None]:
    """Trains in two processes, of which the second is killed after so many reads."""
    return together(_train_in, folder, n_reads)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    base = tiny_base(tmp_path_factory.mktemp("alone") / "base")
    return weights(train_prior(*world(), base, TOGETHER))


def test_two_processes_share_a_training(alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert in_two(tmp_path) == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, tensor in alone.items():
        assert torch.equal(one[name], other[name]), name
        torch.testing.assert_close(one[name], tensor, atol=2e-4, rtol=0)


def test_a_process_that_is_killed_ends_the_other_with_a_sentence_and_one_alone_goes_on(
    alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    assert in_two(tmp_path, n_reads=5) == [1, -signal.SIGKILL]
    said = (tmp_path / "said").read_text()
    assert said.startswith("another process of this training has ended (")
    assert said.endswith(f"which goes on from the last state in '{tmp_path / 'state'}'")
    steps: list[int] = []
    settings = TOGETHER.model_copy(update={"parts": 2})
    base = tiny_base(tmp_path / "base")
    trained = train_prior(
        *world(), base, settings, lambda p: steps.append(p.step), tmp_path / "state"
    )
    assert steps[0] in (3, 5)
    for name, tensor in alone.items():
        torch.testing.assert_close(weights(trained)[name], tensor, atol=2e-4, rtol=0)
