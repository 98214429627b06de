"""The networks against their published sizes and a plain computation of their formula."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from decoder.brain.mbp import MBP
from decoder.hvf import HVF
from decoder.residual import ResMLP


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_mbp_has_the_papers_number_of_parameters() -> None:
    assert count(MBP(n_channels=17, n_times=250)) == 6_452_224


def test_hvf_has_the_papers_number_of_parameters() -> None:
    assert count(HVF({"RN50": 1024, "B32": 512, "VAE": 1024})) == 4_723_712


def residual_by_hand(x: np.ndarray, block: ResMLP) -> np.ndarray:
    """The formula in float64: LayerNorm(x + W2 GELU(W1 x)), exact GELU, eps 1e-6."""
    w1 = block.expand.weight.detach().double().numpy()
    w2 = block.contract.weight.detach().double().numpy()
    h = w1 @ x
    y = x + w2 @ (h / 2 * (1 + erf(h / np.sqrt(2))))
    return (y - y.mean()) / np.sqrt(y.var() + 1e-6)


def test_residual_block_follows_its_formula() -> None:
    torch.manual_seed(0)
    block = ResMLP(dim=12, hidden=20).eval()
    x = np.random.default_rng(0).standard_normal(12)
    expected = residual_by_hand(x, block) * block.norm.weight.detach().numpy()
    got = block(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_residual_block_without_norm_leaves_the_sum() -> None:
    block = ResMLP(dim=4, hidden=4, norm=False).eval()
    torch.nn.init.zeros_(block.contract.weight)
    x = torch.tensor([5.0, -2.0, 7.0, 100.0])
    assert torch.equal(block(x), x)


@pytest.mark.slow
def test_mbp_reads_a_trial_channel_by_channel() -> None:
    torch.manual_seed(0)
    mbp = MBP(n_channels=3, n_times=5, dim=8, hidden=8).eval()
    trials = torch.randn(2, 3, 5)
    weights = mbp.project.weight.detach().numpy().reshape(8, 3, 5)
    projected = np.einsum("dct,nct->nd", weights, trials.numpy())
    projected = torch.from_numpy(projected) + mbp.project.bias
    torch.testing.assert_close(mbp(trials), mbp.head(projected), atol=1e-5, rtol=1e-5)


def test_repeats_can_be_summed_before_the_head() -> None:
    torch.manual_seed(0)
    mbp = MBP(n_channels=3, n_times=5, dim=8, hidden=8).eval()
    repeats = torch.randn(4, 3, 5)
    accumulated = mbp.head(mbp.project(repeats.flatten(1)).mean(0, keepdim=True))
    torch.testing.assert_close(accumulated, mbp(repeats.mean(0, keepdim=True)))


def test_hvf_sums_the_maps_of_its_encoders() -> None:
    torch.manual_seed(0)
    hvf = HVF({"a": 3, "b": 4}, dim=8, hidden=8).eval()
    a, b = torch.randn(2, 3), torch.randn(2, 4)
    expected = hvf.head(hvf.maps["a"](a) + hvf.maps["b"](b))
    torch.testing.assert_close(hvf({"b": b, "a": a}), expected)


@pytest.mark.parametrize("shape", [(17, 250), (1, 16, 250), (1, 17, 249), (1, 250, 17)])
def test_mbp_refuses_trials_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="17 channels, 250 times"):
        MBP(n_channels=17, n_times=250)(torch.zeros(shape))


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "c"]])
def test_hvf_refuses_other_encoders(names: list[str]) -> None:
    hvf = HVF({"a": 3, "b": 3}, dim=8, hidden=8)
    with pytest.raises(ValueError, match="encoders"):
        hvf({name: torch.zeros(1, 3) for name in names})


def test_a_gated_hvf_weighs_blocks_of_one_length() -> None:
    torch.manual_seed(0)
    hvf = HVF({"a": 3, "b": 4}, dim=8, hidden=8, gated=True).eval()
    assert hvf.shares == {"a": 0.5, "b": 0.5}
    torch.nn.init.constant_(hvf.gates, 0)
    hvf.gates.data[0] += np.log(3) / 20
    assert hvf.shares == pytest.approx({"a": 0.75, "b": 0.25})
    a, b = torch.randn(2, 3), 100 * torch.randn(2, 4)

    def block(name: str, x: torch.Tensor) -> torch.Tensor:
        y = hvf.maps[name](x)
        centred = y - y.mean(dim=1, keepdim=True)
        return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()

    expected = hvf.head(2 * (0.75 * block("a", a) + 0.25 * block("b", b)))
    torch.testing.assert_close(hvf({"a": a, "b": b}), expected)
    assert HVF({"a": 3}).shares == {}
