"""CONTRIBUTING.md is true: its examples are carried out, its commands are README's and CI's."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = re.split(r"^### ", GUIDE, flags=re.MULTILINE)[1:]


@dataclass(frozen=True)
class Block:
    """What the guide says of a file: all of it or, as a `diff`, what changes in it."""

    kind: str
    path: str
    text: str

    def apply(self, root: Path) -> None:
        file = root / self.path
        if self.kind != "diff":
            assert not file.exists(), f"{self.path} is there already"
            file.write_text(self.text, encoding="utf-8")
            return
        source = file.read_text(encoding="utf-8")
        for hunk in self.text.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before, after = ("".join(t[1:] for t in lines if t[0] in k) for k in (" -", " +"))
            assert source.count(before) == 1, f"{self.path} has not, or not once:\n{before}"
            source = source.replace(before, after)
        file.write_text(source, encoding="utf-8")


def blocks(text: str) -> Iterator[Block]:
    for kind, path, body in re.findall(r"^```(\w+) (\S+)\n(.*?)^```$", text, re.M | re.S):
        yield Block(kind, path, body)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources in which everything in the guide has been added."""
    root = tmp_path_factory.mktemp("contributing") / "hvf-live"
    rest = shutil.ignore_patterns(".*", "assets", "*.egg-info")
    shutil.copytree(ROOT, root, ignore=rest)
    for block in blocks(GUIDE):
        block.apply(root)
    return root


def in_copy(root: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_example_works(built: Path) -> None:
    tests = [block.path for block in blocks(GUIDE) if block.path.startswith("tests/")]
    kinds = "tests/stream/test_messages.py::test_the_number_of_each_kind_is_the_documented_one"
    in_copy(built, "pytest", "-n", "0", *tests, kinds)


@pytest.mark.slow
def test_every_example_is_in_the_style_of_the_house(built: Path) -> None:
    in_copy(built, "ruff", "check", ".")
    in_copy(built, "ruff", "format", "--check", ".")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda text: text.partition("\n")[0])
def test_a_thing_takes_its_own_file_and_one_more(recipe: str) -> None:
    for command in re.split(r"^One that makes models", recipe, flags=re.MULTILINE):
        files = {block.path for block in blocks(command) if not block.path.startswith("tests/")}
        assert 1 <= len(files) <= 2


def commands(text: str) -> list[str]:
    """The commands of a shell script, and of the blocks `sh` of a Markdown file, one each."""
    found = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) or [text]
    lines = [line for block in found for line in block.splitlines() if not line.startswith("#")]
    return [command for line in lines for command in line.split(" && ")]


def test_readme_guide_and_ci_install_and_test_alike() -> None:
    install = '.venv/bin/pip install -c constraints.txt -e ".[test]"'
    told = [commands((ROOT / name).read_text()) for name in ("README.md", ".ci/run")]
    for place in (*told, commands(GUIDE)):
        assert {install, ".venv/bin/python -m pytest"} <= set(place)
    assert all("-c constraints.txt" in c for c in told[0] if "pip install" in c)
    checks = [c for c in told[1] if c.startswith(".venv/bin/python")]
    assert checks == [c for c in commands(GUIDE) if c in checks]


def test_constraints_name_a_version_in_range_for_every_package_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    for text in (*project["dependencies"], *extras["onnx"], *extras["sdxl"], *extras["test"]):
        asked = Requirement(text)
        if asked.name != "hvf-live":
            version = tested[canonicalize_name(asked.name)]
            assert version in asked.specifier, f"{asked}, tested with {version}"
            assert "+" not in version, f"{asked.name} {version} is a build for one machine"
