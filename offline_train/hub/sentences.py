"""What goes wrong between here and the hub, in one sentence each."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hvf_core.hub.load import silence_of
from hvf_core.problem import Problem

# The order matters: each kind is also of those below it.
_SAID: dict[type[Exception], str] = {
    GatedRepoError: "the repository '{repo}' is open only to whom its owner lets in: ask for "
    "access on its page, then log in with `hf auth login`",
    RepositoryNotFoundError: "there is no repository '{repo}' on the hub, or it is private and not "
    "yours: check the name, or log in with `hf auth login`",
    RevisionNotFoundError: "the repository '{repo}' has no revision '{revision}': leave it out for "
    "the newest",
    RemoteEntryNotFoundError: "the repository '{repo}' lacks bundle.json or a file that it "
    "names: it is no whole bundle, ask its owner to share it again",
    HfHubHTTPError: "the hub answers {status} for '{repo}': try again later",
    json.JSONDecodeError: "what answers is not the hub: check HF_ENDPOINT, or log in to this "
    "network first",
    Exception: "the hub cannot be reached, or the disk written ({reason}): check both and try "
    "again",
}
_ANSWERED: dict[int | None, str] = {
    401: "the hub does not know your token: log in again with `hf auth login`",
    403: "your token may not do this in '{repo}': use one that may write there, of somebody to "
    "whom it belongs",
}


@contextmanager
def in_one_sentence(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turns what goes wrong between here and the hub into a `Problem`.

    A hub that does not answer is told before anything is asked of it: some of that would wait.
    """
    refuse_silence(constants.ENDPOINT)
    try:
        yield
    except (HTTPError, OSError, json.JSONDecodeError) as error:
        raise Problem(_sentence(error, repo, revision)) from None


def refuse_silence(address: str) -> None:
    """Raises a `Problem` if nothing answers there."""
    if fault := silence_of(address):
        raise Problem(f"{fault}: mend that, or try again where there is a network")


def _sentence(error: Exception, repo: str, revision: str | None) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    kind = next(kind for kind in _SAID if isinstance(error, kind))
    said = _SAID[kind] if kind is not HfHubHTTPError else _ANSWERED.get(status, _SAID[kind])
    return said.format(repo=repo, revision=revision, status=status, reason=reason)
