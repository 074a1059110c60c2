"""The protocol on broken input, and its inbox: no byte sequence may raise out of it."""

from __future__ import annotations

import asyncio
import random
import struct
from types import ModuleType
from typing import Any

import h2.config
import h2.connection
import pytest

from cloudless.transport.codec import encode
from cloudless.transport.frames import Budget
from cloudless.transport.listen import PREFACE
from cloudless.transport.server import GuardedServer
from cloudless.transport.stream import Inbox, TruncatedMessage


class FakeTransport:
    """A socket that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 5) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def session(demo: ModuleType) -> bytes:
    """What a client sends for some calls: good bytes, to be broken."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    peer.initiate_connection()
    peer.ping(b"12345678")
    for method in ("Once", "Many", "Talk", "Nothing"):
        stream = peer.get_next_available_stream_id()
        fields = {":method": "POST", ":scheme": "http", ":path": f"/demo.Echo/{method}", ":authority": "x"}
        fields |= {"te": "trailers", "content-type": "application/grpc", "grpc-timeout": "1S"}
        peer.send_headers(stream, list(fields.items()))
        data = encode(demo.Everything(text=method, int32_value=3))
        peer.send_data(stream, struct.pack(">BI", 0, len(data)) + data, end_stream=method != "Talk")
    peer.prioritize(1, weight=5)
    peer.reset_stream(5)
    return bytes(peer.data_to_send())


@pytest.mark.parametrize("seed", range(150))
async def test_no_bytes_raise_out_of_a_connection(
    seed: int, demo: ModuleType, echo: Any, descriptors: bytes
) -> None:
    chance = random.Random(seed)
    data = bytearray(session(demo))
    for _ in range(chance.randrange(0, 6)):
        place = chance.randrange(len(PREFACE), len(data))
        kind = chance.randrange(3)
        if kind == 0:
            data[place] = chance.randrange(256)
        elif kind == 1:
            del data[place : place + chance.randrange(1, 30)]
        else:
            data[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 30)))
    async with GuardedServer([echo], descriptors=descriptors) as server:
        protocol = server.protocol()
        transport: Any = FakeTransport()
        protocol.connection_made(transport)
        position = 0
        while position < len(data) and not transport.closing:
            size = chance.choice((1, 9, 50, 1000))
            protocol.data_received(bytes(data[position : position + size]))
            position += size
            await asyncio.sleep(0)
        protocol.connection_lost(None)
    assert server.running_calls == 0
    assert not protocol.processor.streams


async def test_an_inbox_gives_window_back_as_it_is_read() -> None:
    given: list[int] = []
    inbox = Inbox(given.append)
    inbox.add(b"abcdef", 6)
    assert given == []
    assert await inbox.read(2) == b"ab"
    assert given == [2]
    inbox.add(b"gh", 8)  # six bytes are padding, which nobody reads
    assert given == [2, 6]
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(inbox.read(10))
        await asyncio.sleep(0)
        assert sum(given) == 14  # a reader that needs more than there is gets room for it
        inbox.add(b"ijkl", 4)
    assert reading.result() == b"cdefghijkl"
    assert sum(given) == 18
    inbox.eof()
    assert await inbox.read(1) == b""


async def test_an_inbox_tells_truncation_from_the_end() -> None:
    inbox = Inbox(lambda size: None)
    inbox.add(b"abc", 3)
    inbox.eof()
    with pytest.raises(TruncatedMessage, match="2 bytes too early"):
        await inbox.read(5)
    assert inbox.complete
    assert not inbox.ended
    assert inbox.unacked_size() == 3
    assert inbox.unacked_size() == 0
    assert inbox.ended


async def test_an_inbox_of_tiny_frames_takes_no_more_memory_than_their_bytes() -> None:
    inbox = Inbox(lambda size: None)
    for _ in range(100_000):
        inbox.add(b"x", 1)
    assert len(inbox) == 100_000
    assert inbox._data.__sizeof__() < 200_000


def test_a_budget_gives_back_what_had_a_reason() -> None:
    budget = Budget(3, 10.0, lambda: 0.0)
    assert all(budget.spend() for _ in range(3))
    budget.credit(2)
    assert budget.spend(2)
    assert not budget.spend()
    budget.credit(100)
    assert budget.spend(3)
    assert not budget.spend()
