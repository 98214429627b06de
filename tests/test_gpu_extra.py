"""`pip install .[gpu]` brings faiss-gpu in place of faiss-cpu: nothing may ask for the latter."""

from importlib.metadata import version
from pathlib import Path

import pytest

from tests.sessions import check_accounted, run

pytestmark = pytest.mark.slow

# Python runs it before anything else, in every process.
WITH_FAISS_GPU = """
import importlib.metadata as metadata

found = metadata.Distribution.from_name.__func__

def from_name(kind, name):
    plain = name.lower().replace("_", "-")
    if plain == "faiss-cpu":
        raise metadata.PackageNotFoundError(name)
    return found(kind, "faiss-cpu" if plain == "faiss-gpu" else name)

metadata.Distribution.from_name = classmethod(from_name)
"""


def test_a_session_runs_and_is_told_of_with_the_gpu_build_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITH_FAISS_GPU)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    folder = tmp_path / "session"
    done = run("--trials", "4", "--soa", "0.4", "--no-paint", "--headless", "--out", folder)
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert told["versions"]["faiss-gpu"] == version("faiss-cpu")
    assert "faiss-cpu" not in told["versions"]
    again = run("evaluate", "--session", folder, module="offline_train")
    assert again.code == 0, again.err
    checked = run("doctor")
    assert "packages fit" in checked.out
    assert "faiss-cpu" not in checked.out + checked.err
