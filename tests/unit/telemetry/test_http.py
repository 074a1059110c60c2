"""The health port alone: what answers what."""

from __future__ import annotations

import asyncio
import json

import pytest

from cloudless.telemetry import http
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
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


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


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("evil.test", 421),
        ("evil.test:80", 421),
        ("192.0.2.1", 421),
        ("127.0.0.1:8081", 200),
        ("[::1]:1", 200),
    ],
)
async def test_a_name_that_somebody_points_here_gets_nothing(name: str, status: int) -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        assert (await request(port, get("/health").replace("localhost", name)))[0] == status


async def test_a_taken_port_is_an_error() -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        with pytest.raises(OSError, match="in use"):
            async with serve_pages("127.0.0.1", port, PAGES):
                pass


async def test_a_connection_carries_many_requests() -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"connection: keep-alive" in head
            assert json.loads(await reader.readline()) == {}
        writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert b"connection: close" in await reader.read()
        writer.close()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("nonsense\r\n\r\n", 400),
        ("GET /livez HTTP/3\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\n: empty\r\n\r\n", 400),
        ("GET /livez HTTP/1.1\r\n folded: 1\r\n\r\n", 400),
        (f"GET /livez HTTP/1.1\r\nlong: {'x' * 9000}\r\n\r\n", 431),
        ("POST /livez HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 405),
        ("GET /livez HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello", 200),
        ("\xff\xfe\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_is_refused_and_ends_the_connection(text: str, status: int) -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        assert (await request(port, text))[0] == status
        assert (await request(port, get("/livez")))[0] == 200


async def test_a_page_that_fails_is_an_answer_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Page:
        raise RuntimeError("planted")

    pages = Pages(health, broken, broken, lambda: b"")
    async with serve_pages("127.0.0.1", 0, pages) as port:
        assert (await request(port, get("/livez")))[0] == 500
        assert (await request(port, get("/health")))[0] == 200
    assert "planted" in caplog.text


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 1)
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        other, closing = await asyncio.open_connection("127.0.0.1", port)
        assert await other.read() == b""
        closing.close()
        writer.close()


async def test_silent_connections_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.01)
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez")
        assert await reader.read() == b""
        writer.close()


async def test_open_connections_do_not_hold_up_the_end() -> None:
    async with serve_pages("127.0.0.1", 0, PAGES) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b"{}\n"
    writer.close()


async def test_an_answer_under_way_goes_out_when_the_port_closes() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow() -> Page:
        asked.set()
        await go.wait()
        return Page(True, {"slow": True})

    pages = Pages(slow, lambda: Page(True, {}), lambda: Page(True, {}), lambda: b"")
    async with asyncio.TaskGroup() as group:
        async with serve_pages("127.0.0.1", 0, pages) as port:
            answer = group.create_task(request(port, get("/health")))
            await asked.wait()
            group.create_task(_set(go))
        assert (await answer)[0] == 200


async def _set(event: asyncio.Event) -> None:
    event.set()
