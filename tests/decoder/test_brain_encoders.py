"""Every brain encoder: one interface, the published sizes, and a slow computation of each net."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate
from scipy.special import erf
from torch import Tensor, nn
from torch.nn import functional

from decoder.brain.base import BrainEncoder, LinearInputEncoder
from decoder.brain.mbp import MBP
from decoder.brain.names import CLASSES, OwnEncoderName
from decoder.brain.registry import load_brain_encoder, make_brain_encoder
from decoder.bundle import BrainEncoderRecord, Bundle, load_bundle
from decoder.residual import ResMLP
from hvf_core.problem import Problem
from tests.tiny_bundle import tiny_bundle, tiny_preprocessing

NAMES: tuple[OwnEncoderName, ...] = get_args(OwnEncoderName)
LINEAR: tuple[OwnEncoderName, ...] = ("mbp", "ubp")
N_CHANNELS, N_TIMES, DIM = 3, 160, 8

every_encoder = pytest.mark.parametrize("name", NAMES)


def small(name: OwnEncoderName, n_times: int = N_TIMES, seed: int = 0) -> BrainEncoder:
    """Without dropout, and with batch norms that have seen data."""
    torch.manual_seed(seed)
    encoder = make_brain_encoder(name, N_CHANNELS, n_times, DIM, hidden=6, dropout=0.0)
    for _ in range(3):
        encoder(2 * torch.randn(16, N_CHANNELS, n_times) + 1)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return encoder.eval()


# --- sizes


def test_every_name_has_its_class() -> None:
    assert tuple(CLASSES) == NAMES


@every_encoder
def test_every_encoder_says_what_it_takes_and_gives(name: OwnEncoderName) -> None:
    encoder = small(name)
    assert (encoder.n_channels, encoder.n_times, encoder.dim) == (N_CHANNELS, N_TIMES, DIM)
    assert encoder(torch.randn(5, N_CHANNELS, N_TIMES)).shape == (5, DIM)


@pytest.mark.parametrize(
    ("name", "eeg", "meg"),
    [
        ("nice", 1440, 1040),
        ("shallownet", 1440, 1040),
        ("deepnet", 1400, 800),
        ("eegnet", 1248, 864),
    ],
)
def test_convolutions_leave_the_published_widths(name: OwnEncoderName, eeg: int, meg: int):
    assert make_brain_encoder(name, 17, 250, 8, 8).project.in_features == eeg
    assert make_brain_encoder(name, 271, 201, 8, 8).project.in_features == meg


@pytest.mark.parametrize("n_times", [60, 250, 300])
def test_atm_reads_any_window_as_250_samples(n_times: int) -> None:
    atm = make_brain_encoder("atm", 17, n_times, 8, 8)
    assert atm.readout.project.in_features == 1440
    assert atm(torch.randn(2, 17, n_times)).shape == (2, 8)


def test_numbers_of_parameters() -> None:
    """Each term is one layer; projections end in two matrices, two biases and a layer norm."""

    def projection(n_inputs: int) -> int:
        return n_inputs * 1024 + 1024 + 1024 * 1024 + 1024 + 2 * 1024

    ts_conv = 40 * 25 + 2 * 40 + 40 * 40 * 17 + 2 * 40 + 40 * 40 + 40
    attention = 250 * 248 * 4 + 248 * 2 + 250 + (250 * 256 + 256) + (256 * 250 + 250) + 4 * 250
    deep = 25 * 10 + 25 * 25 * 17 + 10 * (25 * 50 + 50 * 100 + 100 * 200) + 2 * 375
    eegnet = 8 * 64 + 2 * 8 + 8 * 16 * 17 + 2 * 16 + 16 * 16 * 16 + 2 * 16
    expected = {
        "mbp": 6_452_224,
        "ubp": projection(17 * 250),
        "shallownet": 40 * 25 + 40 * 40 * 17 + 2 * 40 + projection(1440),
        "deepnet": deep + projection(1400),
        "eegnet": eegnet + projection(1248),
        "nice": ts_conv + projection(1440),
        "atm": 250 * 250 + 250 + 250 + attention + 2 * 250 + ts_conv + projection(1440),
    }
    for name in NAMES:
        encoder = make_brain_encoder(name, 17, 250, 1024, 1024)
        assert sum(p.numel() for p in encoder.parameters()) == expected[name], name


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("mbp", {0.1}),
        ("ubp", {0.3}),
        ("shallownet", {0.5}),
        ("deepnet", {0.5}),
        ("eegnet", {0.5}),
        ("nice", {0.5}),
        ("atm", {0.25, 0.5}),
    ],
)
def test_dropout_is_the_published_one_unless_it_is_given(
    name: OwnEncoderName, rates: set[float]
) -> None:
    def rates_of(encoder: BrainEncoder) -> set[float]:
        return {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)}

    assert rates_of(make_brain_encoder(name, 3, 160, 8, 8)) == rates
    assert rates_of(make_brain_encoder(name, 3, 160, 8, 8, dropout=0.2)) == {0.2}
    assert rates_of(make_brain_encoder(name, 3, 160, 8, 8, dropout=0.0)) == {0.0}


def test_mbp_starts_from_the_same_weights_as_ever() -> None:
    torch.manual_seed(5)
    project, head = nn.Linear(3 * 7, 8), ResMLP(8, 6)
    torch.manual_seed(5)
    got = MBP(3, 7, dim=8, hidden=6).state_dict()
    expected = {f"project.{name}": tensor for name, tensor in project.state_dict().items()}
    expected |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in got)


def test_nice_starts_from_small_normal_weights() -> None:
    torch.manual_seed(0)
    nice = make_brain_encoder("nice", 17, 250, 256, 8)
    for weight in (nice.features[4].weight, nice.project.weight, nice.head.linear.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert abs(weight.mean().item()) < 0.001
    assert nice.features[5].weight.mean().item() == pytest.approx(1, abs=0.02)


# --- what is refused


@every_encoder
@pytest.mark.parametrize("shape", [(3, 160), (1, 2, 160), (1, 3, 159), (1, 160, 3), (1, 1, 3, 160)])
def test_trials_of_another_shape_are_refused(name: OwnEncoderName, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"3 channels, 160 times"):
        small(name)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "shown", "least"),
    [
        ("shallownet", "ShallowNet", 75),
        ("deepnet", "DeepNet", 151),
        ("eegnet", "EEGNet", 95),
        ("nice", "NICE", 75),
    ],
)
def test_windows_that_are_too_short_are_refused(
    name: OwnEncoderName, shown: str, least: int
) -> None:
    for n_times in (1, least - 1):
        sentence = rf"^{shown} needs trials of at least {least} samples, these have {n_times}:"
        with pytest.raises(Problem, match=sentence):
            make_brain_encoder(name, 3, n_times, 8, 8)
    for n_times in range(least, least + 12):  # a width that were not right would not multiply
        encoder = make_brain_encoder(name, 3, n_times, 8, 8)
        assert encoder(torch.randn(2, 3, n_times)).shape == (2, 8)


def test_encoders_without_convolutions_over_time_take_a_single_sample() -> None:
    for name in ("mbp", "ubp", "atm"):
        assert make_brain_encoder(name, 3, 1, 8, 8)(torch.randn(2, 3, 1)).shape == (2, 8)


# --- the linear input


@pytest.mark.parametrize("name", NAMES)
def test_only_mbp_and_ubp_are_linear_at_the_input(name: OwnEncoderName) -> None:
    assert isinstance(small(name), LinearInputEncoder) == (name in LINEAR)


@pytest.mark.parametrize("name", LINEAR)
def test_project_is_linear(name: OwnEncoderName) -> None:
    project = small(name).project
    a, b = torch.randn(2, 4, N_CHANNELS * N_TIMES)
    torch.testing.assert_close(
        project(0.3 * a + 0.7 * b), 0.3 * project(a) + 0.7 * project(b), atol=1e-5, rtol=1e-5
    )


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(LINEAR),
    cuts=st.sets(st.integers(1, N_TIMES - 1), max_size=6),
    seed=st.integers(0, 100),
)
def test_shares_of_slices_add_up_to_the_whole(
    name: OwnEncoderName, cuts: set[int], seed: int
) -> None:
    encoder = small(name, seed=seed)
    trials = torch.randn(2, N_CHANNELS, N_TIMES)
    weight = encoder.project.weight.view(DIM, N_CHANNELS, N_TIMES)
    ends = [*sorted(cuts), N_TIMES]
    total = encoder.project.bias.expand(2, -1)
    for start, end in zip([0, *ends], ends, strict=False):
        total = total + functional.linear(
            trials[:, :, start:end].flatten(1), weight[:, :, start:end].flatten(1)
        )
    torch.testing.assert_close(encoder.head(total), encoder(trials), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_sample_t_of_channel_c_is_input_c_times_n_times_plus_t(name: OwnEncoderName) -> None:
    encoder = small(name)
    encoder.head = nn.Identity()
    for channel, time in ((0, 0), (0, 7), (2, 0), (1, 159)):
        trial = torch.zeros(1, N_CHANNELS, N_TIMES)
        trial[0, channel, time] = 1
        column = encoder.project.weight[:, channel * N_TIMES + time]
        torch.testing.assert_close(encoder(trial)[0], column + encoder.project.bias)


# --- behaviour


@every_encoder
def test_a_trial_is_embedded_alike_alone_and_among_others(name: OwnEncoderName) -> None:
    encoder = small(name)
    trials = torch.randn(6, N_CHANNELS, N_TIMES)
    together = encoder(trials)
    assert torch.equal(encoder(trials), together)
    for row in range(6):
        alone = encoder(trials[row : row + 1])[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-5)


@every_encoder
def test_dropout_acts_in_training_only(name: OwnEncoderName) -> None:
    torch.manual_seed(0)
    encoder = make_brain_encoder(name, N_CHANNELS, N_TIMES, DIM, 6)
    trials = torch.randn(4, N_CHANNELS, N_TIMES)
    assert not torch.equal(encoder(trials), encoder(trials))
    encoder.eval()
    assert torch.equal(encoder(trials), encoder(trials))


@every_encoder
def test_every_sample_matters(name: OwnEncoderName) -> None:
    """But for those at the end that pooling leaves over, as its published form does."""
    encoder = small(name).double()
    trials = torch.randn(2, N_CHANNELS, N_TIMES, dtype=torch.float64, requires_grad=True)
    (encoder(trials) * torch.randn(2, DIM)).sum().backward()
    reached = (trials.grad.abs() > 1e-12).all(dim=0).all(dim=0)
    left_over = {"deepnet": 9, "eegnet": 1}.get(name, 0)
    assert reached[: N_TIMES - left_over].all()
    assert not reached[N_TIMES - left_over :].any()


@every_encoder
def test_the_gradient_reaches_every_parameter(name: OwnEncoderName) -> None:
    """In float64, where a gradient that is nothing but rounding is told from a real one.

    Of EEGNet's two batch norms in a row, the second takes the first one's shift away: so it is in
    the published net.
    """
    encoder = small(name).double().train()
    trials = torch.randn(8, N_CHANNELS, N_TIMES, dtype=torch.float64)
    (encoder(trials) * torch.randn(8, DIM)).sum().backward()
    still = [
        parameter
        for parameter, tensor in encoder.named_parameters()
        if tensor.grad is None or tensor.grad.abs().max() < 1e-9
    ]
    assert still == (["features.1.bias"] if name == "eegnet" else [])


@pytest.mark.slow
@every_encoder
def test_every_encoder_can_learn_a_few_trials_by_heart(name: OwnEncoderName) -> None:
    torch.manual_seed(1)
    encoder = make_brain_encoder(name, N_CHANNELS, N_TIMES, 16, 16, dropout=0.0)
    trials, targets = torch.randn(12, N_CHANNELS, N_TIMES), torch.randn(12, 16)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = 1 - functional.cosine_similarity(encoder(trials), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# --- bundles


def save(directory: Path, name: OwnEncoderName, encoder: BrainEncoder) -> Bundle:
    tiny_bundle(
        directory,
        encoder,
        **tiny_preprocessing(("O1", "Oz", "O2"), 100, (encoder.n_times - 1) / 100),
        brain_encoder=BrainEncoderRecord(name=name, hidden=6),
    )
    return load_bundle(directory)


@every_encoder
def test_every_encoder_comes_back_from_a_bundle(name: OwnEncoderName, tmp_path: Path) -> None:
    encoder = small(name)
    loaded = load_brain_encoder(save(tmp_path / "bundle", name, encoder))
    assert type(loaded) is type(encoder)
    assert not loaded.training
    trials = torch.randn(4, N_CHANNELS, N_TIMES)
    assert torch.equal(loaded(trials), encoder(trials))
    for key, tensor in encoder.state_dict().items():
        assert loaded.state_dict()[key].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[key], tensor), key


def test_the_count_of_a_batch_norm_stays_a_number(tmp_path: Path) -> None:
    arrays = save(tmp_path / "bundle", "eegnet", small("eegnet")).arrays("brain")
    count = arrays["features.1.num_batches_tracked"]
    assert (count.shape, count.dtype, int(count)) == ((), np.int64, 3)


def test_a_bundle_that_names_another_encoder_is_refused(tmp_path: Path) -> None:
    bundle = save(tmp_path / "bundle", "nice", small("shallownet"))
    with pytest.raises(Problem, match=r"does not fit .*Missing .*features\.8\.bias"):
        load_brain_encoder(bundle)


def test_a_bundle_whose_window_is_too_short_is_refused(tmp_path: Path) -> None:
    bundle = save(tmp_path / "bundle", "deepnet", small("mbp", n_times=40))
    with pytest.raises(Problem, match="DeepNet needs trials of at least 151 samples"):
        load_brain_encoder(bundle)


# --- each net, computed slowly in float64


class Slow:
    """An encoder's weights as float64 arrays, and plain loops over one trial."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {
            name: t.detach().double().numpy() for name, t in module.state_dict().items()
        }

    def convolve(self, x: np.ndarray, layer: str) -> np.ndarray:
        """From (filters, channels, times) to the same with other lengths."""
        kernels = self.weights[f"{layer}.weight"]
        maps = [correlate(x, kernel, mode="valid", method="direct")[0] for kernel in kernels]
        bias = self.weights.get(f"{layer}.bias", np.zeros(len(kernels)))
        return np.stack(maps) + bias[:, None, None]

    def normalise(self, x: np.ndarray, layer: str) -> np.ndarray:
        """Batch norm with what it has seen in training."""
        out = np.empty_like(x)
        for f in range(len(x)):
            spread = math.sqrt(self.weights[f"{layer}.running_var"][f] + 1e-5)
            unit = (x[f] - self.weights[f"{layer}.running_mean"][f]) / spread
            out[f] = unit * self.weights[f"{layer}.weight"][f] + self.weights[f"{layer}.bias"][f]
        return out

    def linear(self, x: np.ndarray, layer: str) -> np.ndarray:
        y = x @ self.weights[f"{layer}.weight"].T
        return y + self.weights.get(f"{layer}.bias", 0)

    def layer_norm(self, x: np.ndarray, layer: str) -> np.ndarray:
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        unit = (x - x.mean(axis=-1, keepdims=True)) / spread
        return unit * self.weights[f"{layer}.weight"] + self.weights[f"{layer}.bias"]

    def projection(self, x: np.ndarray, prefix: str = "") -> np.ndarray:
        y = self.linear(x.ravel(), f"{prefix}project")
        return self.layer_norm(
            y + self.linear(gelu(y), f"{prefix}head.linear"), f"{prefix}head.norm"
        )


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / math.sqrt(2))) / 2


def elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def pool(x: np.ndarray, length: int, stride: int, statistic) -> np.ndarray:
    starts = range(0, x.shape[-1] - length + 1, stride)
    return np.stack([statistic(x[..., s : s + length], axis=-1) for s in starts], axis=-1)


def slow_ubp(slow: Slow, trial: np.ndarray) -> np.ndarray:
    return slow.projection(trial)


def slow_shallownet(slow: Slow, trial: np.ndarray) -> np.ndarray:
    x = slow.convolve(slow.convolve(trial[None], "features.0"), "features.1")
    return slow.projection(pool(elu(slow.normalise(x, "features.2")), 51, 5, np.mean))


def slow_deepnet(slow: Slow, trial: np.ndarray) -> np.ndarray:
    x = slow.convolve(trial[None], "features.0")
    for convolution in (1, 6, 11, 16):
        x = slow.convolve(x, f"features.{convolution}")
        x = elu(slow.normalise(x, f"features.{convolution + 1}"))
        x = pool(x, 2, 2, np.max)
    return slow.projection(x)


def slow_eegnet(slow: Slow, trial: np.ndarray) -> np.ndarray:
    x = slow.normalise(slow.convolve(trial[None], "features.0"), "features.1")
    x = elu(slow.normalise(slow.convolve(x, "features.2"), "features.3"))
    x = slow.convolve(pool(x, 2, 2, np.mean), "features.7")
    return slow.projection(elu(slow.normalise(x, "features.8")))


def slow_nice(slow: Slow, trial: np.ndarray, prefix: str = "") -> np.ndarray:
    x = pool(slow.convolve(trial[None], f"{prefix}features.0"), 51, 5, np.mean)
    x = elu(slow.normalise(x, f"{prefix}features.2"))
    x = elu(slow.normalise(slow.convolve(x, f"{prefix}features.4"), f"{prefix}features.5"))
    return slow.projection(slow.convolve(x, f"{prefix}features.8"), prefix)


def slow_atm(slow: Slow, trial: np.ndarray) -> np.ndarray:
    tokens = np.stack([slow.linear(channel, "tokens") for channel in trial])
    tokens = np.concatenate([tokens, slow.weights["subject"][0]])
    q, k, v = (slow.linear(tokens, f"attention.{part}") for part in ("query", "key", "value"))
    mixed = np.zeros_like(v)
    for head in range(4):
        columns = slice(62 * head, 62 * (head + 1))
        for i in range(len(tokens)):
            scores = np.exp([q[i, columns] @ key[columns] / math.sqrt(62) for key in k])
            mixed[i, columns] = sum(
                s / scores.sum() * value[columns] for s, value in zip(scores, v, strict=True)
            )
    x = slow.layer_norm(tokens + slow.linear(mixed, "attention.out"), "attention.norm1")
    fed = slow.linear(gelu(slow.linear(x, "attention.expand")), "attention.contract")
    x = slow.layer_norm(slow.layer_norm(x + fed, "attention.norm2"), "norm")
    return slow_nice(slow, x[: len(trial)], "readout.")


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("ubp", slow_ubp),
        ("shallownet", slow_shallownet),
        ("deepnet", slow_deepnet),
        ("eegnet", slow_eegnet),
        ("nice", slow_nice),
        ("atm", slow_atm),
    ],
)
def test_each_net_follows_its_formula(name: OwnEncoderName, by_hand) -> None:
    encoder = small(name)
    trials: Tensor = torch.randn(2, N_CHANNELS, N_TIMES) * 2
    got = encoder(trials).detach().numpy()
    for trial, z in zip(trials.double().numpy(), got, strict=True):
        np.testing.assert_allclose(z, by_hand(Slow(encoder), trial), atol=1e-4)
