"""The health port alone: what answers what."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from cloudless.telemetry.http import Page, Pages, serve_pages


async def request(port: int, text: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def get(path: str, method: str = "GET") -> str:
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def health() -> Page:
    return Page(True, {"status": "ok", "at": object})


PAGES = Pages(health, lambda: Page(True, {}), lambda: Page(False, {"ready": False}), lambda: b"a_metric 1\n")


async def test_pages() -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        status, body = await request(port, get("/health"))
        assert (status, json.loads(body)["status"]) == (200, "ok")
        assert (await request(port, get("/livez")))[0] == 200
        assert (await request(port, get("/readyz")))[0] == 503
        assert await request(port, get("/metrics")) == (200, b"a_metric 1\n")
        assert (await request(port, get("/nothing")))[0] == 404
        assert (await request(port, get("/health", "DELETE")))[0] == 405
        assert await request(port, get("/health", "HEAD")) == (200, b"")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_is_an_error() -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        with pytest.raises(OSError, match="in use"):
            async with serve_pages("127.0.0.1", port, PAGES):
                pass


def test_aiohttp_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, cloudless.telemetry.http, cloudless.coordinator.main; sys.exit('aiohttp' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": "src"}).returncode == 0
    )
