"""`bench` reaches every benchmark, with its options, and says what there are."""

import pkgutil
import re
import shutil
from importlib import import_module

import pytest

import stream.bench
from stream.commands.bench import BENCHES
from tests.calling import call

pytestmark = pytest.mark.slow  # it imports what each of them needs


def has_main(name: str) -> bool:
    try:
        return hasattr(import_module(name), "main")
    except ModuleNotFoundError:  # it plays a peer, which need not be installed
        assert name.startswith("stream.bench.peers.")
        return False


def test_every_benchmark_has_a_name() -> None:
    found = [m.name for m in pkgutil.walk_packages(stream.bench.__path__, "stream.bench.")]
    benches = {f"stream.bench.{module}" for module, _ in BENCHES.values()}
    with_main = {name for name in found if has_main(name)}
    assert with_main - benches == {"stream.bench.faults.source"}  # which plays for one


def test_it_says_what_there_are() -> None:
    done = call("bench", "--help")
    assert done.code == 0
    assert all(name in done.out for name in BENCHES)


@pytest.mark.parametrize("name", BENCHES)
def test_each_says_its_options(name: str) -> None:
    done = call("bench", name, "--help")
    assert done.code == 0
    assert re.search(rf"bench {name}\s+\[OPTIONS\]", done.out)  # on a new line after a long path


def test_without_a_name_it_is_the_certificate() -> None:
    assert call("bench", "--minutes", "never").code == 2
    assert "minutes" in call("bench", "--minutes", "never").err


def test_options_are_those_of_the_benchmark() -> None:
    assert "kill-decode" in call("bench", "faults", "--list").out
    assert call("bench", "faults", "--trials", "3").code == 2


def test_a_name_that_is_nearly_right_is_asked_about() -> None:
    done = call("bench", "client")
    assert done.code == 2
    assert "did you mean 'clients'?" in done.one_sentence()


def test_engines_of_a_decoder_give_the_same_answers() -> None:
    done = call("bench", "decoder-latency", "--trials", "2")
    assert done.code == 0
    ways = re.findall(r"(last slice, \w+)\W+[\d.]+\W+[\d.]+\W+([\d.e-]+)", done.out)
    wanted = {"torch", *(("compiled",) if any(map(shutil.which, ("cc", "gcc", "clang"))) else ())}
    assert {f"last slice, {name}" for name in wanted} <= {name for name, _ in ways}
    assert all(float(off) < 1e-5 for _, off in ways)
