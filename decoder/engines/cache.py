"""The engines' files on disk, made once for each bundle, machine and set of versions."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel
from torch import nn

from decoder.weights import weights_sha256
from hvf_core.artifact import (
    check_files,
    file_sha256,
    read_manifest,
    sealed_directory,
    write_manifest,
)
from hvf_core.problem import Problem

_MANIFEST = "engine.json"
_SCHEMA_VERSION: Literal[1] = 1

Say = Callable[[str], None]
Make = Callable[[Path], None]


class CachedEngine(BaseModel):
    """The manifest of a folder with an engine's files."""

    schema_version: Literal[1] = _SCHEMA_VERSION
    facts: dict[str, str]
    """All that the files depend on."""
    sha256: dict[str, str]
    """Of every file, by its name."""


def network_sha256(network: nn.Module) -> str:
    """Of a network's layers, their settings and their weights."""
    return weights_sha256(network, repr(network))


def program_sha256() -> str:
    """Of the code that networks are made from, whose change may change a graph."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def engine_files(
    cache: Path, name: str, facts: Mapping[str, str], make: Make, say: Say
) -> Iterator[Path]:
    """Yields the folder with an engine's files, which are made where the cache has none.

    Args:
        cache: the folder of all caches; it need not exist.
        name: of the engine, for those who look into the cache.
        facts: all that the files depend on; other facts are another folder.
        make: writes the files into a folder, without subfolders.
        say: hears of a cache that is damaged or cannot be written. In the second case the files
            are in a temporary folder, until the block ends.

    Raises:
        OSError: not even the temporary folder can be written.
    """
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
    folder = cache / f"{name}-{digest}"
    with ExitStack() as stack:
        try:
            if not _is_whole(folder, say):
                _make(folder, facts, make)
        except OSError as error:
            say(
                f"the engine cache {cache} cannot be used ({error.strerror}), so the engine is "
                "made in a temporary folder, and again at the next start"
            )
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="hvf-engine-")))
            make(folder)
        yield folder


def _is_whole(folder: Path, say: Say) -> bool:
    if not folder.exists():
        return False
    try:
        manifest = read_manifest(folder, _MANIFEST, CachedEngine, _SCHEMA_VERSION)
        check_files(folder, manifest.sha256)
    except Problem:
        say(f"the cached engine {folder} is damaged, so it is made anew")
        return False
    return True


def _make(folder: Path, facts: Mapping[str, str], make: Make) -> None:
    if folder.is_dir():  # damaged; even without its manifest it is ours, by its name
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with sealed_directory(folder, _MANIFEST) as draft:
        make(draft)
        sha256 = {path.name: file_sha256(path) for path in sorted(draft.iterdir())}
        write_manifest(draft / _MANIFEST, CachedEngine(facts=dict(facts), sha256=sha256))
