"""Forwarded ports with real replicas: who is reached, how connections end, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tests.integration.program.served import Served, command, environment, until
from tests.integration.program.test_lifecycle import manifest

import cloudless
from cloudless.agent.network import namespace
from cloudless.sdk.forward import Forward

LIMIT_S = 60.0
DESCRIPTORS = pathlib.Path(cloudless.__file__).parent / "api" / "descriptors.binpb"
#: Says which replica it is, then echoes; a process for each connection.
ECHO = "nc -ll -p 9000 -e sh -c 'echo $CLOUDLESS_REPLICA_ID; exec cat' & "
#: Sends without end.
ZEROS = "nc -ll -p 9001 -e cat /dev/zero & "
#: Listens on the replica's own 127.0.0.1 and nowhere else.
PAGE = "mkdir /w; echo it works >/w/index.html; httpd -p 127.0.0.1:9002 -h /w; "
WAIT = "exec sleep 1000"
MIB = 1024 * 1024


def start(served: Served, **fields: Any) -> None:
    script = PAGE + ZEROS + ECHO + WAIT  # the one that is probed comes last: then all are there
    fields.setdefault("restart_policy", {"backoff": {"base": "0s"}})
    # Patient: a connection for which ``nc`` has no room at once is tried again by the kernel after 1 s.
    ready = {"tcp": {"port": 9000}, "period": "100ms", "timeout": "10s"}
    text = manifest(name="web", command=["sh", "-c", script], readiness_probe=ready, **fields)
    served.cli("apply", "-f", "-", "-q", stdin=text)


@contextlib.asynccontextmanager
async def forwarded(served: Served, port: int = 9000, **options: Any) -> AsyncIterator[Forward]:
    options.setdefault("on_error", lambda peer, error: print(f"{peer}: {error!r}"))
    async with served.client() as client, client.forward("web", port, **options) as forward:
        yield forward


class Connection:
    """One connection; ``replica`` is the id that the echo service said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.replica = ""

    async def echoes(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(LIMIT_S):
            assert await self.reader.readexactly(len(data)) == data

    async def ended(self) -> None:
        """Wait for the other end to end it, well or not."""
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionResetError):
                await self.reader.read()


@contextlib.asynccontextmanager
async def connected(forward: Forward) -> AsyncIterator[Connection]:
    async with asyncio.timeout(LIMIT_S):
        made = Connection(*await asyncio.open_connection(forward.host, forward.port))
    try:
        async with asyncio.timeout(LIMIT_S):
            made.replica = (await made.reader.readline()).decode().strip()
        yield made
    finally:
        made.writer.close()
        with contextlib.suppress(OSError):
            await made.writer.wait_closed()


async def eventually(fits: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not await asyncio.to_thread(fits):
            await asyncio.sleep(0.05)
    assert what


@contextlib.contextmanager
def running_command(served: Served, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``cloudless port-forward`` as its own process, and its first local port."""
    process = subprocess.Popen(
        command("port-forward", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(CLOUDLESS_ADDRESS=served.address),
    )
    try:
        assert process.stderr is not None
        yield process, int(process.stderr.readline().split()[1].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def test_the_command(tidy: Served) -> None:
    start(tidy)
    with running_command(tidy, "web", ":9000", ":9002") as (process, port):
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as made:
            made.sendall(b"all of it\n")
            made.shutdown(socket.SHUT_WR)
            said = b"".join(iter(lambda: made.recv(1000), b""))
        (replica,) = tidy.replicas("web")
        assert said == f"{replica['id']}\nall of it\n".encode()
        assert process.stderr is not None
        page = int(process.stderr.readline().split()[1].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", page), LIMIT_S) as made:
            made.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"it works" in b"".join(iter(lambda: made.recv(1000), b""))
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0


@contextlib.asynccontextmanager
async def patient_echo(pid: int, port: int) -> AsyncIterator[set[asyncio.StreamWriter]]:
    """An echo service in a replica's network that many may dial at once; its open connections."""
    there: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there.add(writer)
        writer.write(b"ready\n")
        with contextlib.suppress(ConnectionResetError):
            while data := await reader.read(MIB):
                writer.write(data)
                await writer.drain()
        writer.close()
        there.discard(writer)

    network = f"/proc/{pid}/ns/net"
    made = await asyncio.to_thread(namespace.open_socket, network, socket.AF_INET, socket.SOCK_STREAM)
    made.bind(("127.0.0.1", port))
    async with await asyncio.start_server(serve, sock=made, backlog=1024):
        yield there


async def test_two_hundred_connections_at_once(tidy: Served) -> None:
    await asyncio.to_thread(start, tidy)
    (running,) = await tidy.list_running()
    before = descriptors(tidy)
    async with patient_echo(running.pid, 9100) as there, forwarded(tidy, 9100) as forward:
        async with contextlib.AsyncExitStack() as stack:
            opening = (stack.enter_async_context(connected(forward)) for _ in range(200))
            connections = await asyncio.gather(*opening)
            assert forward.open == len(there) == 200
            for size in (1, 50_000):
                await asyncio.gather(
                    *(one.echoes(b"%d" % number * size) for number, one in enumerate(connections))
                )
        await eventually(lambda: not there, "every connection ended in the replica")
    await eventually(lambda: descriptors(tidy) <= before + 5, "no descriptor is left")


async def test_the_next_connection_meets_the_replica_that_took_over(tidy: Served) -> None:
    rollout = {"max_surge": "1", "max_unavailable": "0"}
    await asyncio.to_thread(start, tidy, rollout=rollout)
    async with forwarded(tidy) as forward, connected(forward) as old:
        await old.echoes(b"before")
        await asyncio.to_thread(start, tidy, rollout=rollout, env={"TURN": "2"})
        await old.ended()
        async with connected(forward) as new:
            assert new.replica != old.replica
            (there,) = await asyncio.to_thread(tidy.replicas, "web")
            assert new.replica == there["id"]
            await new.echoes(b"after")


async def test_a_program_that_dies_ends_its_connections(tidy: Served) -> None:
    await asyncio.to_thread(start, tidy)
    async with forwarded(tidy) as forward:
        async with connected(forward) as old:
            (running,) = await tidy.list_running()
            os.kill(running.pid, signal.SIGKILL)
            await old.ended()
        await eventually(lambda: tidy.replicas("web", ready=True, restarts=1), "it runs again")
        async with connected(forward) as new:
            await new.echoes(b"again")


async def test_replicas_are_chosen_in_order_or_by_name(tidy: Served) -> None:
    await asyncio.to_thread(start, tidy, replicas=2)
    found = await asyncio.to_thread(tidy.replicas, "web")
    ids = {replica["ordinal"]: replica["id"] for replica in found}
    async with forwarded(tidy) as forward:
        for _ in range(3):
            async with connected(forward) as made:
                assert made.replica == ids[0]
    async with forwarded(tidy, replica="1") as forward, connected(forward) as made:
        assert made.replica == ids[1]


async def test_what_cannot_be_reached_is_said(tidy: Served) -> None:
    await asyncio.to_thread(start, tidy)
    said: list[cloudless.CloudlessError] = []

    async def fails(port: int, **options: Any) -> cloudless.CloudlessError:
        said.clear()
        async with forwarded(tidy, port, on_error=lambda _, error: said.append(error), **options) as forward:
            reader, writer = await asyncio.open_connection(forward.host, forward.port)
            async with asyncio.timeout(LIMIT_S):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()
        return said[0]

    error = await fails(9999)
    assert isinstance(error, cloudless.PreconditionFailed)
    assert error.message == "connection refused: nothing listens on port 9999 in replica web/0"
    error = await fails(9000, replica="7")
    assert isinstance(error, cloudless.NotFound)
    await asyncio.to_thread(tidy.cli, "scale", "web", "0")
    error = await fails(9000)
    assert isinstance(error, cloudless.PreconditionFailed)
    assert "no replica of workload default/web is ready" in error.message


async def test_who_does_not_read_is_not_sent_more(tidy: Served) -> None:
    await asyncio.to_thread(start, tidy)
    before = memory_bytes(tidy)
    async with forwarded(tidy, 9001) as forward, forwarded(tidy) as other:
        stalled = []
        for _ in range(20):
            made = socket.socket()
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, (forward.host, forward.port))
            stalled.append(made)
        await eventually(lambda: forward.open == 20, "all are open")
        async with connected(other) as made_other:
            for _ in range(50):
                await made_other.echoes(b"not held up" * 100)
        grown = memory_bytes(tidy) - before
        assert grown < 20 * 2 * MIB, f"{grown / MIB:.0f} MiB for 20 connections that nobody reads"
        for made in stalled:
            made.close()
        await eventually(lambda: forward.open == 0, "all have ended")
    await eventually(lambda: cats(tidy) == 0, "and in the replica as well")


@pytest.fixture
def mortal(serve: Callable[..., Served]) -> Served:
    """A program of one's own, to be killed."""
    return serve(name="forward")


async def test_a_port_outlives_the_program(mortal: Served) -> None:
    await asyncio.to_thread(start, mortal)
    async with mortal.client(patience_s=LIMIT_S) as client, client.forward("web", 9000) as forward:
        async with connected(forward) as old:
            await asyncio.to_thread(mortal.kill)
            await old.ended()
        reader, writer = await asyncio.open_connection(forward.host, forward.port)
        await asyncio.to_thread(mortal.start)
        new = Connection(reader, writer)
        assert await reader.readline()
        await new.echoes(b"nothing was lost")
        writer.close()
        await writer.wait_closed()
    await eventually(lambda: cats(mortal) == 0, "the old connection has ended in the replica too")
    await asyncio.to_thread(mortal.cli, "delete", "web", "--grace", "0s", "--wait", "-q")


def cats(served: Served) -> int:
    """Processes that serve a connection in the replica."""
    out = served.cli("exec", "web", "--", "ps", "-o", "args").out
    return sum(line.startswith("cat") for line in out.splitlines())


def descriptors(served: Served) -> int:
    assert served.process is not None
    return len(list(pathlib.Path(f"/proc/{served.process.pid}/fd").iterdir()))


def memory_bytes(served: Served) -> int:
    assert served.process is not None
    text = pathlib.Path(f"/proc/{served.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024


@pytest.mark.parametrize("service", ["CoordinatorService", "AgentService"])
def test_any_grpc_client_can_forward(tidy: Served, service: str) -> None:
    """grpcio, with messages of protobuf's own making; a node is asked for one of its replicas."""
    start(tidy)
    (replica,) = tidy.replicas("web")
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    kinds = [pool.FindMessageTypeByName(f"cloudless.api.Forward{name}") for name in ("Request", "Response")]
    request, response = (message_factory.GetMessageClass(kind) for kind in kinds)
    coordinator = service == "CoordinatorService"
    where = {"name": "web"} if coordinator else {"replica": replica["id"]}
    said = [request(target={**where, "port": 9000}), request(data=b"all of it\n"), request(end=True)]
    with grpc.insecure_channel(tidy.address if coordinator else tidy.agent_address) as channel:
        call = channel.stream_stream(
            f"/cloudless.api.{service}/Forward",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answers = list(call(iter(said), timeout=LIMIT_S))
        assert (answers[0].opened.replica, answers[-1].end) == ("web/0", True)
        assert b"".join(one.data for one in answers) == f"{replica['id']}\nall of it\n".encode()
        where["port"] = 9999
        with pytest.raises(grpc.RpcError, match="nothing listens on port 9999") as refused:
            list(call(iter([request(target=where)]), timeout=LIMIT_S))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]


def test_a_local_port_that_is_taken(tidy: Served) -> None:
    start(tidy)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = tidy.cli("port-forward", "web", f"{port}:9000", code=1)
    assert f"cannot listen on 127.0.0.1:{port}: the address is in use" in result.err
    until(lambda: cats(tidy) == 0, "nothing was begun")
