"""The health port: /health, /livez, /readyz and /metrics over plain HTTP.

A role gives the functions that answer; this module only serves them. aiohttp is imported
when the port is opened, so that commands which never open one do not pay for it. Bodies
of requests are not read, and nothing can be changed through this port.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

#: Largest header block and body that is read, in bytes.
MAX_HEADER_BYTES = 8 * 1024
MAX_BODY_BYTES = 1024
#: How long open requests may go on when the port closes, in seconds.
SHUTDOWN_S = 1.0


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
    from aiohttp import web

    from cloudless.telemetry.metrics import CONTENT_TYPE

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return _json(405, {"error": "only GET and HEAD"})
        match request.path:
            case "/health":
                return _page(await pages.health())
            case "/livez":
                return _page(pages.livez())
            case "/readyz":
                return _page(pages.readyz())
            case "/metrics":
                return web.Response(body=pages.metrics(), headers={"Content-Type": CONTENT_TYPE})
        return _json(404, {"error": "there are /health, /livez, /readyz and /metrics"})

    server = web.Server(answer, access_log=None, max_field_size=MAX_HEADER_BYTES)
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _page(page: Page) -> web.Response:
    return _json(200 if page.ok else 503, page.body)


def _json(status: int, body: Mapping[str, Any]) -> web.Response:
    from aiohttp import web

    data = json.dumps(body, indent=2, default=str).encode() + b"\n"
    return web.Response(status=status, body=data, content_type="application/json")
