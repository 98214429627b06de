"""Sharing bundles, by the real huggingface_hub against a small hub on this machine."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils._http
import numpy as np
import pytest

from decoder.bundle import (
    BrainEncoderRecord,
    Bundle,
    BundleManifest,
    HVFRecord,
    ImageEncoderRecord,
    save_bundle,
    space_of,
)
from hvf_core.problem import Problem
from offline_train.hub.bundles import fetch_bundle, push_bundle

pytestmark = pytest.mark.slow

REPO = "anna/eeg-decoder"
ENCODERS = (ImageEncoderRecord(name="semantic", dim=5, checksum="5e"),)


class FakeHub:
    """Repositories in memory: every commit is a dict of files. `asked` is the log of requests."""

    def __init__(self) -> None:
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[tuple[str, str]] = []
        self.refuse: dict[str, tuple[int, str]] = {}  # by a part of the path: status, error code

    def files(self, repo: str, revision: str | None) -> dict[str, bytes] | None:
        commits = self.repos[repo]
        if revision in (None, "main"):
            return commits[-1]
        return next((c for i, c in enumerate(commits) if revision in (f"v{i}", sha(i))), None)


def sha(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *args) -> None:
        pass

    def answer(self, status: int, body: bytes | dict = b"", **headers: str) -> None:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def is_refused(self) -> bool:
        self.hub.asked.append((self.command, self.path))
        for part, (status, code) in self.hub.refuse.items():
            if part in self.path:
                self.answer(status, {"error": "no"}, **({"X_Error_Code": code} if code else {}))
                return True
        return False

    def do_GET(self) -> None:
        if self.is_refused():
            return None
        if self.path.startswith("/api/models/"):
            repo, _, revision = self.path.removeprefix("/api/models/").partition("/revision/")
        else:
            repo, _, rest = self.path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
        if repo not in self.hub.repos:
            return self.answer(401, {"error": "no"}, X_Error_Code="RepoNotFound")
        files = self.hub.files(repo, revision or None)
        if files is None:
            return self.answer(404, {"error": "no"}, X_Error_Code="RevisionNotFound")
        number = next(i for i, commit in enumerate(self.hub.repos[repo]) if commit is files)
        if self.path.startswith("/api/"):
            found = {"id": repo, "sha": sha(number), "private": self.hub.private[repo]}
            return self.answer(200, found)
        if name not in files:
            return self.answer(404, {"error": "no"}, X_Error_Code="EntryNotFound")
        etag = hashlib.sha256(files[name]).hexdigest()
        return self.answer(200, files[name], ETag=f'"{etag}"', X_Repo_Commit=sha(number))

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.is_refused():
            return None
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted.get('organization', 'anna')}/{wanted['name']}"
            url = {"url": f"http://{self.headers['Host']}/{repo}"}
            if repo in self.hub.repos:
                return self.answer(409, url)
            self.hub.repos[repo] = [{}]
            self.hub.private[repo] = wanted["visibility"] == "private"
            return self.answer(200, url)
        if self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return self.answer(200, {"warnings": [], "errors": []})
        repo = self.path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")[0]
        if "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": modes})
        lines = [json.loads(line) for line in body.splitlines()]
        added = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        self.hub.repos[repo].append(self.hub.repos[repo][-1] | added)
        done = {"commitUrl": f"http://{self.headers['Host']}/{repo}/commit/1", "commitOid": "1"}
        return self.answer(200, done)


@pytest.fixture
def hub(monkeypatch):
    fake = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"hub": fake}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", "hf_of_anna")
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    rng = np.random.default_rng(0)
    hvf = {"maps.semantic.weight": rng.normal(size=(8, 5)).astype(np.float32)}
    manifest = BundleManifest(
        channels=("O1", "Oz", "O2"),
        rate_hz=100,
        tmin_s=-0.02,
        tmax_s=0.08,
        preprocessing={},
        brain_encoder=BrainEncoderRecord(hidden=6),
        image_encoders=ENCODERS,
        hvf=HVFRecord(hidden=6),
        embedding_dim=8,
        logit_scale=2.7,
        space=space_of(hvf, ENCODERS),
        metrics={"top1": 0.25},
    )
    parts = {
        "brain": {"project.weight": rng.normal(size=(8, 33)).astype(np.float32)},
        "hvf": hvf,
        "preprocessing": {"whitener": np.eye(3)},
    }
    return save_bundle(tmp_path / "bundle", manifest, parts)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def shared(hub: FakeHub, bundle: Bundle, change=lambda files: None) -> None:
    """Puts a bundle on the hub as somebody else's program would."""
    files = tree(bundle.directory)
    change(files)
    hub.repos[REPO] = [files]
    hub.private[REPO] = True


def with_manifest(change):
    def apply(files: dict[str, bytes]) -> None:
        found = json.loads(files["bundle.json"])
        change(found, files)
        files["bundle.json"] = json.dumps(found).encode()

    return apply


def refused(call, sentence: str) -> None:
    with pytest.raises(Problem, match=sentence) as problem:
        call()
    text = str(problem.value)
    assert "\n" not in text
    assert ".draft-" not in text


# --- there and back ------------------------------------------------------------------------------


def test_what_is_pushed_can_be_fetched(hub, bundle, tmp_path) -> None:
    (bundle.directory / "notes.txt").write_text("subject 7 was tired")
    url = push_bundle(bundle.directory, REPO, message="first")
    assert url.endswith(REPO)
    assert hub.private[REPO] is True
    names = {"README.md", "bundle.json", *bundle.manifest.files}
    assert hub.repos[REPO][-1].keys() == names
    fetched = fetch_bundle(REPO, None, tmp_path / "fetched")
    assert fetched.directory == tmp_path / "fetched"
    assert fetched.manifest == bundle.manifest
    original = tree(bundle.directory)
    assert tree(tmp_path / "fetched") == {k: original[k] for k in names - {"README.md"}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "fetched"]


def test_the_card_says_what_the_bundle_needs(hub, bundle) -> None:
    push_bundle(bundle.directory, REPO, message="first")
    card = hub.repos[REPO][-1]["README.md"].decode()
    for expected in (
        "O1, Oz, O2",
        "100 Hz",
        "-0.02 to 0.08 s",
        "semantic (5)",
        '"top1": 0.25',
        REPO,
    ):
        assert expected in card


def test_pushing_again_makes_a_second_commit_and_each_can_be_fetched(hub, bundle, tmp_path) -> None:
    push_bundle(bundle.directory, REPO, message="first")
    parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    changed = bundle.manifest.model_copy(update={"logit_scale": 3.0})
    save_bundle(bundle.directory, changed, parts)
    push_bundle(bundle.directory, REPO, message="second")
    target = tmp_path / "fetched"
    assert fetch_bundle(REPO, "v1", target).manifest.logit_scale == 2.7
    assert fetch_bundle(REPO, sha(2), target).manifest.logit_scale == 3.0
    assert fetch_bundle(REPO, None, target).manifest.logit_scale == 3.0


def test_all_files_are_of_one_commit_though_the_owner_pushes_meanwhile(
    hub, bundle, tmp_path, monkeypatch
) -> None:
    shared(hub, bundle)
    real = hub.files

    def files(repo, revision):
        found = real(repo, revision)
        hub.repos[repo].append({"bundle.json": b"{}"})
        return found

    monkeypatch.setattr(hub, "files", files)
    assert fetch_bundle(REPO, None, tmp_path / "fetched").manifest == bundle.manifest


def test_a_repository_may_be_public_when_that_is_asked_for(hub, bundle) -> None:
    push_bundle(bundle.directory, REPO, private=False, message="first")
    assert hub.private[REPO] is False
    refused(lambda: push_bundle(bundle.directory, REPO, message="second"), "there and public")
    assert len(hub.repos[REPO]) == 2
    push_bundle(bundle.directory, REPO, private=False, message="second")
    assert len(hub.repos[REPO]) == 3


# --- nothing else is fetched ---------------------------------------------------------------------


def test_only_the_manifest_and_what_it_names_is_downloaded(hub, bundle, tmp_path) -> None:
    extra = {
        "evil.pkl": b"\x80\x04",
        "model.pt": b"\x80",
        "other.safetensors": b"",
        "README.md": b"",
    }
    shared(hub, bundle, lambda files: files.update(extra))
    fetch_bundle(REPO, None, tmp_path / "fetched")
    downloaded = {path.rpartition("/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert downloaded == {"bundle.json", *bundle.manifest.files}
    assert tree(tmp_path / "fetched").keys() == downloaded


@pytest.mark.parametrize(
    "name",
    [
        "evil.pkl",
        "../evil.safetensors",
        "folder/evil.safetensors",
        "/etc/evil.safetensors",
        "C:\\evil.safetensors",
        ".safetensors",
        ".evil.safetensors",
        "evil.safetensors\n",
        "evil.safetensors.pkl",
        "",
    ],
)
def test_a_manifest_that_names_anything_else_is_refused(hub, bundle, tmp_path, name) -> None:
    content = b"cposix\nsystem\n."

    def add(found, files):
        found["files"][name] = hashlib.sha256(content).hexdigest()
        files[name] = content

    shared(hub, bundle, with_manifest(add))
    refused(lambda: fetch_bundle(REPO, None, tmp_path / "fetched"), "expected plain names")
    downloaded = {path.partition("/resolve/")[2] for _, path in hub.asked if "/resolve/" in path}
    assert {name.partition("/")[2] for name in downloaded} == {"bundle.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# --- what is wrong with what is there ------------------------------------------------------------


def flip(name: str):
    def change(files: dict[str, bytes]) -> None:
        files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])

    return change


def not_safetensors(part: str):
    def change(found, files):
        files[f"{part}.safetensors"] = b"cposix\nsystem\n."
        found["files"][f"{part}.safetensors"] = hashlib.sha256(b"cposix\nsystem\n.").hexdigest()

    return with_manifest(change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda files: files.pop("bundle.json"), "lacks bundle.json or a file that it names"),
        (lambda files: files.pop("brain.safetensors"), "lacks bundle.json or a file that it names"),
        (lambda files: files.update({"bundle.json": b"{"}), f"{REPO}/bundle.json is not JSON"),
        (flip("brain.safetensors"), f"{REPO}/brain.safetensors is damaged"),
        (with_manifest(lambda m, _: m.update(schema_version=2)), "update the program"),
        (with_manifest(lambda m, _: m["files"].pop("hvf.safetensors")), "gives checksums of"),
        (with_manifest(lambda m, _: m.update(space="0")), "embedding space"),
        (not_safetensors("hvf"), "is no safetensors file"),
        (not_safetensors("brain"), "is no safetensors file"),
    ],
)
@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_no_good_bundle_is_refused_and_leaves_nothing(
    hub, bundle, tmp_path, change, sentence, is_there
) -> None:
    shared(hub, bundle, change)
    target = tmp_path / "fetched"
    if is_there:
        parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
        save_bundle(target, bundle.manifest, parts)
    before = tree(tmp_path)
    refused(lambda: fetch_bundle(REPO, None, target), sentence)
    assert tree(tmp_path) == before
    assert target.exists() == is_there


def test_a_directory_of_something_else_is_left_alone(hub, bundle, tmp_path) -> None:
    shared(hub, bundle)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("years of work")
    refused(lambda: fetch_bundle(REPO, None, thesis), "left alone")
    assert tree(thesis) == {"chapter1.txt": b"years of work"}
    assert hub.asked == []


def test_a_damaged_bundle_is_not_pushed(hub, bundle) -> None:
    (bundle.directory / "hvf.safetensors").write_bytes(b"")
    refused(lambda: push_bundle(bundle.directory, REPO, message="m"), "is damaged")
    assert hub.asked == []


# --- what is wrong between here and there --------------------------------------------------------


@pytest.mark.parametrize("repo", ["a b/c", "a/b/c", "a//b", "anna/..", "anna/x.git", "/etc"])
def test_a_name_that_is_none_is_refused(hub, bundle, tmp_path, repo) -> None:
    refused(lambda: fetch_bundle(repo, None, tmp_path / "fetched"), "is no name of a repository")
    refused(lambda: push_bundle(bundle.directory, repo, message="m"), "is no name of a repository")
    assert hub.asked == []


def test_a_name_needs_an_owner(hub, bundle, tmp_path) -> None:
    refused(lambda: fetch_bundle("decoder", None, tmp_path / "f"), "is no name of a repository")
    refused(lambda: push_bundle(bundle.directory, "decoder", message="m"), "give OWNER/NAME")
    assert hub.asked == []


def test_a_missing_repository_and_a_missing_revision_are_told(hub, bundle, tmp_path) -> None:
    target = tmp_path / "fetched"
    refused(lambda: fetch_bundle(REPO, None, target), f"there is no repository '{REPO}'")
    shared(hub, bundle)
    refused(lambda: fetch_bundle(REPO, "v9", target), "has no revision 'v9'")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("path", "status", "code", "sentence"),
    [
        ("/api/models", 403, "GatedRepo", "ask for access"),
        ("/api/models", 500, "", "the hub answers 500"),
        ("/resolve/", 404, "EntryNotFound", "lacks bundle.json"),
        ("brain.safetensors", 404, "EntryNotFound", "lacks bundle.json or a file"),
        ("brain.safetensors", 403, "GatedRepo", "ask for access"),
    ],
)
def test_what_the_hub_refuses_to_give_is_told(
    hub, bundle, tmp_path, path, status, code, sentence
) -> None:
    shared(hub, bundle)
    hub.refuse[path] = (status, code)
    refused(lambda: fetch_bundle(REPO, None, tmp_path / "fetched"), sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/create", 401, "does not know your token"),
        ("/create", 403, "your token may not do this"),
        ("/preupload", 403, "your token may not do this"),
        ("/commit/", 500, "the hub answers 500"),
    ],
)
def test_what_the_hub_refuses_to_take_is_told(hub, bundle, path, status, sentence) -> None:
    hub.refuse[path] = (status, "")
    refused(lambda: push_bundle(bundle.directory, REPO, message="m"), sentence)


def test_without_a_token_nothing_is_asked(hub, bundle, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH"):
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / "none"))
    refused(lambda: push_bundle(bundle.directory, REPO, message="m"), "there is no token")
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_told(bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_anna")
    refused(lambda: fetch_bundle(REPO, None, tmp_path / "fetched"), "cannot be reached")
    refused(lambda: push_bundle(bundle.directory, REPO, message="m"), "cannot be reached")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
