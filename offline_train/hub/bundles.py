"""Shares bundles on the Hugging Face hub: JSON and safetensors only, checked on both ways."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from decoder.bundle import (
    MANIFEST,
    PARTS,
    SCHEMA_VERSION,
    Bundle,
    BundleManifest,
    load_bundle,
)
from decoder.calibration import CALIBRATE
from hvf_core.artifact import read_manifest, sealed_directory
from hvf_core.hub.load import TIMEOUT_S
from hvf_core.problem import Problem
from offline_train.hub.sentences import in_one_sentence

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
_DOWNLOAD_NOTES = ".cache"  # of huggingface_hub, beside what it downloads


def push_bundle(directory: Path, repo: str, *, private: bool = True, message: str) -> str:
    """Uploads a bundle and a card that describes it, as one commit; makes the repository if needed.

    `bundle.json` goes as it is: it says by which command and from which files it was trained.

    Args:
        repo: `OWNER/NAME`.
        private: a repository that is made is private, and one that is public is refused.

    Returns:
        The address of the repository.

    Raises:
        Problem: the bundle is damaged, there is no token, it may not write there, or the hub cannot
            be reached.
    """
    _check_name(repo)
    bundle = load_bundle(directory)
    names = _files_of(bundle.manifest, str(directory))
    if get_token() is None:
        raise Problem(
            "there is no token of the Hugging Face hub here: make one that may write, then run "
            "`hf auth login` or set HF_TOKEN"
        )
    card = model_card(bundle.manifest, repo).encode()
    operations = [CommitOperationAdd("README.md", card)]
    operations += [CommitOperationAdd(name, directory / name) for name in (MANIFEST, *names)]
    with in_one_sentence(repo):
        api = HfApi()
        url = api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.model_info(repo, timeout=TIMEOUT_S).private:
            raise Problem(
                f"the repository '{repo}' is there and public, but the bundle is to be private: "
                "name another repository, or share it with everybody by --public"
            )
        api.create_commit(repo, operations, commit_message=message)
    return str(url)


def fetch_bundle(repo: str, revision: str | None, directory: Path) -> Bundle:
    """Downloads a bundle, whole or not at all; a bundle that was in `directory` is replaced.

    Nothing is downloaded but `bundle.json` and the safetensors files that it names.

    Args:
        repo: `OWNER/NAME`.
        revision: a branch, tag or commit; None is the newest.

    Raises:
        Problem: the repository is missing, closed or holds no good bundle, the hub cannot be
            reached, or `directory` holds something else.
    """
    _check_name(repo)
    with (
        sealed_directory(directory, MANIFEST) as draft,
        in_one_sentence(repo, revision),
        _named(repo, draft),
    ):
        api = HfApi()
        # One commit for all files, should the owner push while they are downloaded.
        commit = api.model_info(repo, revision=revision, timeout=TIMEOUT_S).sha
        api.hf_hub_download(repo, MANIFEST, revision=commit, local_dir=draft)
        manifest = read_manifest(draft, MANIFEST, BundleManifest, SCHEMA_VERSION)
        for name in _files_of(manifest, repo):
            api.hf_hub_download(repo, name, revision=commit, local_dir=draft)
        shutil.rmtree(draft / _DOWNLOAD_NOTES, ignore_errors=True)
        bundle = load_bundle(draft)
        for part in PARTS:
            bundle.arrays(part)
    return load_bundle(directory)


def model_card(manifest: BundleManifest, repo: str) -> str:
    """The README of a shared bundle: Markdown with the header that the hub reads."""
    encoders = ", ".join(f"{encoder.name} ({encoder.dim})" for encoder in manifest.image_encoders)
    listed = manifest.preprocessing.get("channels")
    needed = [str(name) for name in (listed if isinstance(listed, list) else manifest.channels)]
    recording = manifest.training.get("recording")
    simulated = isinstance(recording, dict) and recording.get("subject") == "simulated"
    origin = (
        "The weights were learnt from a **simulated** subject and decode no person."
        if simulated
        else "The weights work best for the persons and the cap that they were learnt from."
    )
    believed = f"not calibrated: {CALIBRATE}"
    if (fitted := manifest.calibration) is not None:
        believed = f"calibrated on {fitted.n_items} stimuli"
    metrics = ""
    if manifest.metrics:
        metrics = f"Metrics:\n\n```json\n{json.dumps(manifest.metrics, indent=2)}\n```\n\n"
    return f"""---
library_name: hvf-live
tags: [eeg, brain-computer-interface, image-retrieval]
---
# {repo.split("/")[-1]}

Decodes, from EEG, which image is being looked at. {origin}

| | |
|---|---|
| EEG | {len(needed)} channels, at {manifest.rate_hz:g} Hz or more |
| channels | {", ".join(needed)} |
| of these, decoded | {", ".join(manifest.channels)} |
| window | {manifest.tmin_s:g} to {manifest.tmax_s:g} s after onset, {manifest.n_times} samples |
| brain encoder | {manifest.brain_encoder.name} |
| image encoders (width) | {encoders} |
| embedding | {manifest.embedding_dim} wide, space `{manifest.space[:12]}` |
| probabilities | {believed} |

{metrics}`{MANIFEST}` says how the bundle was trained.

Files are JSON and safetensors. To check and use them:

```
python -m offline_train fetch {repo} --to bundle
python run_realtime.py live --eeg EEG --markers MARKERS --bundle bundle --gallery GALLERY
```
"""


def _files_of(manifest: BundleManifest, where: str) -> list[str]:
    """The files that a manifest names; a name may lead nowhere else and promise nothing else."""
    for name in manifest.files:
        if not _PLAIN_NAME.fullmatch(name):
            raise Problem(
                f"{MANIFEST} of '{where}' names the file {name!r}, expected plain names that end "
                "in .safetensors: do not use this bundle unless you know who made it"
            )
    return sorted(manifest.files)


@contextmanager
def _named(repo: str, draft: Path) -> Iterator[None]:
    """Says of a downloaded draft, which will be gone, from which repository it is."""
    try:
        yield
    except Problem as problem:
        text = str(problem).replace(str(draft), repo)
        raise Problem(f"what the hub has is no good bundle: {text}") from None


def _check_name(repo: str) -> None:
    with suppress(HFValidationError):
        validate_repo_id(repo)
        if repo.count("/") == 1:
            return
    raise Problem(
        f"'{repo}' is no name of a repository; give OWNER/NAME in letters, digits, '-', '_' and '.'"
    )
