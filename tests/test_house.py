"""The shape of the house: imports point down, the reader stays light, the style holds."""

import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hvf_core", "decoder", "index", "stream", "offline_train", "demo")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_imports_point_down_the_house() -> None:
    done = _run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_style(check: list[str]) -> None:
    done = _run(sys.executable, "-m", "ruff", *check, ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_type_checked_is_named() -> None:
    # mypy itself is a step of its own: cold, it reads torch for a minute.
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["strict"]
    assert set(mypy["packages"]) == set(PACKAGES)
    examples = {file.stem for file in (ROOT / "examples").glob("*.py")}
    assert set(mypy["modules"]) == {"run_realtime", *examples}
    for override in mypy["overrides"]:  # of other people's packages alone, and two kinds of them
        assert len(override) == 2
        assert override.keys() & {"ignore_missing_imports", "implicit_reexport"}
        assert {name.split(".")[0] for name in override["module"]}.isdisjoint(PACKAGES)
    unnamed = re.compile(r"#\s*(type:\s*ignore(?!\[)|mypy:)")
    files = (*_modules().values(), *(ROOT / "tests").rglob("*.py"))
    assert [str(file) for file in files if unnamed.search(file.read_text())] == []
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)


def test_nodes_import_nothing_heavy_before_they_need_it() -> None:
    """In one process, so that the first that does so is told: each starts with every session."""
    light = {"torch", "scipy", "PIL", "mne", "rich", "urllib.request"}
    heavy = dict.fromkeys(("reader", "record", "results"), light) | {"paint": {"torch"}}
    program = "import sys"
    for node, modules in heavy.items():
        program += f"; import stream.pipeline.nodes.{node}; print({modules} & {{*sys.modules}})"
    program += "; import run_realtime, stream.commands.app"
    program += "; print({name.split('.')[0] for name in sys.modules} & {'offline_train', 'demo'})"
    done = _run(sys.executable, "-c", program)
    found = dict(zip([*heavy, "training"], done.stdout.split("\n"), strict=False))
    assert found == dict.fromkeys([*heavy, "training"], "set()"), done.stderr


@cache
def _modules() -> dict[str, Path]:
    """Our modules by name."""
    files = [ROOT / "run_realtime.py", *(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))]
    dotted = {f: ".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files}
    return {name.removesuffix(".__init__"): file for file, name in dotted.items()}


@cache
def _imports() -> dict[str, set[str]]:
    """What each module of our packages imports of theirs, inside functions too."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_no_circle_of_imports_even_inside_functions() -> None:
    left = _imports()
    assert {"run_realtime", *left} == _modules().keys()
    n_before = None
    while n_before != len(left):
        n_before = len(left)
        imported_by_some = set().union(*left.values())
        left = {m: left[m] & left.keys() for m in left if m in imported_by_some}
        left = {m: imported for m, imported in left.items() if imported}
    assert not left, f"a circle of imports among {sorted(left)}"


def test_only_run_realtime_imports_the_live_commands() -> None:
    users = {
        module
        for module, imported in _imports().items()
        if any(f"{name}.".startswith("stream.commands.") for name in imported)
    }
    assert {user for user in users if not user.startswith("stream.commands")} == set()


def test_files_and_folders_stay_small() -> None:
    files = _modules().values()
    long = {str(file.relative_to(ROOT)) for file in files if file.read_text().count("\n") > 400}
    assert long == {"stream/client.py"}  # one file with its types, as it is copied as one
    folders = Counter(file.parent.relative_to(ROOT) for file in files if file.stem != "__init__")
    folders.subtract({Path("stream/acquire"): 7})  # which reads in the order of the data
    assert {str(folder): n for folder, n in folders.items() if n > 13} == {}


def test_whatever_starts_whole_commands_is_marked_slow() -> None:
    for file in (ROOT / "tests").rglob("test_*.py"):
        text = file.read_text()
        taken = re.search(r"from tests\.sessions import (\([^)]*\)|.*)", text)
        starts = taken and re.search(r"\b(run|start|listen)\b", taken[1])
        assert not starts or "mark.slow" in text, f"{file.name}: pytestmark = pytest.mark.slow"


def test_every_module_says_what_it_is() -> None:
    assert [name for name, file in _modules().items() if file.read_text()[:3] != '"""'] == []


def test_source_files_are_found_in_subfolders_too() -> None:
    # Fingerprints of code would go stale in silence when files move into rooms.
    flat = re.compile(r"""\bglob\(["'](?!\*\*/)[^"']*\.py["']""")
    assert [name for name, file in _modules().items() if flat.search(file.read_text())] == []
