"""Random HTTP/2 frames after the preface, alone and in the middle of calls that stream.

The server closes such a connection or goes on with it; nobody else notices, and nothing is left.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable, Iterator

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame
from tests.integration.program.census import open_files
from tests.integration.program.served import Served, until
from tests.integration.program.test_exec import groups, pids_with, start
from tests.integration.program.test_lifecycle import manifest

from cloudless import api

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LIMIT_S = 20.0
MARK = "7801"
ECHO = "nc -ll -p 9000 -e cat & while read -r line; do echo $line; done"


@pytest.fixture(scope="module")
def web(serve: Callable[..., Served]) -> Served:
    made = serve(name="frames")
    start(made, "web")
    text = manifest(name="echo", command=["sh", "-c", ECHO], stdin=True)
    made.cli("apply", "-f", "-", "-q", stdin=text)
    return made


def first_messages(where: dict[str, str]) -> dict[str, bytes]:
    """Method -> what begins a call of it."""
    begin = api.ExecStart(command=["sleep", MARK], stdin=True, **where)
    return {
        "Exec": bytes(api.ExecRequest(start=begin)),
        "Attach": bytes(api.ExecRequest(attach=api.AttachStart(stdin=True, **where))),
        "Forward": bytes(api.ForwardRequest(target=api.ForwardTarget(port=9000, **where))),
        "StreamLogs": bytes(api.StreamLogsRequest(follow=True, **where)),
    }


def begun(service: str, method: str, message: bytes) -> bytes:
    """A call on stream 1 that has sent its first message."""
    fields = {":method": "POST", ":scheme": "http", ":path": f"/cloudless.api.{service}/{method}"}
    fields |= {":authority": "x", "te": "trailers", "content-type": "application/grpc"}
    headers = HeadersFrame(1, hpack.Encoder().encode(list(fields.items())), flags=["END_HEADERS"])
    data = DataFrame(1, struct.pack(">BI", 0, len(message)) + message)
    return bytes(headers.serialize() + data.serialize())


def noise(chance: random.Random, count: int) -> bytes:
    """So many frames of any kind; their lengths are right, but for the last one at times."""
    made = bytearray()
    for _ in range(count):
        payload = chance.randbytes(chance.choice((0, 1, 4, 5, 8, 40, 300)))
        length = struct.pack(">I", len(payload))[1:]
        kind, flags = (
            chance.choice((0, 0, 1, *range(12), 200)),
            chance.choice((0, 0, 1, 4, chance.randrange(256))),
        )
        stream = chance.choice((0, 1, 1, 1, 2, 3, 5, 2**31 - 1))
        made += length + bytes((kind, flags)) + struct.pack(">I", stream) + payload
    if chance.randrange(4) == 0:
        del made[-chance.randrange(1, 9) :]
    return bytes(made)


def answered(address: str, data: bytes) -> list[Frame]:
    """What a connection says to these bytes and their end; it has to end, too."""
    host, _, port = address.rpartition(":")
    said = bytearray()
    with socket.create_connection((host, int(port)), LIMIT_S) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while piece := peer.recv(64 * 1024):
                said += piece
    return list(frames(bytes(said)))


def frames(data: bytes) -> Iterator[Frame]:
    while len(data) >= 9:
        frame, size = Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + size:
            return  # cut off by a reset
        frame.parse_body(memoryview(data[9 : 9 + size]))
        yield frame
        data = data[9 + size :]


@pytest.mark.parametrize("service", ["CoordinatorService", "AgentService"])
async def test_random_frames_harm_nobody_else(web: Served, service: str) -> None:
    chance = random.Random(service)
    agents = service == "AgentService"
    address = web.agent_address if agents else web.address
    calls = first_messages({"replica": web.replicas("echo")[0]["id"]} if agents else {"name": "echo"})
    before, closed = open_files(web), 0
    async with web.client() as client, client.open_exec("web", ["cat"]) as aside:
        for number in range(120):
            method = chance.choice(sorted(calls))
            call = begun(service, method, calls[method]) if number % 3 else b""
            opening = PREFACE + SettingsFrame(0).serialize() + call
            said = answered(address, opening + noise(chance, chance.randrange(1, 12)))
            assert all(isinstance(frame, Frame) for frame in said)
            closed += any(isinstance(frame, GoAwayFrame) and frame.error_code for frame in said)
            if number % 20 == 19:
                await aside.stdin.write(b"still here")
                assert await aside.stdout.read() == b"still here"
        assert closed > 20, "most of it breaks the protocol"
        until(lambda: not pids_with(MARK), "their programs are gone", LIMIT_S)
        await aside.stdin.close()
        assert await aside.wait() == (0, False, "", "")
    folder = web.data_dir / "agent" / "execs"
    until(lambda: not list(folder.glob("*")), "no record is left", LIMIT_S)
    assert groups(web) == []
    until(lambda: open_files(web) <= before + 3, "its files are closed", LIMIT_S)
    assert "Traceback" not in web.log.read_text()
    assert "never retrieved" not in web.log.read_text()
    assert web.replicas("echo")[0]["restarts"] == 0
