"""What the tests of this room share: a generated demo API, servers, and raw HTTP/2 peers."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib
import importlib.resources
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import uvloop
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from cloudless.domain.errors import NotFound
from cloudless.transport.channel import connect
from cloudless.transport.context import current_call
from cloudless.transport.fieldplan import INTEGER_RANGE, FieldPlan, ValueType, plan_fields
from cloudless.transport.limits import PUBLIC, Limits
from cloudless.transport.server import GuardedServer

HERE = pathlib.Path(__file__).parent
PACKAGE = "transport_demo_api"


@pytest.fixture(scope="session")
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the generated package and the descriptor set of demo.proto."""
    folder = tmp_path_factory.mktemp("demo")
    package = folder / PACKAGE
    package.mkdir()
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"-I{well_known}", "demo.proto"),
        *(f"--python_betterproto2_out={package}", "--include_imports"),
        "--python_betterproto2_opt=client_generation=async",
        "--python_betterproto2_opt=server_generation=async",
        f"--descriptor_set_out={folder / 'demo.binpb'}",
    ]
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def demo(demo_files: pathlib.Path) -> Iterator[ModuleType]:
    """The generated module: messages, ``EchoStub``, ``EchoBase``."""
    sys.path.insert(0, str(demo_files))
    try:
        yield importlib.import_module(f"{PACKAGE}.demo")
    finally:
        sys.path.remove(str(demo_files))


@pytest.fixture(scope="session")
def descriptors(demo_files: pathlib.Path) -> bytes:
    """A serialized FileDescriptorSet of the demo API and its imports."""
    return (demo_files / "demo.binpb").read_bytes()


@pytest.fixture(scope="session")
def reference(descriptors: bytes) -> Callable[[str], Any]:
    """protobuf's own class for a message of the demo API."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"demo.{name}"))


@pytest.fixture(scope="session")
def random_message() -> Callable[[type[Any], random.Random], Any]:
    """Makes a random message of a generated class, of any depth up to four."""
    return make_message


def make_message(kind: type[Any], chance: random.Random, depth: int = 0) -> Any:
    """A message with about half of its fields set, at most one of each oneof."""
    values: dict[str, Any] = {}
    groups: dict[str, list[FieldPlan]] = {}
    for field in plan_fields(kind):
        if field.value.message is not None and field.value.proto == "message" and depth > 2:
            continue
        if field.group:
            groups.setdefault(field.group, []).append(field)
        elif chance.random() < 0.5:
            values[field.name] = _field(field, chance, depth)
    for members in groups.values():
        if chance.random() < 0.8:
            member = chance.choice(members)
            values[member.name] = _field(member, chance, depth)
    return kind(**values)


def _field(field: FieldPlan, chance: random.Random, depth: int) -> Any:
    if field.key is not None:
        keys = (_value(field.key, chance, depth) for _ in range(chance.randrange(4)))
        return {key: _value(field.value, chance, depth) for key in keys}
    if field.repeated:
        return [_value(field.value, chance, depth) for _ in range(chance.choice((0, 1, 3, 20)))]
    return _value(field.value, chance, depth)


def _value(kind: ValueType, chance: random.Random, depth: int) -> Any:
    if kind.wrapped:
        return _wrapped(kind.message.__name__, chance)
    if kind.proto == "message":
        return make_message(kind.message, chance, depth + 1)
    if kind.proto == "enum":
        return kind.message(chance.choice((0, 1, 2, -7, 99, 2**31 - 1)))
    if kind.proto in INTEGER_RANGE:
        low, high = INTEGER_RANGE[kind.proto]
        return chance.choice((0, 1, 127, 128, 300, low, high, high - 1, chance.randint(low, high)))
    if kind.proto == "float":
        return chance.choice((0.0, -0.0, 1.5, -2.25, float("inf"), float("-inf"), 2.0**-149))
    if kind.proto == "double":
        return chance.choice((0.0, -0.0, 0.1, -1e308, float("inf"), chance.random()))
    if kind.proto == "bool":
        return chance.random() < 0.5
    text = "".join(chance.choice("a/ü€\U0001f40d\0") for _ in range(chance.choice((0, 1, 5, 60, 300))))
    return text if kind.proto == "string" else text.encode()


def _wrapped(name: str, chance: random.Random) -> Any:
    if name == "Timestamp":
        start = datetime.datetime(1, 1, 1, tzinfo=datetime.UTC)
        return start + datetime.timedelta(chance.randrange(3_652_059), microseconds=chance.randrange(10**6))
    if name == "Duration":
        limit_s = chance.choice((1, 10**4, 315_576_000_000 - 1))
        seconds = chance.randint(-limit_s, limit_s)
        return datetime.timedelta(seconds=seconds, microseconds=chance.randrange(10**6) * (seconds >= 0))
    return {"Int64Value": chance.choice((0, -1, 2**63 - 1)), "StringValue": chance.choice(("", "x"))}[name]


@pytest.fixture
def serve(demo: ModuleType, descriptors: bytes) -> Callable[..., Any]:
    """``async with serve(service, limits=...) as (server, port)`` on a port of loopback."""

    @contextlib.asynccontextmanager
    async def serving(
        service: Any, *, limits: Limits = PUBLIC, **options: Any
    ) -> AsyncIterator[tuple[GuardedServer, int]]:
        server = GuardedServer([service], limits=limits, descriptors=descriptors, **options)
        async with server:
            yield server, await server.listen("127.0.0.1", 0)

    return serving


@pytest.fixture
def echo(demo: ModuleType) -> Any:
    """A service that answers with what it gets; ``text`` makes it behave otherwise.

    ``started``, ``ended`` count handlers, ``closed`` generators; ``release`` lets waiting
    handlers go on.
    """

    class Echo(demo.EchoBase):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.started = self.ended = self.closed = 0
            self.release = asyncio.Event()
            self.contexts: list[Any] = []

        async def once(self, message: Any) -> Any:
            self.started += 1
            self.contexts.append(current_call())
            try:
                if message.text == "wait":
                    await self.release.wait()
                elif message.text == "bug":
                    raise KeyError("a secret of the inside")
                elif message.text == "missing":
                    raise NotFound("there is no such thing", hint="look elsewhere")
                elif message.text == "none":
                    return None
                return message
            finally:
                self.ended += 1

        async def many(self, message: Any) -> Any:
            self.started += 1
            try:
                for number in range(message.int32_value):
                    yield demo.Everything(int32_value=number, raw=message.raw)
                if message.text == "wait":
                    await self.release.wait()
                elif message.text == "bug":
                    raise KeyError("a secret of the inside")
            finally:
                self.closed += 1

        async def collect(self, messages: Any) -> Any:
            self.started += 1
            return demo.Everything(int32_list=[message.int32_value async for message in messages])

        async def talk(self, messages: Any) -> Any:
            self.started += 1
            async for message in messages:
                if message.text == "bye":
                    return
                yield message

    return Echo()


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Any]:
    """``await eventually(condition)``: for effects that nobody announces; fails after 10 s."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    return wait


class RawPeer:
    """An HTTP/2 client of h2 and a socket, which may also send what no client would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.events: list[Any] = []
        self.eof = False

    def start(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def raw(self, *frames: Any) -> None:
        """Send frames past h2."""
        self.flush()
        self.writer.write(
            b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        )

    def call(self, method: str, *extra: tuple[str, str], end: bool = False) -> int:
        """Send a request's headers; returns the stream."""
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, request_headers(method, *extra), end_stream=end)
        self.flush()
        return stream

    def message(self, stream: int, data: bytes, *, end: bool = True, flag: int = 0) -> None:
        self.h2.send_data(stream, struct.pack(">BI", flag, len(data)) + data, end_stream=end)
        self.flush()

    async def until(self, found: Callable[[Any], bool]) -> Any:
        """The first event that fits; ``EOFError`` when the server closes before."""
        async with asyncio.timeout(10):
            while True:
                for event in self.events:
                    if found(event):
                        return event
                if self.eof:
                    raise EOFError
                await self.step()

    async def step(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            self.eof = True
            return
        self.events += self.h2.receive_data(data)
        self.flush()

    async def status(self, stream: int) -> dict[str, str]:
        """The fields of the last header block of a call."""

        def last(event: Any) -> bool:
            kinds = h2.events.ResponseReceived | h2.events.TrailersReceived
            return (
                isinstance(event, kinds)
                and event.stream_id == stream
                and b"grpc-status" in dict(event.headers)
            )

        event = await self.until(last)
        return {name.decode(): value.decode() for name, value in event.headers}

    async def closed(self) -> None:
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(10):
            while not self.eof:
                try:
                    await self.step()
                except ConnectionResetError:
                    self.eof = True

    def goaway(self) -> Any:
        """The GOAWAY that came with an error, or None."""
        kind = h2.events.ConnectionTerminated
        return next((event for event in self.events if isinstance(event, kind) and event.error_code), None)


def request_headers(method: str, *extra: tuple[str, str]) -> list[tuple[str, str]]:
    fields = {":method": "POST", ":scheme": "http", ":path": f"/demo.Echo/{method}", ":authority": "x"}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    return list({**fields, **{name: value for name, value in extra if value}}.items())


@pytest.fixture
async def raw_peer() -> AsyncIterator[Callable[[int], Any]]:
    """``await raw_peer(port)`` gives a connected peer that has sent its preface."""
    peers: list[RawPeer] = []

    async def connected(port: int, *, start: bool = True, receive_bytes: int = 0) -> RawPeer:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        peer = RawPeer(*await asyncio.open_connection(sock=sock))
        peers.append(peer)
        if start:
            peer.start()
        return peer

    yield connected
    for peer in peers:
        peer.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await peer.writer.wait_closed()


@pytest.fixture
def client(demo: ModuleType) -> Callable[..., Any]:
    """``async with client(port, ...) as stub``: a stub on a channel of ours."""

    @contextlib.asynccontextmanager
    async def connected(port: int, **options: Any) -> AsyncIterator[Any]:
        channel = connect(f"127.0.0.1:{port}", **options)
        try:
            yield demo.EchoStub(channel)
        finally:
            await channel.aclose()

    return connected


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Every asynchronous test of this room runs on both loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
