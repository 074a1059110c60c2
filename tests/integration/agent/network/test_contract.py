"""What every Network promises; the one in memory and the kernel's pass the same tests."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.ports import free_port

from cloudless.agent.network.kernel import KernelNetwork
from cloudless.agent.network.memory import MemoryHost, MemoryNetwork
from cloudless.agent.network.port import HostPort, HostPortTaken, Network
from cloudless.domain.errors import Invalid


class Machine:
    """Makes Network objects that all stand for the same node, as restarts of an agent would."""

    def __init__(self, make: Callable[[], Network], listening: Callable[[HostPort, str], None]) -> None:
        self.make = make
        self.listening = listening


@pytest.fixture(params=["memory", "kernel"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    if request.param == "memory":
        host = MemoryHost()
        yield Machine(lambda: MemoryNetwork(host), lambda port, who: host.listening.update({port: who}))
        return
    if os.geteuid() != 0:
        pytest.skip("needs root")
    key = uuid.uuid4().hex
    run = Path("/run") / f"cloudless-test-{key}"
    sockets: list[socket.socket] = []

    def listen(port: HostPort, _: str) -> None:
        sockets.append(socket.create_server((port.host_ip, port.host_port)))

    # Not one of the default ranges: those are for agents, of which some may run here.
    network_range = f"10.{random.randint(233, 243)}.{random.randint(0, 255)}.0/24"

    def make() -> KernelNetwork:
        return KernelNetwork(key, tmp_path / "network", run_directory=run, network_range=network_range)

    yield Machine(make, listen)
    for held in sockets:
        held.close()
    last = make()
    await last.collect(())
    await last.close()
    shutil.rmtree(run, ignore_errors=True)


@asynccontextmanager
async def opened(machine: Machine) -> AsyncIterator[Network]:
    network = machine.make()
    try:
        yield network
    finally:
        await network.close()


async def test_attach_again_gives_the_same(machine: Machine) -> None:
    async with opened(machine) as network:
        first = await network.attach("one", hostname="web-0")
        assert await network.attach("one", hostname="web-0") == first
        assert first.hostname == "web-0"
        assert first.netns_path is not None
        assert first.gateway is not None
        assert await network.list() == (first,)


async def test_ten_at_once_have_ten_addresses(machine: Machine) -> None:
    async with opened(machine) as network:
        made = await asyncio.gather(*(network.attach(f"r{i}", hostname="web") for i in range(10)))
        assert len({attachment.address for attachment in made}) == 10
        assert await network.list() == tuple(sorted(made, key=lambda one: one.id))
        await asyncio.gather(*(network.detach(one.id) for one in made))
        assert await network.list() == ()


async def test_a_freed_address_rests(machine: Machine) -> None:
    async with opened(machine) as network:
        first = await network.attach("one", hostname="web")
        await network.detach("one")
        second = await network.attach("two", hostname="web")
        assert second.address != first.address


async def test_detach_can_be_repeated(machine: Machine) -> None:
    async with opened(machine) as network:
        await network.attach("one", hostname="web")
        await network.detach("one")
        await network.detach("one")
        await network.detach("never-there")
        assert await network.list() == ()


async def test_survives_its_process(machine: Machine) -> None:
    port = HostPort(free_port(), 80)
    async with opened(machine) as network:
        before = await network.attach("one", hostname="web", host_ports=(port,))
    async with opened(machine) as network:
        assert await network.list() == (before,)
        assert await network.attach("one", hostname="web", host_ports=(port,)) == before
        other = await network.attach("two", hostname="web")
        assert other.address != before.address


async def test_collect_keeps_what_is_kept(machine: Machine) -> None:
    async with opened(machine) as network:
        kept = await network.attach("kept", hostname="web")
        await network.attach("gone", hostname="web")
        assert await network.collect({"kept", "unknown"}) == ("gone",)
        assert await network.list() == (kept,)
        assert await network.collect({"kept"}) == ()


async def test_host_network_has_no_namespace(machine: Machine) -> None:
    async with opened(machine) as network:
        made = await network.attach("one", hostname="web", host_network=True)
        assert (made.netns_path, made.gateway, made.interface) == (None, None, None)
        assert made.address
        assert await network.list() == (made,)
        await network.detach("one")
        assert await network.list() == ()


async def test_a_host_port_belongs_to_one(machine: Machine) -> None:
    number = free_port()
    async with opened(machine) as network:
        await network.attach("one", hostname="web", host_ports=(HostPort(number, 80),))
        with pytest.raises(HostPortTaken) as caught:
            await network.attach(
                "two", hostname="web", host_ports=(HostPort(number, 81, host_ip="127.0.0.1"),)
            )
        assert caught.value.by == "attachment one"
        assert [one.id for one in await network.list()] == ["one"]
        await network.attach("two", hostname="web", host_ports=(HostPort(number, 80, "udp"),))
        await network.detach("one")
        await network.attach("three", hostname="web", host_ports=(HostPort(number, 80),))


async def test_a_port_of_a_process_is_not_taken_away(machine: Machine) -> None:
    port = HostPort(free_port(), 80)
    machine.listening(port, "a process")
    async with opened(machine) as network:
        with pytest.raises(HostPortTaken, match=str(port.host_port)):
            await network.attach("one", hostname="web", host_ports=(port,))
        assert await network.list() == ()


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "a\0b", "x" * 200, ".hidden"])
async def test_bad_ids_are_refused(machine: Machine, bad: str) -> None:
    async with opened(machine) as network:
        with pytest.raises(Invalid):
            await network.attach(bad, hostname="web")


async def test_ports_of_one_attachment_must_differ(machine: Machine) -> None:
    async with opened(machine) as network:
        with pytest.raises(Invalid, match="twice"):
            await network.attach(
                "one", hostname="web", host_ports=(HostPort(80, 80), HostPort(80, 81, host_ip="127.0.0.1"))
            )
