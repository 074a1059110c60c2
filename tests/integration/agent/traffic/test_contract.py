"""What every Traffic promises; the one in memory and the kernel's pass the same tests."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cloudless.agent.traffic.kernel import KernelTraffic
from cloudless.agent.traffic.limits import MAX_BACKENDS
from cloudless.agent.traffic.memory import MemoryBoard, MemoryTraffic
from cloudless.agent.traffic.port import Backend, Endpoint, Traffic
from cloudless.domain.errors import Invalid

WEB, ALL, DNS = Endpoint("127.0.0.1", 18088), Endpoint("0.0.0.0", 18089), Endpoint("127.0.0.2", 53, "udp")
A, B, C = (Backend(f"10.213.0.{number}", 8080) for number in (2, 3, 4))


class Machine:
    """Makes Traffic objects that all stand for the same node, as restarts of an agent would."""

    def __init__(self, make: Callable[[], Traffic], listening: Callable[[Endpoint], None]) -> None:
        self.make = make
        self.listening = listening

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Traffic]:
        traffic = self.make()
        try:
            yield traffic
        finally:
            await traffic.close()


@pytest.fixture(params=["memory", "kernel"])
async def machine(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    if request.param == "memory":
        board = MemoryBoard()
        yield Machine(lambda: MemoryTraffic(board), lambda place: board.listening.update({place: "a test"}))
        return
    if os.geteuid() != 0:
        pytest.skip("needs root")
    key = uuid.uuid4().hex
    sockets: list[socket.socket] = []
    made = Machine(
        lambda: KernelTraffic(key),
        lambda place: sockets.append(socket.create_server((place.address, place.port))),
    )
    yield made
    for held in sockets:
        held.close()
    async with made.opened() as last:
        await last.switch({})


async def test_what_was_switched_to_is_in_force_for_everybody(machine: Machine) -> None:
    states: list[dict[Endpoint, tuple[Backend, ...]]] = [
        {WEB: ()},
        {WEB: (A, B, C)},
        {ALL: (A,), WEB: (B, C), DNS: (A, C)},
        {ALL: (), WEB: (B, C), DNS: (A,)},
        {DNS: (A,)},
        {},
        {ALL: (C,)},
    ]
    async with machine.opened() as traffic, machine.opened() as other:
        assert await traffic.read() == {}
        for state in states:
            await traffic.switch(state)
            await traffic.switch(state)
            wanted = {endpoint: tuple(sorted(backends)) for endpoint, backends in state.items()}
            assert await traffic.read() == await other.read() == wanted


async def test_it_outlives_the_object_and_the_next_one_goes_on_from_it(machine: Machine) -> None:
    async with machine.opened() as traffic:
        await traffic.switch({WEB: (A, B), ALL: (C,)})
    async with machine.opened() as again:
        assert await again.read() == {WEB: (A, B), ALL: (C,)}
        await again.switch({WEB: (B,)})
        assert await again.read() == {WEB: (B,)}


@pytest.mark.parametrize("weights", [(9, 1), (99, 1), (1_000_000, 1), (333, 333, 334), (10**9, 10**9, 1)])
async def test_weights_are_kept(machine: Machine, weights: tuple[int, ...]) -> None:
    weighted = tuple(Backend(f"10.213.0.{2 + number}", 8080, weight) for number, weight in enumerate(weights))
    async with machine.opened() as traffic, machine.opened() as other:
        await traffic.switch({WEB: weighted})
        assert await traffic.read() == await other.read() == {WEB: weighted}
        await other.switch({WEB: weighted[::-1]})
        assert await other.read() == {WEB: weighted}


@pytest.mark.parametrize("heavy", [1, 3, 1000])
async def test_many_backends(machine: Machine, heavy: int) -> None:
    count = 500
    many = tuple(
        Backend(f"10.213.{number // 200}.{number % 200 + 1}", 80, heavy if number % 7 == 0 else 1)
        for number in range(count)
    )
    async with machine.opened() as traffic:
        await traffic.switch({WEB: many})
        assert await traffic.read() == {WEB: tuple(sorted(many))}
        await traffic.switch({WEB: many[: count // 2]})
        assert await traffic.read() == {WEB: tuple(sorted(many[: count // 2]))}


async def test_as_many_backends_as_a_port_may_have(machine: Machine) -> None:
    most = tuple(
        Backend(f"10.{213 + number // 60_000}.{number // 250 % 240}.{number % 250 + 1}", 80, 1 + number % 2)
        for number in range(MAX_BACKENDS)
    )
    async with machine.opened() as traffic:
        await traffic.switch({WEB: most})
        assert await traffic.read() == {WEB: tuple(sorted(most))}


async def test_who_listens_on_the_host_is_known(machine: Machine) -> None:
    place = Endpoint("127.0.0.1", 18091)
    async with machine.opened() as traffic:
        assert await traffic.holder(place) is None
        machine.listening(place)
        assert await traffic.holder(place)
        assert await traffic.holder(Endpoint("0.0.0.0", 18091))
        assert await traffic.holder(Endpoint("127.0.0.1", 18091, "udp")) is None


async def test_a_namespace_that_is_gone_has_no_connections(machine: Machine) -> None:
    async with machine.opened() as traffic:
        assert await traffic.connections("/run/no/such/namespace", frozenset({80})) == 0


async def test_what_cannot_be_is_refused_and_changes_nothing(machine: Machine) -> None:
    async with machine.opened() as traffic:
        await traffic.switch({WEB: (A,)})
        with pytest.raises(Invalid):
            await traffic.switch({WEB: (A,), Endpoint("0.0.0.0", WEB.port): (B,)})
        assert await traffic.read() == {WEB: (A,)}
