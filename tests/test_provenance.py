"""What is told of where something comes from."""

import platform
from importlib.metadata import version

from hvf_core.provenance import provenance, versions


def test_versions_are_those_installed_and_a_package_that_is_not_there_is_left_out() -> None:
    """As `faiss-cpu` is where `faiss-gpu` was installed in its place."""
    found = versions("numpy", "no-such-package")
    assert found == {"python": platform.python_version(), "numpy": version("numpy")}


def test_provenance_is_what_manifests_keep_of_a_command() -> None:
    made = provenance("python -m offline_train mbp trials", "torch")
    assert made["command"] == "python -m offline_train mbp trials"
    assert made["versions"]["torch"] == version("torch")
    assert made["platform"]
