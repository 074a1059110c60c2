"""What the tests of this room share: a generated demo API, servers, and raw HTTP/2 peers."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import importlib.resources
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
