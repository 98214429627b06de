"""Fetches published weights into a cache of the hub, where what loads them finds them.

They lie there as plain files, without the links to `blobs/` that the hub's own client makes, as few
disks that are carried about know links.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, get_session

from hvf_core.artifact import whole_file
from hvf_core.hub.download import download
from hvf_core.hub.load import CHECKPOINTS, TIMEOUT_S, Source, as_size, chosen, digest_at, name_at
from hvf_core.problem import Problem
from offline_train.hub.sentences import in_one_sentence, refuse_silence


@dataclass(frozen=True)
class Wanted:
    """A file that is not here yet."""

    address: str
    draft: Path
    target: Path
    digest: str
    n_bytes: int
    """0: not known."""

    @property
    def n_there(self) -> int:
        """How much of it an earlier try has left."""
        return self.draft.stat().st_size if self.draft.is_file() else 0


@dataclass(frozen=True)
class Plan:
    """Files of one place that appear together."""

    files: Sequence[Wanted]
    commit: str = ""
    ref: Path | None = None
    """The file that names the commit as the newest here."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def take(self) -> None:
        """Puts the files in their places, now that all are fetched."""
        for file in self.files:
            file.target.parent.mkdir(parents=True, exist_ok=True)
            file.draft.replace(file.target)
        if self.ref:
            self.ref.parent.mkdir(exist_ok=True)
            with whole_file(self.ref) as draft:
                draft.write_text(self.commit, encoding="utf-8")


def is_here(sources: Iterable[Source], cache: Path) -> bool:
    """Whether a cache has all of it."""
    return not any(_lacking(source.place, source.files, cache) for source in sources)


def fetch(sources: Iterable[Source], cache: Path, tell: Callable[[str, int, int], None]) -> None:
    """Fetches what a cache does not have yet of these sources, and verifies it.

    Files of one repository appear together, when all of them are there. What a try that fails has
    fetched is kept, and the next one goes on from there.

    Args:
        cache: the folder `hub` of what HF_HOME names.
        tell: is told of a file, how many bytes of all are here, and how many there are to be.

    Raises:
        Problem: a repository or a file is missing, closed or damaged, nothing answers, or the disk
            is full.
    """
    asked: dict[str, list[str]] = {}
    for source in sources:
        asked.setdefault(source.place, []).extend(source.files)
    lacking = {place: _lacking(place, files, cache) for place, files in asked.items()}
    plans = [
        _of_address(place, cache) if _is_address(place) else _of_repository(place, files, cache)
        for place, files in lacking.items()
        if files
    ]
    every = [file for plan in plans for file in plan.files]
    total = sum(file.n_bytes for file in every)
    _check_space(cache, total - sum(file.n_there for file in every))
    done = 0
    for plan in plans:
        for file in plan.files:
            _download(file, plan, partial(_tell_of_all, tell, file.target.name, done, total))
            done += file.n_bytes
        plan.take()


def _tell_of_all(
    tell: Callable[[str, int, int], None], name: str, before: int, total: int, n_bytes: int
) -> None:
    tell(name, before + n_bytes, total)


def _is_address(place: str) -> bool:
    return place.startswith("https://")


def _lacking(place: str, patterns: Iterable[str], cache: Path) -> list[str]:
    """The patterns that mean none of the files that are here."""
    if _is_address(place):
        return [] if (cache / CHECKPOINTS / name_at(place)).is_file() else [place]
    folder = _folder(place, cache)
    snapshot = folder / "snapshots" / (_commit(folder) or "none")
    names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*")]
    return [pattern for pattern in patterns if not chosen(names, pattern)]


def _folder(repository: str, cache: Path) -> Path:
    return cache / repo_folder_name(repo_id=repository, repo_type="model")


def _commit(folder: Path) -> str | None:
    """The newest commit of which something is here."""
    named = folder / "refs" / "main"
    return named.read_text(encoding="utf-8") if named.is_file() else None


def _of_repository(name: str, patterns: Iterable[str], cache: Path) -> Plan:
    """What is to be fetched of a repository, as the hub lists it; of the commit that is here."""
    folder = _folder(name, cache)
    revision = _commit(folder)
    with in_one_sentence(name, revision):
        info = HfApi().model_info(name, revision=revision, timeout=TIMEOUT_S, files_metadata=True)
    listed = {file.rfilename: file for file in info.siblings or ()}
    commit, wanted = str(info.sha), []
    for pattern in patterns:
        names = chosen(listed, pattern)
        if not names:
            raise Problem(
                f"the repository '{name}' has no {' or '.join(pattern.split('|'))}: see on its "
                "page what it has, and name another source, or a file of your own"
            )
        for file in map(listed.__getitem__, names):
            digest = file.lfs.sha256 if file.lfs else str(file.blob_id)
            wanted.append(
                Wanted(
                    address=hf_hub_url(name, file.rfilename, revision=commit),
                    draft=folder / "parts" / f"{file.rfilename.replace('/', '--')}-{digest[:16]}",
                    target=folder / "snapshots" / commit / file.rfilename,
                    digest=digest,
                    n_bytes=file.size or 0,
                )
            )
    return Plan(wanted, commit, folder / "refs" / "main", build_hf_headers())


def _of_address(address: str, cache: Path) -> Plan:
    refuse_silence(address)
    answer = get_session().head(address, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_S)
    target = cache / CHECKPOINTS / name_at(address)
    n_bytes = int(answer.headers.get("Content-Length", 0)) if answer.is_success else 0
    draft = target.with_name(f"{target.name}.part")
    return Plan([Wanted(address, draft, target, digest_at(address), n_bytes)])


def _check_space(cache: Path, n_bytes: int) -> None:
    disk = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(disk).free
    if n_bytes > free:
        raise Problem(
            f"the disk of '{disk}' has room for {as_size(free)}, and {as_size(n_bytes)} are to be "
            "fetched: make room, or name a folder of another disk with --to"
        )


def _download(file: Wanted, plan: Plan, tell: Callable[[int], None]) -> None:
    try:
        download(file.address, file.draft, file.digest, file.n_bytes, tell, plan.headers)
    except HfHubHTTPError as fault:
        raise Problem(
            f"'{file.address}' cannot be fetched ({urlsplit(file.address).hostname} answers "
            f"{fault.response.status_code}): check your access (`hf auth login`), or try again "
            "later"
        ) from None
    except HTTPError as fault:
        raise Problem(
            f"the download of '{file.address}' broke off after {as_size(file.n_there)} ({fault}): "
            "give the same command again, which goes on from there"
        ) from None
