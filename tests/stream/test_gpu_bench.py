"""`bench gpu`, tried out on the CPU: all of its ways are gone, and what is missing is said."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.devices import device_of
from hvf_core.problem import Problem
from stream.bench.gpu import sections
from stream.bench.gpu.answers import FACTOR, K, graph_of_answers
from stream.bench.gpu.card import Card, Limits, flops_of, spread
from stream.bench.gpu.rows import SECTIONS
from stream.bench.gpu.sections import Cell, apart, measured
from stream.bench.gpu.tables import markdown
from tests.calling import call

pytestmark = pytest.mark.slow
CARD = Card(torch.device("cpu"), tiny=True)
NEEDS_A_CARD = ("cuda_graph", "tensorrt", "FAISS")


@pytest.fixture(autouse=True)
def as_many_threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def soon() -> float:
    return time.monotonic() + 600


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_measures_all_that_needs_no_card(name: str) -> None:
    rows = list(measured(name, CARD, soon()))
    assert rows
    for row in rows:
        assert (row["bench"], row["section"]) == ("gpu", name)
        only_on_a_card = any(word in row["what"] for word in NEEDS_A_CARD)
        assert ("why_not" in row) == only_on_a_card, row
        json.dumps(row)


def test_the_command_writes_lines_and_tables_of_them(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    done = call("bench", "gpu", "--tiny", "--only", "limits", "--markdown", "--out", str(out))
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["machine"]["device"] for row in rows} == {"cpu"}
    assert rows[0]["copy_gb_per_s"] > 0
    again = call("bench", "gpu", "--read", str(out))
    assert again.out.strip() in done.out
    assert "| a copy on the card" in again.out


@pytest.mark.parametrize("text", ["", "root:x:0:0\n", "[1]\n", '{"section": "limits"}\n'])
def test_what_is_none_of_its_files_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "gpu.jsonl").write_text(text)
    done = call("bench", "gpu", "--read", str(tmp_path / "gpu.jsonl"))
    assert done.code == 1
    assert "holds no measurements of a card" in done.one_sentence()


def test_without_a_card_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = call("bench", "gpu")
    assert done.code == 1
    assert "no CUDA card" in done.one_sentence()
    assert call("bench", "gpu", "--tiny", "--only", "nothing").code == 2


def test_a_process_of_its_own_says_the_same_and_its_end_is_told() -> None:
    (row, *_) = apart("limits", "cpu", True, soon())
    assert row["copy_gb_per_s"] > 0
    (row,) = apart("no such section", "cpu", True, soon())  # a fault of the program, say
    assert "ended with status 1" in row["why_not"]


def test_what_there_is_no_time_for_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def cells(card: Card):
        yield Cell("long", 60, lambda: pytest.fail("there was no time"))
        yield Cell("short", 5, lambda: {"p50_ms": 1.0})

    monkeypatch.setattr(sections, "resolve_name", lambda name: cells)
    long, short = measured("answers", CARD, time.monotonic() + 30)
    assert "it takes about 60" in long["why_not"]
    assert short["p50_ms"] == 1


def test_a_fault_is_a_sentence_and_what_follows_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(error: Exception):
        raise error

    def cells(card: Card):
        yield Cell("a", 0, lambda: fail(torch.OutOfMemoryError("CUDA out of memory.\nTried ...")))
        yield Cell("b", 0, lambda: fail(ModuleNotFoundError("...", name="faiss.swig")))
        yield Cell("c", 0, lambda: {"n": 1})
        raise Problem("no more of it")

    monkeypatch.setattr(sections, "resolve_name", lambda name: cells)
    a, b, c, rest = measured("answers", CARD, soon())
    assert [a["why_not"], b["why_not"]] == ["CUDA out of memory.", "faiss is not installed"]
    assert c["n"] == 1
    assert (rest["what"], rest["why_not"]) == ("all that follows", "no more of it")


def test_one_graph_answers_as_the_network_and_the_gallery_do() -> None:
    class Same(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x,)

    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((40, 7), np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    answer = graph_of_answers(CARD, Same(), torch.from_numpy(gallery), (7,))
    for row in (3, 17):
        rows, cosines, total, z = answer(gallery[row])
        expected = gallery @ gallery[row]
        assert rows.tolist() == np.argsort(-expected)[:K].tolist()
        np.testing.assert_allclose(cosines, np.sort(expected)[::-1][:K], rtol=1e-5)
        assert total[0] == pytest.approx(np.log(np.exp(FACTOR * expected).sum()), rel=1e-5)
        np.testing.assert_array_equal(z, gallery[row])


def test_the_least_time_is_the_longer_of_bytes_and_operations() -> None:
    limits = Limits(copy_gb_per_s=1000, half_tflops=100, single_tflops=10)
    assert limits.floor_ms(2e9, 1e6, half=True) == pytest.approx(2)
    assert limits.floor_ms(8, 1e11, half=True) == pytest.approx(1)
    assert limits.floor_ms(8, 1e11, half=False) == pytest.approx(10)


def test_operations_are_counted_under_inference_too() -> None:
    layer, x = torch.nn.Linear(5, 3), torch.ones(2, 5)
    work = torch.inference_mode()(lambda: layer(x))
    assert flops_of(work) == 2 * 2 * 5 * 3


def test_conditions_have_rows_of_their_own_in_a_table() -> None:
    machine = {"torch": "2", "cpu": "c", "cores": 1, "memory_gb": 1.0, "system": "s"}
    machine |= {
        "governor": None,
        "keeps_awake": False,
        "is_virtual": False,
        "gpus": [],
        "load": 0.0,
    }
    found = spread(np.array([1.0, 3.0]))
    row = {"section": "together", "what": "answers", "machine": machine, "idle": found}
    table = markdown([row, {"section": "together", "what": "b", "why_not": "no time"}])
    assert "| answers: idle | 2 | 2.98 |  |" in table
    assert "| b |  |  | no time |" in table


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_device_that_is_not_there_is_a_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Problem, match=f"the device '{name}' is not there, torch sees no CUDA"):
        device_of(name)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
