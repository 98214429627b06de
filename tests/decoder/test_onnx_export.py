"""Exported networks are static, quiet to write, and answer as torch does."""

import copy
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from decoder.brain.mbp import MBP
from decoder.engines import export as onnx_export
from decoder.engines.export import ExportCheck, export_onnx
from decoder.engines.graph import Scored, UnitLength, in_half
from hvf_core.problem import Problem

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

SHAPE = (4, 25)


def test_onnx_runtime_leaves_nothing_in_the_temporary_folder(tmp_path):
    program = "import decoder.engines.export, onnxruntime"
    env = os.environ | {"TMPDIR": str(tmp_path)}
    env.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=120)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def network() -> UnitLength:
    torch.manual_seed(0)
    return UnitLength(MBP(*SHAPE, dim=32, hidden=48)).eval()


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    scored = Scored(network, nn.functional.normalize(torch.randn(20, 32), dim=1))
    checks = {
        "fp32": export_onnx(network, SHAPE, folder / "fp32", "fp32", n_inputs=200),
        "fp16": export_onnx(scored, SHAPE, folder / "fp16", "fp16", n_inputs=200),
    }
    return checks, {name: onnx.load(folder / name) for name in checks}


def test_the_check_counts_how_far_the_answers_are_apart(files):
    checks, _ = files
    assert checks["fp32"].n_inputs == 200
    assert checks["fp32"].lowest_cosine >= 0.9999
    assert checks["fp32"].same_top5 >= 0.99
    assert checks["fp16"].lowest_cosine >= 0.999
    assert 0.8 <= checks["fp16"].same_top5 <= 1


def test_no_axis_is_dynamic(files):
    for model in files[1].values():
        onnx.checker.check_model(model, full_check=True)
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            dims = value.type.tensor_type.shape.dim
            assert all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims), value.name


def test_names_shapes_and_types_of_what_goes_in_and_out(files):
    def described(values):
        return [
            (
                value.name,
                tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
                value.type.tensor_type.elem_type,
            )
            for value in values
        ]

    single = onnx.TensorProto.FLOAT
    for model in files[1].values():
        assert described(model.graph.input) == [("eeg", (1, *SHAPE), single)]
    assert described(files[1]["fp32"].graph.output) == [("z", (1, 32), single)]
    assert described(files[1]["fp16"].graph.output) == [
        ("z", (1, 32), single),
        ("cosines", (1, 20), single),
    ]


def test_the_graph_has_only_the_nodes_of_the_formula(files):
    expected = {"Reshape", "Gemm", "Gelu", "Add", "LayerNormalization", "ReduceL2", "Div"}
    found = {node.op_type for node in files[1]["fp32"].graph.node}
    assert found == expected
    assert files[1]["fp32"].opset_import[0].version == 20
    halves = {node.op_type for node in files[1]["fp16"].graph.node}
    assert halves <= expected | {"Cast", "MatMul", "Transpose"}


def test_half_precision_is_written_into_the_graph_and_spares_the_norms(files):
    graph = files[1]["fp16"].graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    weights = [t for t in graph.initializer if len(t.dims) == 2 and 20 not in t.dims]
    assert [tensor.data_type for tensor in weights] == [half] * 3
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            assert {types[name] for name in node.input[1:]} == {single}


def test_in_half_leaves_the_network_as_it_is(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    half = in_half(network)
    assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert {layer.weight.dtype for layer in half.modules() if isinstance(layer, nn.Linear)} == {
        torch.float16
    }
    (z,) = half(torch.randn(1, *SHAPE))
    assert z.dtype == torch.float32


def test_sums_and_norms_in_half_precision_do_not_overflow():
    """A residual block in float16 throughout would: 60,000 + 60,000 is infinite there."""

    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Linear(8, 8, bias=False)
            nn.init.eye_(self.same.weight)

        def forward(self, x):
            return x + self.same(x)

    (z,) = in_half(UnitLength(Doubled()))(torch.full((1, 8), 60_000.0))
    torch.testing.assert_close(z, torch.full((1, 8), 8**-0.5))


def test_the_exporter_is_not_heard(network, tmp_path, capfd, recwarn, caplog):
    export_onnx(network, SHAPE, tmp_path / "f", "fp32", n_inputs=1)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_network_in_training_mode_is_exported_without_dropout_and_stays_in_it(tmp_path):
    network = UnitLength(nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.Dropout(0.9)))
    check = export_onnx(network, (2, 3), tmp_path / "f", "fp32")
    assert check.lowest_cosine >= 0.9999
    assert network.training


def test_an_export_a_little_off_torch_is_refused(network, files, tmp_path, monkeypatch):
    def write_another(graph, shape, path):
        onnx.save(files[1]["fp32"], path)

    network = copy.deepcopy(network)
    with torch.no_grad():
        network.network.project.weight += 2e-3 * torch.randn(32, 100)
    monkeypatch.setattr(onnx_export, "_write", write_another)
    with pytest.raises(Problem, match=r"cosine of 0\.99.* at least 0.9999 was expected"):
        export_onnx(network, SHAPE, tmp_path / "f", "fp32", n_inputs=2)


def test_the_check_is_what_plain_loops_count(network, tmp_path, monkeypatch):
    pairs = []

    class NoisySession:
        def __init__(self, *_, **__):
            self.rng = np.random.default_rng(0)

        def run(self, _, feed):
            with torch.inference_mode():
                z = network(torch.from_numpy(feed["eeg"]))[0].numpy()
            noisy = z + 1e-3 * self.rng.standard_normal(z.shape, np.float32)
            noisy /= np.linalg.norm(noisy)
            pairs.append((z[0], noisy[0]))
            return [noisy]

    monkeypatch.setattr(onnx_export, "_write", lambda *_: None)
    monkeypatch.setattr("onnxruntime.InferenceSession", NoisySession)
    gallery = np.random.default_rng(1).standard_normal((500, 32)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)

    def top5(z):
        return sorted(range(500), key=lambda row: -float(gallery[row] @ z))[:5]

    check = export_onnx(network, SHAPE, tmp_path / "f", "fp32", gallery, n_inputs=60)
    same = sum(top5(a) == top5(b) for a, b in pairs) / 60
    assert 0.3 < same < 1
    lowest = min(float(a @ b) for a, b in pairs)
    assert check == ExportCheck(60, pytest.approx(lowest, abs=1e-6), pytest.approx(same))


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(network, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Problem, match=rf"{package} is not installed.*\[onnx\]"):
        export_onnx(network, SHAPE, tmp_path / "f", "fp32")


def test_a_network_that_onnx_cannot_express_is_named(tmp_path):
    class Unusual(nn.Module):
        def forward(self, x):
            return (torch.special.bessel_j0(x),)

    with pytest.raises(Problem, match="Unusual cannot be written as ONNX"):
        export_onnx(Unusual(), (2, 3), tmp_path / "f", "fp32")
