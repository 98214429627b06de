"""The shape of the house: imports point down, the reader stays light, the style holds."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_imports_point_down_the_house() -> None:
    done = _run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_style(check: list[str]) -> None:
    done = _run(sys.executable, "-m", "ruff", *check, ".")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("node", ["reader", "record", "results", "paint"])
def test_nodes_import_no_torch_before_they_need_it(node: str) -> None:
    program = f"import sys, stream.pipeline.nodes.{node}; print('torch' in sys.modules)"
    done = _run(sys.executable, "-c", program)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_live_parts_do_not_import_training() -> None:
    program = (
        "import sys, run_realtime, stream.pipeline.nodes.decode, stream.pipeline.nodes.reader; "
        "print([m for m in sys.modules if m.startswith(('offline_train', 'demo'))])"
    )
    done = _run(sys.executable, "-c", program)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_module_of_ours_is_short_or_says_why() -> None:
    packages = ("hvf_core", "decoder", "index", "stream", "offline_train", "demo")
    long = [
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if len(path.read_text().splitlines()) > 400
    ]
    assert long == []
