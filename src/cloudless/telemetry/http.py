"""The health port: /health, /livez, /readyz and /metrics over plain HTTP/1.1.

A role gives the functions that answer; this module only serves them. Requests have no
bodies, nothing can be changed through this port, and everything about a connection is
bounded. It is written by hand because a web framework would hold more memory than all of
the coordinator (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

log = logging.getLogger(__name__)

#: Largest request line with all headers, in bytes.
MAX_HEAD_BYTES = 8 * 1024
#: Connections at the same time; more are closed at once.
MAX_CONNECTIONS = 64
#: How long a connection may take to send its next request, and to take an answer, in seconds.
IDLE_S = 30.0
SEND_S = 10.0
#: How long open requests may go on when the port closes, in seconds.
SHUTDOWN_S = 1.0

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: whether all is well (200) or not (503), and a JSON body."""

    ok: bool
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pages:
    """What answers each path."""

    health: Callable[[], Awaitable[Page]]
    livez: Callable[[], Page]
    readyz: Callable[[], Page]
    metrics: Callable[[], bytes]


@asynccontextmanager
async def serve_pages(host: str, port: int, pages: Pages) -> AsyncIterator[int]:
    """Serve ``pages`` as long as the block lasts; yields the port (the kernel's choice for 0).

    Raises ``OSError`` when the address cannot be used.
    """
    connections = _Connections(pages, is_loopback(host))
    server = await asyncio.start_server(connections.serve, host, port, limit=MAX_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await connections.end()


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    host: str
    #: Whether the connection can carry another request after this one.
    keep: bool


class _Refused(Exception):
    """A request that is not read any further."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class _Connections:
    """Every connection is a task of the listening server; ``end`` waits for all of them."""

    def __init__(self, pages: Pages, loopback: bool) -> None:
        self._pages = pages
        self._loopback = loopback
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        #: Connections that are between two requests: nobody loses anything when they end.
        self._idle: set[asyncio.Task[Any]] = set()
        self._ending = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests in turn."""
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._open) < MAX_CONNECTIONS and not self._ending:
                self._open[task] = writer
                while await self._one(task, reader, writer):
                    pass
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            log.debug("a connection to the health port ended", extra={"why": repr(error)})
        finally:
            self._open.pop(task, None)
            self._idle.discard(task)
            writer.close()

    async def end(self) -> None:
        """Let answers that are under way go out, then close everything."""
        self._ending = True
        for task in self._idle:
            self._open[task].close()
        if self._open:
            _, late = await asyncio.wait(tuple(self._open), timeout=SHUTDOWN_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _one(
        self, task: asyncio.Task[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read and answer one request; whether there may be another."""
        keep, with_body = False, True
        try:
            self._idle.add(task)
            async with asyncio.timeout(IDLE_S):
                head = await reader.readuntil(b"\r\n\r\n")
            self._idle.discard(task)
            request = parse(head)
            with_body = request.method != "HEAD"
            keep = request.keep and not self._ending
            status, kind, body = await self._answer(request)
        except asyncio.LimitOverrunError:
            status, kind, body = _json(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": "too long"})
        except _Refused as refused:
            status, kind, body = _json(refused.status, {"error": str(refused)})
        writer.write(_encoded(status, kind, body, keep=keep, with_body=with_body))
        async with asyncio.timeout(SEND_S):
            await writer.drain()
        return keep

    async def _answer(self, request: _Request) -> tuple[HTTPStatus, str, bytes]:
        from cloudless.telemetry.metrics import CONTENT_TYPE

        if self._loopback and not is_loopback(request.host):
            # A page of the web whose name was pointed at this machine: its browser would read us.
            return _json(HTTPStatus.MISDIRECTED_REQUEST, {"error": "ask for it as localhost"})
        if request.method not in ("GET", "HEAD"):
            return _json(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "only GET and HEAD"})
        try:
            match request.path:
                case "/health":
                    return _page(await self._pages.health())
                case "/livez":
                    return _page(self._pages.livez())
                case "/readyz":
                    return _page(self._pages.readyz())
                case "/metrics":
                    return HTTPStatus.OK, CONTENT_TYPE, self._pages.metrics()
        except Exception:
            log.exception("a page of the health port failed", extra={"path": request.path})
            return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "see the log"})
        return _json(HTTPStatus.NOT_FOUND, {"error": "there are /health, /livez, /readyz and /metrics"})


def parse(head: bytes) -> _Request:
    """What a request asks for; raises ``_Refused`` for what is no HTTP/1 request.

    >>> parse(b"GET /livez?x=1 HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
    _Request(method='GET', path='/livez', host='', keep=False)
    """
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    headers: dict[str, str] = {}
    for line in lines[1:-2]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refused(HTTPStatus.BAD_REQUEST)
        headers[name.lower()] = value.strip().lower()
    # A body is not read, so nothing after it could be understood.
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    asked = {word.strip() for word in headers.get("connection", "").split(",")}
    keep = "close" not in asked and (words[2] == "HTTP/1.1" or "keep-alive" in asked)
    return _Request(words[0], words[1].partition("?")[0], headers.get("host", ""), keep and not has_body)


def is_loopback(host: str) -> bool:
    """Whether ``host``, with or without a port, means this machine to everybody; or is not given.

    >>> [is_loopback(host) for host in ("localhost:8081", "127.0.0.1", "[::1]:80", "evil.test", "10.0.0.1")]
    [True, True, True, False, False]
    """
    name = host[1:].partition("]")[0] if host.startswith("[") else host
    name = name.rpartition(":")[0] if name.count(":") == 1 else name
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _encoded(status: HTTPStatus, kind: str, body: bytes, *, keep: bool, with_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        f"connection: {'keep-alive' if keep else 'close'}",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("allow: GET, HEAD")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + body if with_body else head


def _page(page: Page) -> tuple[HTTPStatus, str, bytes]:
    return _json(HTTPStatus.OK if page.ok else HTTPStatus.SERVICE_UNAVAILABLE, page.body)


def _json(status: HTTPStatus, body: Mapping[str, Any]) -> tuple[HTTPStatus, str, bytes]:
    return status, JSON_TYPE, json.dumps(body, indent=2, default=str).encode() + b"\n"
