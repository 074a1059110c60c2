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
from cloudless.agent.traffic.switchboard import Splits, Switchboard
from cloudless.aio.supervise import Supervisor
from cloudless.domain.event import Severity
from cloudless.domain.replica import Assignment
from cloudless.domain.rollout import TrafficShare

WEB = Endpoint("127.0.0.1", 8088)
PORTS = {"ports": [{"container_port": 80, "publish": 8088}, {"container_port": 81}]}


BLUE, GREEN = TrafficShare(revision=1, percent=100), TrafficShare(revision=2, percent=100)


def of(replica_id: str, name: str = "web", *, revision: int = 1) -> Assignment:
    return assignment(replica_id, **PORTS).replaced(name=name, revision=revision)


class Told:
    """What the switchboard reports."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, severity: Severity, reason: str, message: str, about: Assignment) -> None:
        self.lines.append(f"{severity} {reason} {about.name}: {message}")


@asynccontextmanager
async def switchboard(
    board: MemoryBoard,
    host: MemoryHost | None = None,
    *,
    told: Told | None = None,
    known: tuple[Assignment, ...] = (),
    splits: Splits | None = None,
) -> AsyncIterator[Switchboard]:
    made = Switchboard(MemoryTraffic(board), MemoryNetwork(host), virtual_clock(), told or Told())
    await made.adopt(known, splits)
    async with Supervisor("test") as tasks:
        tasks.start("traffic", made.run())
        yield made


async def entered(made: Switchboard, replica_id: str, address: str, *, revision: int = 1) -> None:
    await made.open(of(replica_id, revision=revision))
    made.enter(of(replica_id, revision=revision), address, f"/netns/{replica_id}")


async def blue_and_green(made: Switchboard) -> None:
    """Two ready replicas of each of two revisions; the first gets all connections."""
    made.share({"w1": (BLUE,)})
    for number in (1, 2):
        await entered(made, f"b{number}", f"10.0.0.{number}")
        await entered(made, f"g{number}", f"10.0.1.{number}", revision=2)
    assert await made.settled(1)


def serving(board: MemoryBoard) -> list[str]:
    return [f"{one.address}*{one.weight}" for one in board.services[WEB]]


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
async def test_what_cannot_be_read_at_the_start_goes_on_until_it_can() -> None:
    board, host = MemoryBoard(refuse_reads=3), MemoryHost()
    network = MemoryNetwork(host)
    places = {name: await network.attach(name, hostname=name) for name in ("r1", "r2", "r3", "r4")}
    living = {name: Backend(place.address, 80) for name, place in places.items()}
    board.services = {WEB: tuple(living.values())}
    known = tuple(of(name) for name in places)
    async with switchboard(board, host, known=known) as made:
        for name in places:
            made.resume(of(name))
        made.resume(assignment("r5"))
        made.enter(of("r1"), places["r1"].address, places["r1"].netns_path)
        made.leave("r2")
        made.keep(frozenset({"r1", "r2", "r3", "r5"}))
        assert made.has_served("r2"), "for all that anybody knows"
        assert not made.has_served("r5"), "who publishes nothing need not wait"
        assert not await made.settled(0.05)
        assert board.history == [], "nothing is changed that was not read"
        assert await made.settled(60)
        assert board.history == [{WEB: (living["r1"], living["r3"])}]
        made.leave("r2")
        made.leave("r3")
        assert await made.settled(1)
        assert board.services == {WEB: (living["r1"],)}


@virtual
async def test_a_port_without_an_address_is_also_where_the_node_says() -> None:
    board = MemoryBoard()
    made = Switchboard(MemoryTraffic(board), MemoryNetwork(), virtual_clock(), Told(), ("192.0.2.7",))
    named = {"ports": [{"container_port": 80, "publish": 9000, "publish_address": "127.0.0.1"}]}
    async with Supervisor("test") as tasks:
        tasks.start("traffic", made.run())
        await entered(made, "r1", "10.0.0.1")
        only = assignment("r2", **named).replaced(name="other")
        await made.open(only)
        made.enter(only, "10.0.0.2", "/netns/r2")
        assert await made.settled(1)
        assert set(board.services) == {WEB, Endpoint("192.0.2.7", 8088), Endpoint("127.0.0.1", 9000)}
        made.close("r1")
        assert await made.settled(1)
        assert set(board.services) == {Endpoint("127.0.0.1", 9000)}


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
    made = Switchboard(MemoryTraffic(), MemoryNetwork(), virtual_clock(), Told())
    await made.open(of("r1"))
    began = asyncio.get_running_loop().time()
    assert not await made.settled(5)
    assert asyncio.get_running_loop().time() - began == pytest.approx(5)


@virtual
async def test_a_switch_and_back_is_one_change_each_and_nothing_between() -> None:
    board, told = MemoryBoard(), Told()
    async with switchboard(board, told=told) as made:
        await blue_and_green(made)
        assert serving(board) == ["10.0.0.1*1", "10.0.0.2*1"]
        before = len(board.history)
        made.share({"w1": (GREEN,)})
        assert await made.settled(1)
        assert serving(board) == ["10.0.1.1*1", "10.0.1.2*1"]
        made.share({"w1": (GREEN,)})
        made.share({"w1": (BLUE,)})
        assert await made.settled(1)
        assert serving(board) == ["10.0.0.1*1", "10.0.0.2*1"]
        made.share({})
        assert await made.settled(1)
        assert len(serving(board)) == 4
        assert len(board.history) == before + 3
        assert told.lines == []


@virtual
async def test_a_replica_that_gets_no_connections_yet_never_had_any() -> None:
    board = MemoryBoard()
    async with switchboard(board) as made:
        await blue_and_green(made)
        green = {"10.0.1.1", "10.0.1.2"}
        assert not any(one.address in green for state in board.history for one in state.get(WEB, ()))


@virtual
async def test_a_canary_gets_its_part_and_all_when_alone() -> None:
    board = MemoryBoard()
    canary = TrafficShare(revision=1, percent=95), TrafficShare(revision=2, percent=5)
    async with switchboard(board) as made:
        await blue_and_green(made)
        made.leave("g2")
        made.share({"w1": canary})
        assert await made.settled(1)
        assert serving(board) == ["10.0.0.1*19", "10.0.0.2*19", "10.0.1.1*2"]
        made.leave("b1")
        assert await made.settled(1)
        assert serving(board) == ["10.0.0.2*19", "10.0.1.1*1"]
        made.leave("b2")
        assert await made.settled(1)
        assert serving(board) == ["10.0.1.1*1"]


@virtual
async def test_the_old_set_stands_in_while_it_is_ready_and_it_is_said() -> None:
    board, told = MemoryBoard(), Told()
    async with switchboard(board, told=told) as made:
        await blue_and_green(made)
        made.share({"w1": (GREEN,)})
        made.leave("g1")
        made.leave("g2")
        assert await made.settled(1)
        assert serving(board) == ["10.0.0.1*1", "10.0.0.2*1"]
        await entered(made, "g1", "10.0.1.1", revision=2)
        assert await made.settled(1)
        assert serving(board) == ["10.0.1.1*1"]
        # Told to stop, they are never gone back to.
        made.leave("b1")
        made.leave("b2")
        made.leave("g1")
        assert await made.settled(1)
        assert serving(board) == []
        nobody = "no ready replica of revision 2 on this node"
        assert told.lines == [
            f"Warning SharesNotMet web: {nobody}: new connections go to revision 1",
            "Normal SharesMet web: new connections go where they should",
        ]


@virtual
async def test_nobody_sees_a_revision_that_waits_for_its_switch() -> None:
    board, told = MemoryBoard(), Told()
    async with switchboard(board, told=told) as made:
        await blue_and_green(made)
        made.leave("b1")
        made.leave("b2")
        assert await made.settled(1)
        assert serving(board) == []
        assert told.lines == [
            "Warning SharesNotMet web: no ready replica of revision 1 on this node: "
            "new connections are refused"
        ]


@virtual
async def test_a_port_that_only_one_revision_has_goes_with_it() -> None:
    board = MemoryBoard()
    other = Endpoint("127.0.0.1", 9090)
    moved = assignment("g1", ports=[{"container_port": 80, "publish": 9090}]).replaced(revision=2)
    async with switchboard(board) as made:
        made.share({"w1": (BLUE,)})
        await entered(made, "b1", "10.0.0.1")
        await made.open(moved)
        made.enter(moved, "10.0.1.1", "/netns/g1")
        assert await made.settled(1)
        assert board.services == {WEB: (Backend("10.0.0.1", 80),), other: ()}
        made.share({"w1": (GREEN,)})
        assert await made.settled(1)
        assert board.services == {WEB: (), other: (Backend("10.0.1.1", 80),)}


@virtual
async def test_shares_hold_from_the_first_moment_of_the_next_life() -> None:
    board, host = MemoryBoard(), MemoryHost()
    network = MemoryNetwork(host)
    blue, green = [await network.attach(name, hostname=name) for name in ("b1", "g1")]
    weighted = Backend(blue.address, 80, 3), Backend(green.address, 80, 1)
    known = of("b1"), of("g1", revision=2)
    split = TrafficShare(revision=1, percent=75), TrafficShare(revision=2, percent=25)
    board.services = {WEB: weighted}
    async with switchboard(board, host, known=known, splits={"w1": split}) as made:
        assert await made.settled(1)
        assert board.history == [], "what is in force is what should be"
        made.share({"w1": (GREEN,)})
        assert await made.settled(1)
        assert board.services == {WEB: (Backend(green.address, 80),)}


@virtual
async def test_of_whom_nothing_is_known_keeps_what_it_has_until_more_is() -> None:
    board, host = MemoryBoard(), MemoryHost()
    network = MemoryNetwork(host)
    blue, green = [await network.attach(name, hostname=name) for name in ("b1", "g1")]
    board.services = {WEB: (Backend(blue.address, 80, 3), Backend(green.address, 80, 1))}
    async with switchboard(board, host) as made:
        made.share({"w1": (GREEN,)})
        assert await made.settled(1)
        assert board.history == []
        made.resume(of("b1"))
        made.resume(of("g1", revision=2))
        assert await made.settled(1)
        assert board.services == {WEB: (Backend(green.address, 80),)}
