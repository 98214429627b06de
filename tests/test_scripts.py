"""The console scripts are the two programs, and say their own name."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("ending", ["", ".exe"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_the_script_that_was_called(name: str, ending: str) -> None:
    calls = f"import pkgutil, sys; sys.argv[0] = '/bin/{name}{ending}'; "
    calls += f"pkgutil.resolve_name('{SCRIPTS[name]}')()"
    done = subprocess.run(
        [sys.executable, "-c", calls, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: {name} [OPTIONS] COMMAND" in done.stdout
