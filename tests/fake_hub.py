"""A look-alike of the Hugging Face hub on this machine: the few routes that its client uses."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.hf_api
import huggingface_hub.utils
import pytest

COMMIT = "0123456789" * 4


class FakeHub:
    """Repositories in memory, and files at addresses; `asked` is the log of requests for bodies."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        """The end of each path, and from which byte on."""
        self.listed: list[str] = []
        """Of which repositories, and revisions of them, the files were asked for."""
        self.breaks_after: list[int] = []
        """After how many bytes each of the next bodies breaks off."""
        self.spoilt: set[str] = set()
        """Ends of paths whose bodies are sent with one bit changed."""
        self.refused: dict[str, tuple[int, str]] = {}
        """By a part of the path: status and the hub's code for it."""
        self.takes_ranges = True
        self.n_asked = 0
        """Requests of any kind."""
        self.speaks = threading.Event()
        self.speaks.set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, repository: str, folder: Path) -> None:
        """The files of a folder as a repository."""
        self.repositories[repository] = {
            file.relative_to(folder).as_posix(): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }

    def vanish(self) -> None:
        """As where there is no network."""
        self.server.socket.close()
        huggingface_hub.utils.close_session()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.n_asked += 1
        self.speaks.wait()
        path = request.path.partition("?")[0]
        for part, (status, code) in self.refused.items():
            if part in path:
                return self.say(request, status, b"{}", {"X-Error-Code": code})
        if path.startswith("/api/models/") and "/tree/" not in path:
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            self.listed.append(path.removeprefix("/api/models/"))
            if name not in self.repositories:
                return self.say(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return self.say(request, 200, json.dumps(self.listing(name)).encode())
        name, _, rest = path[1:].partition("/resolve/")
        found = self.repositories.get(name, {}).get(rest.partition("/")[2]) or self.files.get(path)
        if found is None:
            is_there = any(f"/{name}/" in path for name in self.repositories)
            lacks = "EntryNotFound" if is_there else "RepoNotFound"
            return self.say(request, 404, b"{}", {"X-Error-Code": lacks})
        return self.send(request, found)

    def listing(self, name: str) -> dict[str, object]:
        def listed(file: str, body: bytes) -> dict[str, object]:
            blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            told = {"rfilename": file, "size": len(body), "blobId": blob}
            if file.endswith((".safetensors", ".bin")):
                sha256 = hashlib.sha256(body).hexdigest()
                told["lfs"] = {"sha256": sha256, "size": len(body), "pointerSize": 134}
            return told

        files = self.repositories[name]
        siblings = [listed(file, body) for file, body in files.items()]
        return {"id": name, "sha": COMMIT, "private": False, "siblings": siblings}

    def send(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        asked = request.headers.get("Range", "bytes=0-")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if self.takes_ranges else 0
        if request.command == "GET":
            self.asked.append((request.path.rpartition("/")[2], first))
        if any(request.path.endswith(end) for end in self.spoilt):
            body = body[:-1] + bytes([body[-1] ^ 1])
        if first >= len(body):
            return self.say(request, 416, b"", {"Content-Range": f"bytes */{len(body)}"})
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        return self.say(request, 206 if first else 200, body[first:], headers)

    def say(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET" and status < 300 and "/api/" not in request.path:
            if self.breaks_after:
                body = body[: self.breaks_after.pop(0)]
                request.close_connection = True
            request.wfile.write(body)
        elif request.command == "GET":
            request.wfile.write(body)


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    """One that the hub's client takes for the hub, with `cache` for its cache."""
    hub = FakeHub()
    constants = huggingface_hub.constants
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.01,))
    thread.start()
    yield hub
    hub.speaks.set()
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()
