"""The console scripts are the two programs, and say their own name."""

import os
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
def test_help_names_the_script_as_it_can_be_called(name: str, ending: str, tmp_path: Path) -> None:
    (tmp_path / name).touch(0o755)
    calls = f"import pkgutil, sys; sys.argv[0] = '{(tmp_path / name).as_posix()}{ending}'; "
    calls += f"pkgutil.resolve_name('{SCRIPTS[name]}')()"
    for path, called in ((tmp_path, name), (tmp_path / "elsewhere", tmp_path / name)):
        done = subprocess.run(
            [sys.executable, "-c", calls, "--help"],
            cwd=ROOT,
            env=os.environ | {"PATH": str(path), "COLUMNS": "300"},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert f"Usage: {called} [OPTIONS] COMMAND" in " ".join(done.stdout.split())
