"""Every LSL stream of the tests is in a session of its own."""

import gc
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from demo.model import DemoModel

# The same examples in every run, however busy the machine is: what fails here fails everywhere.
# The fast tests try some of them, the whole suite as many as each property asks for.
_FAST_EXAMPLES = 15
settings.register_profile(
    "fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fixed")
# In the background, and under nohup, these are ignored, and so they would be by every session.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# A second thread only spins where matrices are small, and takes the core of the worker beside it.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
if not _ONE_THREAD.items() <= os.environ.items():  # child processes inherit it
    assert "numpy" not in sys.modules, "its BLAS reads this once, when it is imported"
    os.environ.update(_ONE_THREAD)
# What tests leave in the temporary folder goes with it; those of pytest are kept, as it does.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
tempfile.tempdir = tempfile.mkdtemp(prefix="hvf-tests-")
_CONFIG = Path(tempfile.tempdir) / "lsl_api.cfg"
# The usual 32 ports are used up where several run beside each other, or where a test's outlets
# wait for the garbage collector; then streams are not found.
_PORT = 10_000 + 252 * (os.getpid() % 87)
_CONFIG.write_text(
    f"[lab]\nSessionID = hvf-tests-{uuid.uuid4()}\n"
    f"[ports]\nMulticastPort = {_PORT}\nBasePort = {_PORT + 1}\nPortRange = 251\n"
    "[multicast]\nResolveScope = machine\n"
    "[log]\nlevel = -2\n"
)
os.environ["LSLAPICFG"] = str(_CONFIG)  # LSL reads it at its first use; child processes inherit it
# What a person's terminal and habits are changes nothing.
os.environ["TERM"] = "xterm-256color"
for _name in (
    *("COLUMNS", "LINES", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"),
    # Without it every process of a session compiles the whole program anew.
    *("TTY_COMPATIBLE", "HVF_LIVE_CACHE", "PYTHONDONTWRITEBYTECODE"),
):
    os.environ.pop(_name, None)


_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGPIPE", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
]
_IS_SLOW = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow", re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    from tests.forked import Popen

    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        if config.option.markexpr != "not slow":  # fast tests import little
            subprocess.Popen = Popen  # type: ignore[misc]
        return  # its workers import the tests
    gc.disable()  # until all is imported, as looking through that again and again takes its time

    from hvf_core.torchvision_ops import declare_missing_ops
    from stream import client

    declare_missing_ops()  # before any test module imports diffusers
    client.PLACE = _CONFIG.parent / client.PLACE.name  # a copy has imported it elsewhere
    told = getattr(config, "workerinput", {"place": tempfile.tempdir, "owner": os.getpid()})
    Popen.place, Popen.owner = Path(told["place"]), told["owner"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """What workers share is where their copies come from."""
    node.workerinput |= {"place": tempfile.tempdir, "owner": os.getpid()}


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Sessions mostly wait, so three more than cores; fast tests compute. Each takes a GB."""
    return min(8, (os.cpu_count() or 1) + 3 * (config.option.markexpr != "not slow"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is slow as a whole is not even imported for the fast tests: networks take seconds."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return bool(_IS_SLOW.search(collection_path.read_text("utf-8"))) or None


def pytest_unconfigure() -> None:
    shutil.rmtree(_CONFIG.parent, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is slow may take longer, and begins first: what is left for the end is short.

    Sessions, which mostly wait, are at the end of what is slow, and what computes is before them:
    from both ends in turn, the one fills the time of the other.
    """
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(600))
        elif config.option.markexpr == "not slow":
            _try_some_examples(item.obj)
    files = list(dict.fromkeys(item.path for item in items if item.get_closest_marker("slow")))
    in_turn = list(dict.fromkeys(chain.from_iterable(zip(files, reversed(files), strict=True))))
    turns = {path: turn for turn, path in enumerate(in_turn)}
    items.sort(key=lambda item: turns.get(item.path, len(turns)))


def _try_some_examples(test: object) -> None:
    """Of a property; state machines, whose settings are their classes', go as far as they ask."""
    name = "_hypothesis_internal_use_settings"
    if (asked := getattr(test, name, None)) is not None:
        some = min(asked.max_examples, _FAST_EXAMPLES)
        setattr(test, name, settings(asked, max_examples=some))


def pytest_collection_finish() -> None:
    """What was imported stays: to look through it for garbage takes a third of a second a time.

    And garbage is looked for more rarely, as every look calls hypothesis too.
    """
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What is drawn without a generator of its own is the same, whichever tests came before."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.fixture(autouse=True)
def _all_is_put_back() -> Iterator[None]:
    """What a test leaves changed of its process would be inherited by all that is started later."""
    from tests.sessions import end_what_was_left

    environment, folder = dict(os.environ), Path.cwd()
    handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
    can_block = hasattr(signal, "pthread_sigmask")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, []) if can_block else ()
    yield
    end_what_was_left()
    os.chdir(folder)
    for number, handler in handlers:
        if handler is not None and signal.getsignal(number) != handler:  # None is no one of Python
            signal.signal(number, handler)
    if can_block:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for name in [name for name in os.environ if name not in environment]:
        del os.environ[name]
    os.environ.update(
        {name: value for name, value in environment.items() if os.environ.get(name) != value}
    )


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache that the demo's first run leaves on a fresh machine; of all workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo-cache"


@pytest.fixture(scope="module")
def demo_model(demo_cache: Path) -> Iterator["DemoModel"]:
    """The demo's model, which the commands of a module find in their cache."""
    from demo.model import ready_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HVF_LIVE_CACHE", str(demo_cache))
        yield ready_model()
