"""A session's dashboard, played: the double of the tests of the page, and a thing to look at.

By hand: python -m tests.dashboard.fake_server live 8770
"""

import asyncio
import io
import json
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image, ImageDraw
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from tests.dashboard.parts import PIECE_S, checks
from tests.dashboard.scenes import Scene

STATIC = Path(__file__).parents[2] / "stream" / "dashboard" / "static"
_OWN = "default-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'"
_GONE = (WebSocketDisconnect, WebSocketDisconnected)
"""What is raised where a page was closed meanwhile, by it or here."""
POLICY = {"Content-Security-Policy": _OWN}
Said = dict[str, Any] | bytes


class FakeSession:
    """Tells every page what its scene does, and keeps what pages ask."""

    def __init__(self, scene: Scene, rights: str = "control") -> None:
        self.scene = scene
        self.rights = rights
        self.asked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.refuses = False
        """Whether nobody gets in, as where the server is gone."""
        self.is_deaf = False
        """Whether nothing is answered any more, as by a machine that sleeps."""
        self._pages: set[WebSocket] = set()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/thumbnails/{id:path}", _picture),
                Route("/images/{id:path}", _picture),
                WebSocketRoute("/live", self._live),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            middleware=[Middleware(_Policy)],
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _live(self, page: WebSocket) -> None:
        if self.refuses:
            await page.close()
            return
        await page.accept()
        self._loop = asyncio.get_running_loop()
        try:
            for said in self.scene.greeting(self.rights):
                await _send(page, said)
            self._pages.add(page)
            while True:
                await self._answer(page, json.loads(await page.receive_text()))
        except _GONE:
            pass
        self._pages.discard(page)

    async def _answer(self, page: WebSocket, request: dict[str, Any]) -> None:
        self.asked.put(request)
        if self.is_deaf:
            return
        verb, text, changed = request["ask"], "done", []
        if verb in ("pause", "resume"):
            self.scene.state = "paused" if verb == "pause" else "ready"
            text, changed = f"the session is {self.scene.state}", [self.scene.told()]
        elif verb == "set":
            self.scene.values[request["path"]] = request["value"]
            text, changed = (
                f"{request['path']} is {request['value']}",
                [self.scene.hello(self.rights)],
            )
        elif verb == "trial_eeg":
            changed = [self.scene.trial_eeg(request["trial"])]
        elif verb == "check":
            changed = [checks("running", 1)]
        elif verb == "form" and request["start"] and "?" not in request["values"].values():
            self.scene.name = "waiting"
            changed = [self.scene.hello(self.rights)]
        wrong = {name: "is wrong" for name, at in request.get("values", {}).items() if at == "?"}
        ok = verb != "reset_group" and not wrong
        text = text if ok else f"no stimulus is called {request.get('argument')!r}"
        answer = {"kind": "said", "id": request["id"], "ok": ok, "text": text}
        for said in [answer | ({"fields": wrong} if wrong else {}), *changed]:
            await _send(page, said)

    def say(self, *said: Said) -> None:
        """Tells all pages, from any thread; returns when it is sent."""

        async def tell() -> None:
            for page in list(self._pages):
                for one in said:
                    await _send(page, one)

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(tell(), self._loop).result()

    def hang_up(self, code: int = 1001) -> None:
        """The line breaks; with 1012 it is over."""

        async def close() -> None:
            for page in list(self._pages):
                with suppress(*_GONE):
                    await page.close(code)

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(close(), self._loop).result()

    async def play(self) -> None:
        """The scene goes on in real time."""
        while True:
            await asyncio.sleep(PIECE_S)
            for said in self.scene.step():
                for page in list(self._pages):
                    await _send(page, said)


async def _send(page: WebSocket, said: Said) -> None:
    with suppress(*_GONE):
        if isinstance(said, bytes):
            await page.send_bytes(said)
        else:
            await page.send_text(json.dumps(said))


class _Policy:
    """As the dashboard's own: a page that loads anything of other hosts shows holes in tests."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(k.lower().encode(), v.encode()) for k, v in POLICY.items()]
            await send(message)

        await self._app(scope, receive, with_policy if scope["type"] == "http" else send)


async def _picture(request: Request) -> Response:
    """A stand-in that tells the ids apart."""
    seed = sum(request.path_params["id"].encode()) * 37
    image = Image.new("RGB", (96, 96), f"hsl({seed % 360}, 30%, 35%)")
    draw = ImageDraw.Draw(image)
    draw.ellipse((18, 22, 78, 82), fill=f"hsl({(seed * 7) % 360}, 65%, 58%)")
    draw.rectangle((0, 80, 96, 96), fill=f"hsl({seed % 360}, 25%, 22%)")
    image.save(file := io.BytesIO(), "JPEG")
    return Response(
        file.getvalue(), media_type="image/jpeg", headers={"Cache-Control": "max-age=600"}
    )


@contextmanager
def served(session: FakeSession, port: int = 0, *, plays: bool = False) -> Iterator[str]:
    """The address at which a session is to be seen."""
    config = uvicorn.Config(
        session.app, port=port, log_level="warning", ws="websockets-sansio", lifespan="off"
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        playing = asyncio.create_task(session.play()) if plays else None
        await server.serve()
        if playing is not None:
            playing.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


if __name__ == "__main__":
    scene, port = sys.argv[1], int(sys.argv[2])
    with served(
        FakeSession(Scene(scene)), port, plays=scene in ("live", "blind", "unsure", "record")
    ) as address:
        print(address)
        threading.Event().wait()
