"""The live page: a small server on this machine, whose link holds a token that nobody can guess.

Every path begins with the token. A request is refused unless it names the host that was asked for,
so that no other site's name can be bound to it (DNS rebinding), and comes from the page itself or
from no page. It reads the paths that the command line named and writes one file: the labels.
"""

import asyncio
import ipaddress
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sfvq_jax.explore.pictures import (
    Pictures,
    Queue,
    encoded,
    layer_range,
    parse_view,
    tiled,
    whole,
)
from sfvq_jax.explore.subject import SEEDS, Subject, read_rows, rows_of
from sfvq_jax.explore.survey import (
    STRIP_SIDE,
    STRIP_STRENGTHS,
    Measures,
    strips,
    survey,
    thumbs,
)
from sfvq_jax.io.label_file import (
    MOST_BYTES,
    Labels,
    check_labels,
    labels_path,
    load_labels,
    save_labels,
)
from sfvq_jax.io.reading import parse_json

STATIC = Path(__file__).with_name("static")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
MOST_ASKED = 2**16  # bytes of a request, but for labels
MOST_CARDS = 4096  # of lines, that are kept
QUIET = 0.25  # seconds without a picture before a line is measured
SHEET_COLUMNS = 32  # images in a row of a sheet
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


class Explorer:
    """A subject and all that its page asks for.

    Args:
      subject: what the page shows.
      curve_file: the curve's file, beside which the labels are kept; None keeps them in memory.

    Raises:
      ValueError: labels beside the curve that are damaged, or of another curve.
    """

    def __init__(self, subject: Subject, curve_file: str | Path | None = None):
        self.subject = subject
        self.pictures = Pictures(subject)
        self.measures = Measures(subject, self.pictures)
        self.about = survey(subject, self.pictures, self.measures)
        self._file = None if curve_file is None else labels_path(curve_file)
        self.labels = Labels((), self.about["curve"]["sha256"])
        if self._file is not None and self._file.exists():
            self.labels = load_labels(
                self._file,
                curve_sha256=self.labels.curve_sha256,
                num_lines=subject.curve.num_lines,
            )
        self.revision = 0
        self.queue = Queue()
        self._cards = Queue()
        self._known_cards: dict[tuple[int, tuple[int, int]], Any] = {}
        self._last_picture = 0.0
        for count in (0, SEEDS):  # which compiles both programs
            self.pictures.sheet(parse_view({"position": 0.0, "count": count}, subject))
        images = thumbs(subject, self.pictures)
        self.sheets = {"codewords": encoded(tiled(images, max(images.shape[1:3]), columns=32))}
        tiles = {"codewords": _tile(images, 32)}
        ids = {d["id"]: tuple(d["layers"]) for d in self.about["directions"]}
        if ids:
            rows = strips(
                subject, self.pictures, ids, (0.0, *STRIP_STRENGTHS), seeds=1, side=STRIP_SIDE
            )
            columns = 1 + len(STRIP_STRENGTHS)
            self.sheets["directions"] = encoded(tiled(rows, max(rows.shape[1:3]), columns=columns))
            tiles["directions"] = _tile(rows, columns) | {"strengths": [0.0, *STRIP_STRENGTHS]}
        self.about |= {"live": True, "tiles": tiles, "cards": self.measures.bench is not None}

    def close(self) -> None:
        self.queue.close()
        self._cards.close()

    # What the page asks for.

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "") or "index.html"
        path = STATIC / name
        if name != path.name or path.suffix not in TYPES or not path.is_file():
            return refused(404, "there is no such file")
        return Response(path.read_bytes(), media_type=f"{TYPES[path.suffix]}; charset=utf-8")

    async def tell_about(self, request: Request) -> Response:
        return JSONResponse(self.about | {"labels": self._labels_told()})

    async def sheet(self, request: Request) -> Response:
        found = self.sheets.get(request.path_params["name"])
        return refused(404, "there is no such sheet") if found is None else as_response(found)

    async def picture(self, request: Request) -> Response:
        """The tiles of a view; 204 where a newer request of the same page overtook it."""
        content = await asked(request)
        view, page = parse_view(content, self.subject), page_of(content)
        self._last_picture = time.monotonic()
        found = await asyncio.wrap_future(self.queue.put(page, lambda: self.pictures.sheet(view)))
        self._last_picture = time.monotonic()
        return Response(status_code=204) if found is None else as_response(found)

    async def card(self, request: Request) -> Response:
        """What a line does, null where that cannot be measured; 204 where another line of the same
        page was asked for before its turn."""
        content = await asked(request)
        line = whole(content.get("line"), 0, self.subject.curve.num_lines - 1)
        key, page = (line, layer_range(content.get("layers"), self.subject)), page_of(content)
        if key not in self._known_cards:
            work = self._cards.put(page, lambda: (self._measure(key),))
            found = await asyncio.wrap_future(work)
            if found is None:
                return Response(status_code=204)
            self._known_cards[key] = found[0]
            while len(self._known_cards) > MOST_CARDS:
                self._known_cards.pop(next(iter(self._known_cards)))
        return JSONResponse(self._known_cards[key])

    def _measure(self, key: tuple[int, tuple[int, int]]) -> dict[str, Any] | None:
        self._wait_for_quiet()
        return self.measures.line(*key, pause=self._wait_for_quiet)

    def _wait_for_quiet(self) -> None:
        """Whoever drags is not to wait for a measurement."""
        while time.monotonic() - self._last_picture < QUIET or not self.queue.idle:
            time.sleep(QUIET / 4)

    async def rows(self, request: Request) -> Response:
        """The images of the user's own latents in a bar of the histogram, and their numbers."""
        data = self.subject.data
        if data is None:
            return refused(404, "there are no latents beside the curve")
        content = await asked(request)
        at = whole(content.get("codeword"), 0, self.subject.curve.num_codewords - 1)
        label = content.get("label")
        if label is not None:
            label = whole(label, 0, max(len(data.names) - 1, 0))
        found = rows_of(data, at, label, 1 + SEEDS)
        if not found:
            return Response(status_code=204)

        def work() -> tuple[bytes, str]:
            images = self.pictures.render(read_rows(data, found))
            return encoded(tiled(images, STRIP_SIDE, columns=1 + SEEDS))

        sheet = await asyncio.wrap_future(self.queue.put(f"rows {secrets.token_hex(4)}", work))
        if sheet is None:
            return Response(status_code=204)
        answer = as_response(sheet)
        answer.headers["X-Rows"] = ",".join(map(str, found))
        return answer

    async def save(self, request: Request) -> Response:
        """Replaces all labels, on the disk whole or not at all; 409 where others came between."""
        content = await asked(request, MOST_BYTES)
        labels = check_labels(content.get("labels"), self.subject.curve.num_lines)
        if content.get("revision") != self.revision:
            return JSONResponse(self._labels_told(), 409)
        new = self.labels._replace(labels=labels)
        if self._file is not None:
            save_labels(self._file, new, overwrite=True)
        self.labels, self.revision = new, self.revision + 1
        return JSONResponse(self._labels_told())

    def _labels_told(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "file": "" if self._file is None else str(self._file),
            "labels": [label._asdict() for label in self.labels.labels],
        }


def page_of(content: dict[str, Any]) -> str:
    """Which of the open pages asks."""
    page = content.get("page")
    if not isinstance(page, str) or len(page) > 40:
        raise ValueError("page is no short text")
    return page


def as_response(found: tuple[bytes, str]) -> Response:
    content, kind = found
    return Response(content, media_type=kind)


def _tile(images: Any, columns: int) -> dict[str, Any]:
    count, height, width, _ = images.shape
    return {"count": count, "width": width, "height": height, "columns": min(columns, count)}


async def asked(request: Request, most: int = MOST_ASKED) -> dict[str, Any]:
    """The JSON object of a request; ValueError where it is none or too large."""
    if request.headers.get("content-type") != "application/json":
        raise ValueError("a request's body is no JSON")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise ValueError(f"a request's body has more than {most:,} bytes")
    return parse_json(bytes(body))


def refused(status: int, why: str) -> Response:
    return PlainTextResponse(why, status)


def app_of(explorer: Explorer, token: str, host: str = "127.0.0.1") -> Any:
    """The ASGI application; `host` is the address that it is bound to."""

    def answering(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except ValueError as error:
                return refused(400, str(error))
            except OSError as error:
                return refused(500, str(error))

        return answer

    routes = [
        Route("/", answering(explorer.page)),
        Route("/about.json", answering(explorer.tell_about)),
        Route("/sheet/{name}", answering(explorer.sheet)),
        Route("/picture", answering(explorer.picture), methods=["POST"]),
        Route("/card", answering(explorer.card), methods=["POST"]),
        Route("/rows", answering(explorer.rows), methods=["POST"]),
        Route("/labels", answering(explorer.save), methods=["POST"]),
        Route("/{name}", answering(explorer.page)),
    ]
    return Guard(Starlette(routes=routes), token, host)


class Guard:
    """Lets only those requests through that have the token, name the host, and are of the page."""

    def __init__(self, app: Any, token: str, host: str):
        self._app, self._token, self._host = app, token.encode(), host

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        why = self._why_not(scope)
        if why is not None:
            await PlainTextResponse(why, 403, HEADERS)(scope, receive, send)
            return

        async def send_with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((k.lower().encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        path = scope["path"][1 + len(self._token) :]
        inside = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        await self._app(inside, receive, send_with_headers)

    def _why_not(self, scope: dict) -> str | None:
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        named = headers.get(b"host", [])
        if len(named) != 1 or not knows_host(named[0].decode("latin-1"), self._host):
            return "this server is not known by that name"
        origins = headers.get(b"origin", [])
        if origins and origins != [b"http://" + named[0]]:
            return "another site's pages may not ask this server"
        site = headers.get(b"sec-fetch-site", [b"none"])[0]
        # a link to the page may stand anywhere, if it is followed in a window of its own
        opened = headers.get(b"sec-fetch-dest") == [b"document"] and scope["method"] == "GET"
        if site not in (b"same-origin", b"none") and not opened:
            return "another site's pages may not ask this server"
        start, token, _ = (scope["path"] + "//").encode().split(b"/", 2)
        if start or not secrets.compare_digest(token, self._token):
            return "the link's token is missing: open the link that the command printed"
        if not scope["path"].encode().startswith(b"/" + self._token + b"/"):
            return "the link ends in /"
        return None


def knows_host(named: str, host: str) -> bool:
    """Whether a request names this server as whoever started it may: by loopback, by the address
    it is bound to, and, bound to more than loopback, by any address or this machine's own name."""
    name = named.rpartition(":")[0] if named.rpartition(":")[2].isdigit() else named
    name = name.strip("[]").lower()
    if is_loopback(host):
        return name in ("localhost", host.lower()) or _is_loopback_address(name)
    if name in (host.lower(), "localhost", socket.gethostname().lower(), socket.getfqdn().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return host == "localhost" or _is_loopback_address(host)


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    return secrets.token_urlsafe(18)


def bound(host: str, port: int) -> socket.socket:
    """A socket on which to serve; port 0 is any free one.

    Raises:
      OSError: no such host, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"{host}:{port} cannot be served ({(error.strerror or str(error)).lower()}): choose"
            " another --port or --host"
        ) from error


def server_of(app: Any) -> uvicorn.Server:
    """What serves an application: `.run([listener])`, until Control-C, SIGTERM or should_exit."""
    config = uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="off", ws="none",
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    return uvicorn.Server(config)


def permalink(host: str, port: int, token: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/{token}/"
