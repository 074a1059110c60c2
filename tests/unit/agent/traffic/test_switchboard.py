"""Who takes part in published ports, and that the newest wish is in force in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.agent.virtual import virtual, virtual_clock
from tests.unit.agent.world import assignment

from cloudless.agent.network.memory import MemoryHost, MemoryNetwork
from cloudless.agent.traffic.limits import INSPECTION_S
from cloudless.agent.traffic.memory import MemoryBoard, MemoryTraffic
from cloudless.agent.traffic.port import Backend, Endpoint, PortTaken
from cloudless.agent.traffic.switchboard import Switchboard
from cloudless.aio.supervise import Supervisor
from cloudless.domain.replica import Assignment

WEB = Endpoint("127.0.0.1", 8088)
PORTS = {"ports": [{"container_port": 80, "publish": 8088}, {"container_port": 81}]}


def of(replica_id: str, name: str = "web") -> Assignment:
    return assignment(replica_id, **PORTS).replaced(name=name)


@asynccontextmanager
async def switchboard(board: MemoryBoard, host: MemoryHost | None = None) -> AsyncIterator[Switchboard]:
    made = Switchboard(MemoryTraffic(board), MemoryNetwork(host), virtual_clock())
    await made.adopt()
    async with Supervisor("test") as tasks:
        tasks.start("traffic", made.run())
        yield made


async def entered(made: Switchboard, replica_id: str, address: str) -> None:
    await made.open(of(replica_id))
    made.enter(of(replica_id), address, f"/netns/{replica_id}")


@virtual
async def test_open_enter_leave_close() -> None:
    board = MemoryBoard()
    async with switchboard(board) as made:
        await made.open(of("r1"))
        assert await made.settled(1)
        assert board.services == {WEB: ()}
        assert not made.has_served("r1")
        await entered(made, "r1", "10.0.0.1")
        await entered(made, "r2", "10.0.0.2")
        assert await made.settled(1)
        assert board.services == {WEB: (Backend("10.0.0.1", 80), Backend("10.0.0.2", 80))}
        made.leave("r1")
        made.leave("r1")
        assert await made.settled(1)
        assert board.services == {WEB: (Backend("10.0.0.2", 80),)}
        assert made.has_served("r1")
        made.close("r1")
        made.leave("r2")
        assert await made.settled(1)
        assert board.services == {WEB: ()}
        made.close("r2")
        assert await made.settled(1)
        assert board.services == {}


@virtual
async def test_changes_at_one_instant_are_one_switch() -> None:
    board = MemoryBoard()
    async with switchboard(board) as made:
        await entered(made, "r1", "10.0.0.1")
        assert await made.settled(1)
        await made.open(of("r2"))
        before = len(board.history)
        made.leave("r1")
        made.enter(of("r2"), "10.0.0.2", "/netns/r2")
        assert await made.settled(1)
        assert board.history[before:] == [{WEB: (Backend("10.0.0.2", 80),)}]


@virtual
async def test_a_port_belongs_to_one_workload_and_to_no_process() -> None:
    board = MemoryBoard(listening={Endpoint("0.0.0.0", 8088): "nginx (pid 7)"})
    async with switchboard(board) as made:
        with pytest.raises(PortTaken, match=r"127\.0\.0\.1:8088/tcp .* taken by nginx \(pid 7\)"):
            await made.open(of("r1"))
        board.listening.clear()
        await made.open(of("r1"))
        with pytest.raises(PortTaken, match="taken by workload default/web"):
            await made.open(of("r2", "other"))
        made.close("r1")
        await made.open(of("r2", "other"))


@virtual
async def test_a_refused_switch_is_tried_again_with_the_newest_wish() -> None:
    board = MemoryBoard(refuse=3)
    async with switchboard(board) as made:
        await entered(made, "r1", "10.0.0.1")
        assert not await made.settled(0.05)
        await entered(made, "r2", "10.0.0.2")
        made.leave("r1")
        assert await made.settled(60)
        assert board.history == [{WEB: (Backend("10.0.0.2", 80),)}]


@virtual
async def test_what_was_in_force_goes_on_until_somebody_says_otherwise() -> None:
    board, host = MemoryBoard(), MemoryHost()
    network = MemoryNetwork(host)
    places = {name: await network.attach(name, hostname=name) for name in ("r1", "r2", "r3")}
    gone = Backend("10.99.0.1", 80)
    living = {name: Backend(place.address, 80) for name, place in places.items()}
    board.services = {WEB: (gone, *living.values())}
    async with switchboard(board, host) as made:
        assert await made.settled(1)
        assert board.services == {WEB: tuple(living.values())}
        made.resume(of("r1"))
        made.resume(of("r2"))
        made.enter(of("r1"), places["r1"].address, places["r1"].netns_path)
        assert await made.settled(1)
        assert board.services == {WEB: tuple(living.values())}
        made.keep(frozenset({"r1", "r2"}))
        made.leave("r2")
        assert await made.settled(1)
        assert board.services == {WEB: (living["r1"],)}
        assert made.has_served("r2")


@virtual
async def test_what_somebody_else_removed_comes_back() -> None:
    board = MemoryBoard()
    async with switchboard(board) as made:
        await entered(made, "r1", "10.0.0.1")
        assert await made.settled(1)
        before = dict(board.services)
        board.services = {}
        await asyncio.sleep(INSPECTION_S + 1)
        assert board.services == before


@virtual
async def test_waiting_ends_in_time_when_nobody_carries_it_out() -> None:
    made = Switchboard(MemoryTraffic(), MemoryNetwork(), virtual_clock())
    await made.open(of("r1"))
    began = asyncio.get_running_loop().time()
    assert not await made.settled(5)
    assert asyncio.get_running_loop().time() - began == pytest.approx(5)
