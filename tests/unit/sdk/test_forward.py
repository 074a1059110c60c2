"""Forwarded ports, as programs use them; the coordinator's side echoes."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

import cloudless
from cloudless.domain.errors import Exhausted, PreconditionFailed, Unavailable
from cloudless.sdk import forward as forwarding
from cloudless.sdk.limits import STREAMS_PER_CHANNEL
from cloudless.transport.listen import AddressInUse, CannotListen

MIB = 1024 * 1024
LIMIT_S = 10.0


@pytest.fixture
async def web(client, fake):
    """A client of a coordinator that has a workload "web"."""
    await client.create(cloudless.Workload("web", image="web:1"))
    return client


class Local:
    """One connection to a forwarded port."""

    def __init__(self, forward) -> None:
        self._where = (forward.host, forward.port)
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        try:
            await self._loop.sock_connect(self.socket, self._where)
        except OSError:
            self.socket.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    async def say(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, data)

    async def hear(self) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self._loop.sock_recv(self.socket, MIB)

    async def hear_all(self) -> bytes:
        found = b""
        while data := await self.hear():
            found += data
        return found

    def cut(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


async def until(fits) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not fits():
            await asyncio.sleep(0.01)


async def test_a_port_leads_to_the_workload(web, fake):
    async with web.forward("web", 80, replica="0") as forward:
        assert forward.address == str(forward) == f"127.0.0.1:{forward.port}"
        async with Local(forward) as local:
            await local.say(b"hello")
            assert await local.hear() == b"hello"
            assert forward.open == 1
        await until(lambda: forward.open == 0)
    (asked,) = fake.asked("forward")
    target = asked.target
    assert (target.namespace, target.name, target.replica, target.port) == ("default", "web", "0", 80)


async def test_a_workload_leads_to_itself(web, fake):
    workload = await web.get("web")
    async with workload.forward(80, replica="0") as forward, Local(forward) as local:
        await local.say(b"hello")
        assert await local.hear() == b"hello"
    (asked,) = fake.asked("forward")
    assert (asked.target.name, asked.target.replica, asked.target.port) == ("web", "0", 80)


async def test_each_side_may_end_first(web):
    async with web.forward("web", 80) as forward, Local(forward) as local:
        await local.say(b"all of it")
        local.socket.shutdown(socket.SHUT_WR)
        assert await local.hear_all() == b"all of it"
        await until(lambda: forward.open == 0)


async def test_many_bytes_arrive_as_they_were(web, fake):
    data = bytes(range(256)) * 4096 * 8
    async with web.forward("web", 80) as forward, Local(forward) as local:
        hearing = asyncio.ensure_future(local.hear_all())
        await local.say(data)
        local.socket.shutdown(socket.SHUT_WR)
        assert await hearing == data


async def test_many_connections_at_once(web):
    """More than one connection to the coordinator may carry."""
    count = 3 * STREAMS_PER_CHANNEL + 8

    async def one(forward, number):
        async with Local(forward) as local:
            await local.say(b"%d" % number)
            said = await local.hear()
            everybody.append(said)
            await all_there.wait()
            await local.say(b"again")
            assert await local.hear() == b"again"

    async with web.forward("web", 80) as forward:
        everybody: list[bytes] = []
        all_there = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(forward, number))
            await until(lambda: len(everybody) == count)
            assert forward.open == count
            all_there.set()
        assert sorted(everybody) == sorted(b"%d" % number for number in range(count))
        await until(lambda: forward.open == 0)


async def test_who_reads_nothing_is_sent_no_more(web, fake):
    """Memory stays bounded: the rest waits where it comes from."""
    async with web.forward("web", 80) as forward, Local(forward) as local, Local(forward) as other:
        sent, before = 0, -1
        while sent != before:
            before = sent
            try:
                while True:
                    sent += local.socket.send(bytes(MIB))
            except BlockingIOError:
                await asyncio.sleep(0.2)
        assert sent < 32 * MIB
        await other.say(b"not held up")
        assert await other.hear() == b"not held up"
        read = 0
        while read < sent:
            read += len(await local.hear())
        assert fake.forwarded >= sent


async def test_who_leaves_ends_the_call(web, fake):
    async with web.forward("web", 80) as forward:
        async with Local(forward) as local:
            await local.say(b"x")
            assert await local.hear() == b"x"
            local.cut()
        await until(lambda: forward.open == 0)


async def test_a_connection_that_the_replica_cuts_is_cut(web):
    said = []
    async with web.forward("web", 80, on_error=lambda *what: said.append(what)) as forward:
        async with Local(forward) as local:
            await local.say(b"fail")
            with pytest.raises(ConnectionResetError):
                await local.hear()
        ((peer, error),) = said
        assert peer.startswith("127.0.0.1:")
        assert isinstance(error, Unavailable)
        assert "cut the connection" in error.message
        async with Local(forward) as local:
            await local.say(b"the port lives")
            assert await local.hear() == b"the port lives"


@pytest.mark.parametrize("error", [PreconditionFailed("connection refused"), Exhausted("500 are open")])
async def test_a_refused_connection_is_cut_and_told_of(web, fake, error):
    said = []
    fake.failures["forward"] = [error]
    async with web.forward("web", 80, on_error=lambda peer, why: said.append(why.message)) as forward:
        async with Local(forward) as local:
            with pytest.raises(ConnectionResetError):
                await local.hear()
        assert said == [error.message]


async def test_new_connections_wait_for_a_coordinator_that_is_away(web, fake):
    fake.failures["forward"] = [Unavailable("no leader", retry_after_s=0.01) for _ in range(3)]
    async with web.forward("web", 80) as forward, Local(forward) as local:
        await local.say(b"patience")
        assert await local.hear() == b"patience"
        assert len(fake.asked("forward")) == 4


async def test_a_coordinator_that_dies_and_comes_back(fake):
    from fake_coordinator import FakeCoordinator

    coordinator = FakeCoordinator()
    async with coordinator.serving() as address:
        client = cloudless.connect(address, patience_s=10)
        await client.__aenter__()
        await client.create(cloudless.Workload("web", image="web:1"))
        forward = client.forward("web", 80)
        await forward.__aenter__()
        old = Local(forward)
        await old.__aenter__()
        await old.say(b"x")
        assert await old.hear() == b"x"
    with pytest.raises(ConnectionResetError):
        await old.hear()
    await old.__aexit__()
    async with Local(forward) as new:
        await new.say(b"sent while nobody was there")
        async with coordinator.serving(int(address.rpartition(":")[2])):
            assert await new.hear() == b"sent while nobody was there"
            await forward.__aexit__(None, None, None)
            await client.__aexit__(None, None, None)


async def test_patience_ends(web, fake):
    web.patience_s = 0.05
    said = []
    fake.failures["forward"] = [Unavailable("no leader", retry_after_s=0.01) for _ in range(99)]
    failed = web.forward("web", 80, on_error=lambda peer, why: said.append(why.message))
    async with failed as forward, Local(forward) as local:
        with pytest.raises(ConnectionResetError):
            await local.hear()
    assert said == ["no leader"]


async def test_leaving_ends_open_connections(web):
    async with web.forward("web", 80) as forward:
        local = Local(forward)
        await local.__aenter__()
        await local.say(b"x")
        assert await local.hear() == b"x"
    with pytest.raises(ConnectionResetError):
        await local.hear()
    await local.__aexit__()
    with pytest.raises(ConnectionRefusedError):
        await Local(forward).__aenter__()


async def test_a_port_that_is_taken(web):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"127.0.0.1:{port}"):
            await web.forward("web", 80, local_port=port).__aenter__()
    with pytest.raises(CannotListen):
        await web.forward("web", 80, host="203.0.113.7").__aenter__()
    with pytest.raises(CannotListen):
        await web.forward("web", 80, host="no such host").__aenter__()


async def test_ports_that_cannot_be(web):
    for fields in ({"port": 0}, {"port": 65536}, {"port": 80, "local_port": -1}):
        with pytest.raises(cloudless.Invalid, match="must be between"):
            web.forward("web", **fields)


async def test_the_other_loopback(web):
    async with web.forward("web", 80, host="::1") as forward:
        assert forward.address == f"[::1]:{forward.port}"
        reader, writer = await asyncio.open_connection("::1", forward.port)
        writer.write(b"six")
        assert await reader.read(3) == b"six"
        writer.close()
        await writer.wait_closed()


async def test_connections_beyond_the_limit_wait(web, monkeypatch):
    monkeypatch.setattr(forwarding, "MAX_FORWARDS", 1)
    async with web.forward("web", 80) as forward, Local(forward) as first:
        await first.say(b"x")
        assert await first.hear() == b"x"
        async with Local(forward) as second:
            await second.say(b"later")
            assert forward.open == 1
            first.socket.shutdown(socket.SHUT_WR)
            assert await second.hear() == b"later"
