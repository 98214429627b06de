"""Every engine gives the network's answers, and one that cannot run is replaced aloud."""

import json
import math
import os
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from decoder.brain.mbp import MBP
from decoder.engines import cache as engine_cache
from decoder.engines import compiled
from decoder.engines import onnx_engines as engines_onnx
from decoder.engines import open as engines
from decoder.engines.cache import engine_files, network_sha256
from decoder.engines.choice import ON_CPU, ON_GPU, PASSES, EngineName
from decoder.engines.graph import Scored, UnitLength
from decoder.engines.open import open_engine
from decoder.engines.passes import CannotRun
from decoder.engines.torch_engines import torch_pass
from hvf_core.problem import Problem
from index.search.flat import Flat
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SHAPE = (4, 25)
DIM = 32
N_TRIALS = 1000
LEFT_OUT = "no CUDA device: the engines cuda_graph and tensorrt are left out"


def has(*packages: str) -> bool:
    return all(engines_onnx.importlib.util.find_spec(package) for package in packages)


needs_onnx = pytest.mark.skipif(
    not has("onnx", "onnxscript", "onnxruntime"), reason="the extra onnx is not installed"
)
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="there is no C compiler"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


def unit_rows(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


GALLERY = unit_rows(200, 1)


@pytest.fixture(scope="module")
def encoder() -> MBP:
    torch.manual_seed(0)
    return MBP(*SHAPE, dim=DIM, hidden=48).eval()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Shared by the tests of this file, so that each network is exported once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def opened(encoder, cache):
    """Opens an engine that must be the one that was chosen."""
    networks = {
        "whole": (UnitLength(encoder), SHAPE),
        "head": (UnitLength(encoder.head), (DIM,)),
        "scored": (Scored(UnitLength(encoder), torch.from_numpy(GALLERY)), SHAPE),
        "scored head": (Scored(UnitLength(encoder.head), torch.from_numpy(GALLERY)), (DIM,)),
    }

    def open_it(kind, choice, precision="fp32"):
        network, shape = networks[kind]
        said = []
        engine = open_engine(
            network, shape, choice, precision=precision, cache=cache, say=said.append
        )
        assert (engine.name, engine.precision, said) == (choice, precision, [])
        return engine

    return open_it


def embeddings(encoder: MBP, trials: np.ndarray) -> np.ndarray:
    """The oracle: all trials in one batch, in double precision."""
    module = encoder.double() if trials.ndim == 3 else encoder.head.double()
    with torch.inference_mode():
        z = module(torch.from_numpy(trials).double()).numpy()
    encoder.float()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def best_five(z: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return np.argsort(-(z @ gallery.T), axis=1)[:, :5]


on_cpu = [
    pytest.param("torch", "fp32"),
    pytest.param("torch", "fp16"),
    pytest.param("onnx", "fp32", marks=needs_onnx),
    pytest.param("onnx", "fp16", marks=needs_onnx),
]
on_gpu = [
    pytest.param(name, precision, marks=[needs_gpu, *marks])
    for name, marks in (("cuda_graph", []), ("tensorrt", [needs_onnx]))
    for precision in ("fp32", "fp16")
]


@pytest.mark.parametrize(
    ("kind", "name", "precision"),
    [
        *(
            pytest.param(kind, *one.values, marks=one.marks)
            for kind in ("whole", "head")
            for one in on_cpu + on_gpu
        ),
        pytest.param("head", "compiled", "fp32", marks=needs_compiler),
    ],
)
def test_the_answers_are_those_of_a_batch_in_double_precision(
    encoder, opened, kind, name, precision
):
    engine = opened(kind, name, precision)
    rng = np.random.default_rng(2)
    trials = rng.standard_normal((N_TRIALS, *engine.shape), np.float32)
    expected = embeddings(encoder, trials)
    found = np.array([engine(trial)[0].copy() for trial in trials])
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    lowest = {"fp32": 0.9999, "fp16": 0.999}[precision]
    assert (found * expected).sum(axis=1).min() >= lowest

    apart = np.sort(expected @ GALLERY.T, axis=1)[:, -6:]
    gap = {"fp32": 1e-5, "fp16": 3e-3}[precision]
    clear = (np.diff(apart, axis=1) > gap).all(axis=1)
    same = (best_five(found, GALLERY) == best_five(expected, GALLERY)).all(axis=1)
    assert clear.sum() >= 300
    assert same[clear].all()
    assert same.mean() >= {"fp32": 0.995, "fp16": 0.9}[precision]


@pytest.mark.parametrize(
    ("name", "precision", "kind"),
    [
        ("torch", "fp32", "scored"),
        pytest.param("onnx", "fp32", "scored", marks=needs_onnx),
        pytest.param("compiled", "fp32", "scored head", marks=needs_compiler),
        pytest.param("cuda_graph", "fp16", "scored", marks=needs_gpu),
    ],
)
def test_scores_of_the_same_pass_are_those_of_the_search(opened, name, precision, kind):
    engine = opened(kind, name, precision)
    search = Flat(GALLERY)
    rng = np.random.default_rng(3)
    for _ in range(100):
        z, cosines = engine(rng.standard_normal(engine.shape, np.float32))
        rows, scores = search.scores(z).top_k(len(GALLERY))
        np.testing.assert_allclose(cosines[rows], scores, atol=1e-6)
        clear = np.diff(scores) < -1e-6
        order = np.argsort(-cosines, kind="stable")
        assert (order == rows)[:-1][clear & np.roll(clear, 1)].all()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("torch", "scored"),
        pytest.param("onnx", "scored", marks=needs_onnx),
        pytest.param("cuda_graph", "scored", marks=needs_gpu),
        pytest.param("onnx", "head", marks=needs_onnx),
        pytest.param("compiled", "head", marks=needs_compiler),
        pytest.param("compiled", "scored head", marks=needs_compiler),
    ],
)
class TestOneCall:
    def test_answers_do_not_depend_on_the_calls_before(self, opened, name, kind):
        engine = opened(kind, name)
        rng = np.random.default_rng(4)
        trials = rng.standard_normal((20, *engine.shape), np.float32)
        once = [[y.copy() for y in engine(trial)] for trial in trials]
        for i in rng.permutation(20):
            for before, now in zip(once[i], engine(trials[i]), strict=True):
                np.testing.assert_array_equal(before, now)

    def test_neither_the_input_nor_another_engine_shares_the_buffers(self, opened, name, kind):
        engine, other = opened(kind, name), opened(kind, name)
        rng = np.random.default_rng(5)
        a, b = rng.standard_normal((2, *engine.shape), np.float32)
        given = a.copy()
        outputs = engine(given)
        np.testing.assert_array_equal(given, a)
        kept = [y.copy() for y in outputs]
        given[:] = np.nan
        other(b)
        for y, before in zip(outputs, kept, strict=True):
            np.testing.assert_array_equal(y, before)
        assert not any(np.may_share_memory(outputs[0], y) for y in outputs[1:])

    def test_nan_goes_through_and_leaves_no_trace(self, opened, name, kind):
        engine = opened(kind, name)
        trial = np.random.default_rng(6).standard_normal(engine.shape).astype(np.float32)
        before = [y.copy() for y in engine(trial)]
        broken = trial.copy()
        broken.flat[3] = np.nan
        assert all(np.isnan(y).all() for y in engine(broken))
        for y, expected in zip(engine(trial), before, strict=True):
            np.testing.assert_array_equal(y, expected)

    def test_another_shape_is_refused(self, opened, name, kind):
        engine = opened(kind, name)
        wrong = [(1, *engine.shape), (*engine.shape[::-1], 1), (engine.shape[0] + 1,), ()]
        for shape in wrong:
            with pytest.raises(ValueError, match="this engine takes"):
                engine(np.zeros(shape, np.float32))

    def test_views_of_any_strides_are_taken(self, opened, name, kind):
        engine = opened(kind, name)
        trial = np.random.default_rng(7).standard_normal(engine.shape).astype(np.float32)
        expected = engine(trial)[0].copy()
        np.testing.assert_array_equal(engine(np.asfortranarray(trial))[0], expected)
        every_other = np.zeros((*engine.shape, 2), np.float32)
        every_other[..., 0] = trial
        np.testing.assert_array_equal(engine(every_other[..., 0])[0], expected)


@needs_compiler
@pytest.mark.parametrize(
    ("dim", "hidden", "n"), [(1, 1, 1), (31, 33, 5), (64, 96, 40), (100, 7, 999)]
)
def test_the_compiled_head_is_that_of_double_precision_whatever_its_widths(dim, hidden, n, cache):
    torch.manual_seed(dim)
    head = MBP(*SHAPE, dim=dim, hidden=hidden).head.eval()
    nn.init.normal_(head.norm.weight)
    nn.init.normal_(head.norm.bias)
    rows = np.random.default_rng(dim).standard_normal((n, dim)).astype(np.float32)
    rows[n // 2 :] = rows[: n - n // 2]  # each image twice
    network = Scored(UnitLength(head), torch.from_numpy(rows))
    engine = open_engine(network, (dim,), "compiled", cache=cache, say=pytest.fail)
    x = torch.randn(1, dim, dtype=torch.float64)
    x, z, cosines = x.numpy()[0], *engine(x[0].float().numpy())
    w1, w2 = (one.weight.detach().double().numpy() for one in (head.expand, head.contract))
    gain, shift = (one.detach().double().numpy() for one in (head.norm.weight, head.norm.bias))
    y = w1 @ x.astype(np.float32)
    y = x.astype(np.float32) + w2 @ [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in y]
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-6) * gain + shift
    np.testing.assert_allclose(z, y / np.linalg.norm(y), atol=1e-5)
    np.testing.assert_allclose(cosines, rows @ z.astype(np.float64), atol=1e-5)
    np.testing.assert_array_equal(cosines[n // 2 : 2 * (n // 2)], cosines[: n // 2])


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (None, "there is no C compiler: install gcc or clang"),
        ("exit 3", "ended with 3 (without a word)"),
        ("echo no space >&2; exit 1", "ended with 1 (no space)"),
        ("printf 'gr\\374n' >&2; exit 1", r"ended with 1 (gr\xfcn)"),
        ("kill -9 $$", "ended with -9 (without a word)"),
        ("exec /bin/sleep 600", "did not end within 0.2 s"),
        ("/bin/sleep 600 & echo $! >> $CHILDREN", "makes cannot be loaded"),
        ("/bin/sleep 600 & echo $! >> $CHILDREN; wait", "did not end within 0.2 s"),
        ('while [ $# -gt 0 ]; do [ "$1" = -o ] && echo half > "$2"; shift; done', "be loaded"),
    ],
)
def test_a_machine_that_cannot_compile_is_told_what_is_used(
    encoder, tmp_path, monkeypatch, program, why
):
    folder, children = tmp_path / "programs", tmp_path / "children"
    folder.mkdir()
    if program is not None:
        for name in ("cc", "gcc", "clang"):
            (folder / name).write_text(f"#!/bin/sh\n{program}\n")
            (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CHILDREN", str(children))
    monkeypatch.setattr(engines, "ON_CPU", ("compiled", "torch"))  # ONNX takes seconds to export
    if "within" in why:
        monkeypatch.setattr(compiled, "_WAIT_S", 0.2)
    said = []
    engine = open_engine(
        UnitLength(encoder.head), (DIM,), "compiled", cache=tmp_path, say=said.append
    )
    assert engine.name != "compiled"
    assert f"{why}; {engine.name} is used" in said[0]
    assert len(said) == 1
    for pid in children.read_text().split() if children.exists() else ():
        wait_until(lambda pid=int(pid): is_over(pid))


def is_over(pid: int) -> bool:
    """Whether a process has ended, though its new parent may not have asked after it."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_embedding_of_zeros_becomes_nan(tmp_path):
    network = UnitLength(nn.Linear(3, 5, bias=False))
    engine = open_engine(network, (3,), "torch", cache=tmp_path, say=print)
    assert np.isnan(engine(np.zeros(3, np.float32))[0]).all()


def test_the_engine_keeps_its_own_weights(tmp_path):
    network = UnitLength(nn.Linear(3, 5)).train()
    engine = open_engine(network, (3,), "torch", cache=tmp_path, say=print)
    before = engine(np.ones(3, np.float32))[0].copy()
    nn.init.ones_(network.network.weight)
    np.testing.assert_array_equal(engine(np.ones(3, np.float32))[0], before)
    assert network.training


def test_every_name_has_its_pass_and_its_place():
    assert tuple(PASSES) == get_args(EngineName)
    assert set(PASSES) == {*ON_CPU, *ON_GPU}


class TestChoice:
    """Which engine is taken, with engines that only note that they were tried."""

    @pytest.fixture
    def choose(self, monkeypatch, tmp_path):
        def choose(choice, faults=(), gpu=False, network=None):
            faults, tried, said = dict(faults), [], []
            monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

            def note(name):
                def make(wanted):
                    tried.append(name)
                    if name in faults:
                        raise faults[name]
                    return torch_pass(replace(wanted, device=torch.device("cpu")))

                return make

            passes = {path: note(name) for name, path in PASSES.items()}
            with monkeypatch.context() as patch:
                patch.setattr(engines, "resolve_name", passes.__getitem__)
                shape = (3,) if network is None else (DIM,)
                network = UnitLength(network or nn.Linear(3, 5))
                options = {"cache": tmp_path, "say": said.append}
                try:
                    engine = open_engine(network, shape, choice, **options)
                except Problem as problem:
                    return problem, tried, said
            return engine.name, tried, said

        return choose

    def test_auto_on_a_cpu_leaves_out_the_others_in_one_sentence(self, choose):
        assert choose("auto") == ("onnx", ["onnx"], [LEFT_OUT])

    def test_auto_on_a_cpu_compiles_what_can_be_compiled(self, choose):
        head = MBP(*SHAPE, dim=DIM).head
        assert choose("auto", network=head) == ("compiled", ["compiled"], [LEFT_OUT])
        faults = {"compiled": CannotRun("there is no C compiler")}
        sentence = "engine compiled cannot run: there is no C compiler; onnx is used"
        assert choose("auto", faults, network=head)[2] == [LEFT_OUT, sentence]

    def test_auto_on_a_gpu_captures_a_graph(self, choose):
        assert choose("auto", gpu=True) == ("cuda_graph", ["cuda_graph"], [])

    def test_every_reason_is_said_in_the_order_of_the_attempts(self, choose):
        faults = {
            "cuda_graph": RuntimeError("CUDA error: out of memory\nCompile with ..."),
            "tensorrt": CannotRun("no TensorRT"),
        }
        assert choose("auto", faults, gpu=True) == (
            "torch",
            ["cuda_graph", "tensorrt", "torch"],
            [
                "engine cuda_graph cannot run: CUDA error: out of memory; tensorrt is used",
                "engine tensorrt cannot run: no TensorRT; torch is used",
            ],
        )

    @pytest.mark.parametrize("choice", ["cuda_graph", "tensorrt"])
    def test_an_engine_without_its_device_is_not_even_tried(self, choose, choice):
        sentence = f"engine {choice} cannot run: no CUDA device; onnx is used"
        assert choose(choice) == ("onnx", ["onnx"], [sentence])

    def test_one_for_cpus_is_not_tried_on_a_gpu(self, choose):
        sentence = "engine compiled cannot run: the device is a GPU; cuda_graph is used"
        assert choose("compiled", gpu=True) == ("cuda_graph", ["cuda_graph"], [sentence])

    @pytest.mark.parametrize("choice", ["torch", "onnx"])
    def test_what_was_chosen_is_tried_first(self, choose, choice):
        assert choose(choice) == (choice, [choice], [])
        assert choose(choice, gpu=True) == (choice, [choice], [])

    def test_one_that_was_chosen_and_cannot_run_is_replaced(self, choose):
        name, tried, said = choose("tensorrt", {"tensorrt": CannotRun("too old")}, gpu=True)
        assert (name, tried) == ("cuda_graph", ["tensorrt", "cuda_graph"])
        assert said == ["engine tensorrt cannot run: too old; cuda_graph is used"]

    def test_when_none_can_run_a_problem_says_so(self, choose):
        faults = dict.fromkeys(ON_CPU, RuntimeError("not implemented for 'Half'"))
        faults["onnx"] = OSError("disk full")
        problem, tried, _ = choose("auto", faults, network=MBP(*SHAPE, dim=DIM).head)
        assert tuple(tried) == ON_CPU
        assert "no engine can run" in str(problem)
        assert "not implemented for 'Half'" in str(problem)

    def test_an_engine_with_other_answers_is_not_taken(self, choose, monkeypatch):
        cosines = iter([0.97, float("nan"), 1.0])
        monkeypatch.setattr(engines, "_lowest_cosine", lambda *_: next(cosines))
        name, _, said = choose("auto", gpu=True)
        assert name == "torch"
        assert "cosine of 0.97000" in said[0]
        assert "cosine of nan" in said[1]


@without_gpu
def test_without_onnxruntime_torch_is_used_and_it_is_said(encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = []
    network = UnitLength(encoder)
    engine = open_engine(network, SHAPE, "auto", cache=tmp_path, say=said.append)
    assert engine.name == "torch"
    assert said[0] == LEFT_OUT
    assert "onnxruntime is not installed" in said[1]
    assert said[1].endswith("torch is used")
    assert len(said) == 2


@needs_onnx
@without_gpu
class TestCachedNetwork:
    def open_onnx(self, encoder, cache):
        said = []
        network = UnitLength(encoder.head)
        engine = open_engine(network, (DIM,), "onnx", cache=cache, say=said.append)
        assert engine.name == "onnx"
        x = np.random.default_rng(8).standard_normal(DIM).astype(np.float32)
        np.testing.assert_allclose(engine(x)[0], embeddings(encoder, x[None])[0], atol=1e-6)
        return said

    def test_a_damaged_one_is_made_anew(self, encoder, opened, cache, tmp_path):
        opened("head", "onnx")
        shutil.copytree(cache, tmp_path / "copy")
        for file in tmp_path.rglob("network.onnx"):
            file.write_bytes(b"no ONNX")
        (sentence,) = self.open_onnx(encoder, tmp_path / "copy")
        assert sentence.startswith(f"the cached engine {tmp_path}")
        assert sentence.endswith("is damaged, so it is made anew")
        assert self.open_onnx(encoder, tmp_path / "copy") == []

    def test_a_whole_one_is_not_exported_again(self, encoder, opened, cache, monkeypatch):
        opened("head", "onnx")
        monkeypatch.setattr(engines_onnx, "export_onnx", None)
        assert self.open_onnx(encoder, cache) == []


class TestCache:
    """The folder of an engine's files, with files that take no time to make."""

    FACTS = {"key": "a", "precision": "fp32"}  # noqa: RUF012

    def open_files(self, cache, facts=None, name="onnx"):
        made, said = [], []

        def make(folder):
            made.append(folder)
            (folder / "network.onnx").write_bytes(b"graph")
            (folder / "weights").write_bytes(b"numbers")

        with engine_files(cache, name, facts or self.FACTS, make, said.append) as folder:
            assert (folder / "network.onnx").read_bytes() == b"graph"
            assert (folder / "weights").read_bytes() == b"numbers"
        return folder, len(made), said

    def test_files_are_made_once(self, tmp_path):
        folder, n_made, said = self.open_files(tmp_path / "new")
        assert (n_made, said) == (1, [])
        assert self.open_files(tmp_path / "new") == (folder, 0, [])
        manifest = json.loads((folder / "engine.json").read_text())
        assert manifest["facts"] == self.FACTS
        assert set(manifest["sha256"]) == {"network.onnx", "weights"}

    def test_every_fact_and_the_name_are_in_the_folder(self, tmp_path):
        other_facts = [{"key": "b"}, {"precision": "fp16"}, {"gpu": "H100"}]
        folders = {self.open_files(tmp_path, self.FACTS | other)[0] for other in other_facts}
        folders |= {self.open_files(tmp_path)[0], self.open_files(tmp_path, name="tensorrt")[0]}
        assert len(folders) == 5

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "weights").write_bytes(b"numberz"),
            lambda folder: (folder / "weights").unlink(),
            lambda folder: (folder / "engine.json").unlink(),
            lambda folder: (folder / "engine.json").write_text("{"),
            lambda folder: (folder / "engine.json").write_text('{"schema_version": 1}'),
            lambda folder: [path.unlink() for path in folder.iterdir()],
        ],
    )
    def test_what_is_damaged_is_made_anew(self, tmp_path, damage):
        folder, *_ = self.open_files(tmp_path)
        damage(folder)
        sentence = f"the cached engine {folder} is damaged, so it is made anew"
        assert self.open_files(tmp_path) == (folder, 1, [sentence])
        assert self.open_files(tmp_path) == (folder, 0, [])

    def test_one_that_was_left_half_made_is_no_engine(self, tmp_path):
        def stop(folder):
            (folder / "network.onnx").write_bytes(b"gra")
            raise KeyboardInterrupt

        with (
            pytest.raises(KeyboardInterrupt),
            engine_files(tmp_path, "onnx", self.FACTS, stop, print),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_cache_that_cannot_be_written_is_replaced_for_this_time(self, tmp_path):
        in_the_way = tmp_path / "file"
        in_the_way.write_text("")
        folder, n_made, (sentence,) = self.open_files(in_the_way / "cache")
        assert n_made == 1
        assert "cannot be used" in sentence
        assert str(in_the_way) in sentence
        assert not folder.exists()

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_read_only_cache_is_replaced_and_a_whole_one_is_read(self, tmp_path):
        folder, *_ = self.open_files(tmp_path)
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            assert self.open_files(tmp_path) == (folder, 0, [])
            *_, said = self.open_files(tmp_path, {"key": "b"})
            assert "Permission denied" in said[0]
        finally:
            tmp_path.chmod(stat.S_IRWXU)


def test_the_hash_of_a_network_covers_weights_layers_and_their_settings():
    def made(dim=4, eps=1e-5, weight=1.0, half=False):
        network = nn.Sequential(nn.LayerNorm(dim, eps=eps), nn.Dropout(0.1))
        nn.init.constant_(network[0].weight, weight)
        return network.half() if half else network

    assert network_sha256(made()) == network_sha256(made())
    others = [made(5), made(eps=1e-6), made(weight=1 + 2**-20), made(half=True)]
    assert len({network_sha256(network) for network in (made(), *others)}) == 5


@needs_onnx
@without_gpu
def test_the_cache_knows_shape_precision_weights_and_program(tmp_path, monkeypatch):
    seen = []

    def note(cache, name, facts, make, say):
        seen.append(json.dumps(facts, sort_keys=True))
        raise CannotRun("only looked")

    monkeypatch.setattr(engines_onnx, "engine_files", note)
    torch.manual_seed(0)
    first, second = (UnitLength(nn.Sequential(nn.Flatten(), nn.Linear(6, 5))) for _ in range(2))
    calls = [
        (first, (6,), "fp32"),
        (first, (6,), "fp32"),
        (first, (6,), "fp16"),
        (first, (2, 3), "fp32"),
        (second, (6,), "fp32"),
    ]
    for network, shape, precision in calls:
        open_engine(network, shape, "onnx", precision=precision, cache=tmp_path, say=str)
    monkeypatch.setattr(engines_onnx, "program_sha256", lambda: "another program")
    open_engine(first, (6,), "onnx", cache=tmp_path, say=str)
    assert seen[0] == seen[1]
    assert len(set(seen)) == 5
    assert {"torch", "onnx", "onnxruntime", "opset"} <= set(json.loads(seen[0]))
    assert engine_cache.program_sha256() == engine_cache.program_sha256()
