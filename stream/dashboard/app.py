"""The web application: routes, and what every answer says to the browser."""

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

from hvf_core.problem import Problem
from hvf_core.text import printable
from index.images import open_image
from stream.dashboard.doors import Doors, Refusal, Rights
from stream.dashboard.feed import Feed
from stream.dashboard.hello import VERSION
from stream.dashboard.pages import Pages
from stream.pipeline.report.page import REPORT

STATIC = Path(__file__).parent / "static"
_FILES = {
    "summary.json": "application/json",
    "trials.csv": "text/csv",
    "ledger.jsonl": "text/plain",
}
_IMAGE = re.compile(r"[\w.-]+\.png")
_THUMBNAIL_PX = 256
_OWN = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_log = logging.getLogger("hvf-live.dashboard")


class Dashboard:
    """What is served of one session, to whom."""

    def __init__(self, feed: Feed, doors: Doors):
        self._feed, self._doors = feed, doors
        self.pages = Pages(feed)
        self._thumbnail = lru_cache(maxsize=500)(self._make_thumbnail)

    def app(self) -> ASGIApp:
        """The application."""
        routes = [
            Route("/", self._page),
            Route("/state.json", self._state),
            Route("/thumbnails/{id:path}", self._thumbnail_of),
            Route("/images/{name}", self._image),
            Route("/report.html", self._report),
            Route("/files/{name}", self._file),
            WebSocketRoute("/live", self._live),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return _Guarded(Starlette(routes=routes, lifespan=self._lifespan), self._doors)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        running = asyncio.create_task(self.pages.run())
        yield
        running.cancel()

    async def _page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    async def _state(self, request: Request) -> Response:
        rights: Rights = request.scope["rights"]
        told = {"hello": self.pages.hello(rights), "state": self.pages.state()}
        if rights == "control":
            told["checks"] = self.pages.checks.told
        return JSONResponse(told)

    async def _thumbnail_of(self, request: Request) -> Response:
        with self._feed.lock:
            gallery = self._feed.gallery
            row = gallery.row_of(request.path_params["id"]) if gallery is not None else None
            path = gallery.image_of(row) if gallery is not None and row is not None else None
        image = await asyncio.to_thread(self._thumbnail, path) if path is not None else None
        if image is None:
            return PlainTextResponse("there is no such image", 404)
        return Response(image, media_type="image/jpeg", headers={"Cache-Control": "max-age=600"})

    def _make_thumbnail(self, path: Path) -> bytes | None:
        try:
            image = open_image(path)
        except Problem:
            return None
        file = io.BytesIO()
        image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        image.save(file, "jpeg", quality=85)
        return file.getvalue()

    async def _image(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not _IMAGE.fullmatch(name):
            return _refused(request, Refusal(404, f"'{name[:60]}' is no image of the session"))
        return self._of_folder(request, f"images/{name}", "image/png")

    async def _report(self, request: Request) -> Response:
        return self._books(request, REPORT, None)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _FILES:
            there = ", ".join(_FILES)
            return _refused(request, Refusal(404, f"there is no '{name[:60]}': there are {there}"))
        return self._books(request, name, _FILES[name])

    def _books(self, request: Request, name: str, kind: str | None) -> Response:
        """What tells what was shown."""
        if self._feed.config.outputs.blind:
            what = f"'{name}' tells what was shown, and the session is --blind"
            return _refused(request, Refusal(403, f"{what}: it is in the session's folder"))
        return self._of_folder(request, name, kind)

    def _of_folder(self, request: Request, name: str, kind: str | None) -> Response:
        folder = self._feed.config.folder.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):  # as a link that somebody has put there
            return _refused(request, Refusal(403, f"'{name}' is outside of the session's folder"))
        if not path.is_file():
            return PlainTextResponse(f"there is no '{name}' yet", 404)
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})

    async def _live(self, socket: WebSocket) -> None:
        await socket.accept()
        if (version := socket.query_params.get("v", str(VERSION))) != str(VERSION):
            _log.warning("a page of version %s is refused", printable(version[:20]))
            await socket.close(4001, f"the server speaks version {VERSION}: reload the page")
            return
        await self.pages.serve(socket, socket.scope["rights"])


class _Guarded:
    """Lets in who may come in, before anything else is looked at, and tells browsers how to be."""

    def __init__(self, app: ASGIApp, doors: Doors):
        self._app, self._doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        came = HTTPConnection(scope)
        headers = {name.lower(): value for name, value in came.headers.items()}
        asked, kept = came.query_params.get("token", ""), came.cookies.get(self._doors.cookie, "")
        is_socket = scope["type"] == "websocket"
        rights = self._doors.rights(headers, asked or kept, is_socket=is_socket)
        if isinstance(rights, Refusal):
            refused = _refused(came, rights)
            await (WebSocketClose() if is_socket else refused)(scope, receive, send)
        elif asked and scope["path"] == "/":  # it is copied and kept: without the token from here
            response = RedirectResponse("/", 303)
            # Lax: a link in a mail is followed with it. What else foreign pages ask is refused.
            response.set_cookie(self._doors.cookie, asked, httponly=True, samesite="lax", path="/")
            await response(scope, receive, send)
        else:
            scope["rights"] = rights
            await self._app(scope, receive, _with_headers(scope, send))


def _with_headers(scope: Scope, send: Send) -> Callable[..., Awaitable[None]]:
    async def sent(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            headers = dict(_HEADERS)
            if scope["path"] != f"/{REPORT}":  # which has a policy of its own
                headers["Content-Security-Policy"] = _OWN
            more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            message = {**message, "headers": [*message["headers"], *more]}  # type: ignore[misc]
        await send(message)

    return sent


def _refused(came: HTTPConnection, refusal: Refusal) -> Response:
    who = came.client.host if came.client is not None else "somebody"
    path = printable(came.url.path[:80])
    _log.warning(
        "%s is refused %s (%d): %s", who, path, refusal.status, printable(refusal.sentence)
    )
    return PlainTextResponse(refusal.sentence, refusal.status)
