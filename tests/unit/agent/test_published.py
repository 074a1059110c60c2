"""When a replica takes part in its published port, over its whole life, in virtual time."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import IMAGE, World, assignment

from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.agent.traffic.port import Endpoint
from cloudless.domain.replica import Assignment, ReplicaPhase
from cloudless.domain.rollout import TrafficShare

P = ReplicaPhase
WEB = Endpoint("127.0.0.1", 8088)
PROBE = {"tcp": {"port": 80}, "period": "1s", "failure_threshold": 2}
LIVENESS = {"tcp": {"port": 81}, "period": "1s", "failure_threshold": 1}
OK, REFUSED = ProbeOutcome(True, "ok"), ProbeOutcome(False, "connection refused")
AT_ONCE = datetime.timedelta(0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def web(replica_id: str = "r1", *, run: bool = True, **changes: Any) -> Assignment:
    changes = {"ports": [{"container_port": 80, "publish": 8088}], **changes}
    return assignment(replica_id, run=run, **changes)


BLUE = {"w1": (TrafficShare(revision=1, percent=100),)}
GREEN = {"w1": (TrafficShare(revision=2, percent=100),)}


def green(replica_id: str, **changes: Any) -> Assignment:
    return web(replica_id, **changes).replaced(revision=2)


def served(world: World) -> set[str]:
    """Replicas that get new connections."""
    by_address = {place.address: name for name, place in world.host.attachments.items()}
    return {by_address[backend.address] for backend in world.board.services.get(WEB, ())}


async def until_served(world: World, *replica_ids: str) -> float:
    """Wait until exactly these get connections; returns when."""
    while served(world) != set(replica_ids):
        await world.clock.sleep(0.001)
    return world.clock.monotonic()


def served_at_ends(world: World) -> list[tuple[str, set[str]]]:
    """Filled with each replica whose container ends, and who gets connections at that moment."""
    found: list[tuple[str, set[str]]] = []
    end = world.machine.end

    def watched(container_id: str, *rest: Any, **more: Any) -> None:
        found.append((container_id.split("-")[1], served(world)))
        end(container_id, *rest, **more)

    world.machine.end = watched  # type: ignore[method-assign]
    return found


def connect(world: World, count: int, replica_id: str = "r1") -> None:
    path = world.host.attachments[replica_id].netns_path
    assert path is not None
    world.board.connected[path] = count


@virtual
async def test_a_replica_without_probes_takes_part_as_soon_as_it_runs(world: World) -> None:
    await world.start(web())
    await world.until_running()
    await until_served(world, "r1")
    assert [sorted(state) for state in world.board.history] == [[WEB], [WEB]]
    assert world.board.history[0] == {WEB: ()}
    await world.tell(web(run=False))
    await world.until_gone()
    assert await world.agent.node._tools.switchboard.settled(1)  # type: ignore[union-attr]
    world.assert_clean()
    await world.kill()


@virtual
async def test_readiness_lets_it_in_and_takes_it_out(world: World) -> None:
    world.probe_answers = lambda probe: REFUSED
    await world.start(web(readiness_probe=PROBE))
    await world.until_running()
    await world.clock.sleep(5)
    assert served(world) == set()
    world.probe_answers = lambda probe: OK
    await until_served(world, "r1")
    world.probe_answers = lambda probe: REFUSED
    failing_at = world.clock.monotonic()
    out_at = await until_served(world)
    assert 1 <= out_at - failing_at <= 2.01
    assert world.seen() is not None
    world.probe_answers = lambda probe: OK
    await until_served(world, "r1")
    await world.kill()


@virtual
async def test_an_exit_takes_it_out_at_once_and_the_restart_lets_it_in(world: World) -> None:
    await world.start(web(), web("r2"))
    await until_served(world, "r1", "r2")
    world.machine.end("cl-r1-1", 137)
    at = world.clock.monotonic()
    assert await until_served(world, "r2") - at <= 0.002
    await until_served(world, "r1", "r2")
    seen = world.seen()
    assert seen is not None
    assert seen.restarts == 1
    await world.kill()


@virtual
async def test_a_liveness_restart_leaves_before_the_stop_signal(world: World) -> None:
    await world.start(web(liveness_probe=LIVENESS), web("r2"))
    await until_served(world, "r1", "r2")
    ends = served_at_ends(world)
    world.probe_answers = lambda probe: REFUSED
    await world.until(lambda one: one is not None and one.restarts == 1)
    assert ends[0] == ("r1", {"r2"})
    await world.kill()


@virtual
async def test_stopping_means_out_first_then_drained_then_the_signal(world: World) -> None:
    await world.start(web(), web("r2"))
    await until_served(world, "r1", "r2")
    connect(world, 3)
    container, began = world.container(), world.clock.monotonic()
    await world.tell(web(run=False))
    seen = await world.until(lambda one: one is not None and "draining" in one.message)
    assert seen is not None
    assert (seen.phase, seen.message, seen.ready) == (P.STOPPING, "draining: 3 connections", False)
    assert served(world) == {"r2"}
    await world.clock.sleep(2)
    assert container in world.machine.running()
    connect(world, 1)
    await world.until(lambda one: one is not None and one.message == "draining: 1 connection")
    connect(world, 0)
    await world.until_gone()
    assert world.clock.monotonic() - began == pytest.approx(2.05, abs=0.1)
    await world.kill()


@virtual
async def test_draining_ends_with_its_time(world: World) -> None:
    await world.start(web(rollout={"drain_time": "3s"}))
    await until_served(world, "r1")
    connect(world, 1)
    began = world.clock.monotonic()
    await world.tell(web(run=False, rollout={"drain_time": "3s"}))
    await world.until_gone()
    assert world.clock.monotonic() - began == pytest.approx(3, abs=0.1)
    await world.kill()


@pytest.mark.parametrize("what", ["grace 0", "drain_time 0", "never ready", "not published"])
def test_who_is_not_drained(world: World, what: str) -> None:
    changes: dict[str, Any] = {
        "drain_time 0": {"rollout": {"drain_time": "0s"}},
        "never ready": {"readiness_probe": PROBE},
        "not published": {"ports": [{"container_port": 80}]},
    }.get(what, {})
    world.probe_answers = lambda probe: REFUSED

    @virtual
    async def run() -> None:
        await world.start(web(**changes))
        await world.until_running()
        if what in ("grace 0", "drain_time 0"):
            await until_served(world, "r1")
        connect(world, 7)
        began = world.clock.monotonic()
        stop = web(run=False, **changes)
        await world.tell(stop.replaced(grace=AT_ONCE) if what == "grace 0" else stop)
        await world.until_gone()
        assert world.clock.monotonic() - began <= 0.02
        await world.kill()

    run()


@virtual
async def test_a_hurry_ends_the_draining(world: World) -> None:
    await world.start(web(rollout={"drain_time": "60s"}))
    await until_served(world, "r1")
    connect(world, 1)
    await world.tell(web(run=False, rollout={"drain_time": "60s"}))
    await world.clock.sleep(1)
    assert world.machine.running()
    began = world.clock.monotonic()
    await world.tell(web(run=False).replaced(grace=AT_ONCE))
    await world.until_gone()
    assert world.clock.monotonic() - began <= 0.1
    await world.kill()


@virtual
async def test_traffic_goes_on_while_the_agent_is_dead_and_until_the_first_probes(world: World) -> None:
    both = web(readiness_probe=PROBE), web("r2", readiness_probe=PROBE)
    await world.start(*both)
    await until_served(world, "r1", "r2")
    before = list(world.board.history)
    await world.kill()
    assert served(world) == {"r1", "r2"}
    world.probe_answers = lambda probe: REFUSED
    await world.start(*both)
    await world.until_running("r2")
    await world.clock.sleep(0.5)
    assert world.board.history == before
    at = await until_served(world)
    assert at >= 1, "out only once the probes have failed as often as they must"
    world.probe_answers = lambda probe: OK
    await until_served(world, "r1", "r2")
    await world.kill()


@virtual
async def test_an_adopted_replica_that_ended_meanwhile_leaves(world: World) -> None:
    await world.start(web(), web("r2"))
    await until_served(world, "r1", "r2")
    await world.kill()
    world.machine.end("cl-r1-1", 1)
    await world.start(web(), web("r2"))
    await until_served(world, "r2")
    await until_served(world, "r1", "r2")
    await world.kill()


@virtual
async def test_a_replica_unassigned_while_the_agent_was_dead_leaves_before_it_ends(world: World) -> None:
    await world.start(web(), web("r2"))
    await until_served(world, "r1", "r2")
    await world.kill()
    ends = served_at_ends(world)
    await world.start(web("r2"))
    await world.until_gone("r1")
    assert ends[0] == ("r1", {"r2"})
    assert served(world) == {"r2"}
    await world.kill()


@virtual
async def test_a_taken_port_is_said_and_tried_again(world: World) -> None:
    world.board.listening[Endpoint("0.0.0.0", 8088)] = "nginx (pid 7)"
    await world.start(web())
    seen = await world.until_phase(P.BACKING_OFF)
    assert seen.message.startswith("PortTaken: port 127.0.0.1:8088/tcp of this node cannot be published")
    assert "nginx (pid 7)" in seen.message
    world.board.listening.clear()
    await until_served(world, "r1")
    await world.kill()


@virtual
async def test_a_kernel_that_refuses_delays_no_stop_for_ever(world: World) -> None:
    await world.start(web())
    await until_served(world, "r1")
    world.board.refuse = 1_000_000
    began = world.clock.monotonic()
    await world.tell(web(run=False))
    await world.until_gone()
    assert world.clock.monotonic() - began == pytest.approx(5, abs=0.1)
    world.board.refuse = 0
    while world.board.services:
        await world.clock.sleep(0.1)
    await world.kill()


@virtual
async def test_every_container_is_told_who_it_is_and_the_user_wins(world: World) -> None:
    world.machine.add_image(IMAGE, env=("CLOUDLESS_NODE=baked", "PATH=/app"))
    await world.start(web(env={"CLOUDLESS_REVISION": "mine"}))
    await world.until_running()
    assert set(world.container().wish.env) >= {
        "CLOUDLESS_WORKLOAD=web",
        "CLOUDLESS_NAMESPACE=default",
        "CLOUDLESS_REPLICA=web/0",
        "CLOUDLESS_REPLICA_ID=r1",
        "CLOUDLESS_REVISION=mine",
        "CLOUDLESS_NODE=node-1",
        "PATH=/app",
    }
    await world.kill()


def ever_served(world: World, replica_id: str) -> bool:
    """Whether a replica got connections at any moment."""
    address = world.host.attachments[replica_id].address
    return any(one.address == address for state in world.board.history for one in state.get(WEB, ()))


@virtual
async def test_green_gets_nothing_before_the_switch_and_all_at_once_after_it(world: World) -> None:
    await world.start(web("b1"), web("b2"))
    await until_served(world, "b1", "b2")
    await world.tell(green("g1"), green("g2"), traffic=BLUE)
    await world.until_running("g1")
    await world.until_running("g2")
    await world.clock.sleep(60)
    assert not ever_served(world, "g1")
    assert not ever_served(world, "g2")
    before = len(world.board.history)
    await world.tell(traffic=GREEN)
    await until_served(world, "g1", "g2")
    await world.tell(traffic=BLUE)
    await until_served(world, "b1", "b2")
    assert len(world.board.history) == before + 2
    assert world.reasons().count("SharesNotMet") == 0
    await world.kill()


@virtual
async def test_a_switch_and_the_end_of_the_old_set_in_one_message(world: World) -> None:
    await world.start(web("b1"), web("b2"), green("g1"), green("g2"), traffic=BLUE)
    await until_served(world, "b1", "b2")
    await world.until_running("g1")
    await world.until_running("g2")
    before, ends = len(world.board.history), served_at_ends(world)
    await world.tell(web("b1", run=False), web("b2", run=False), traffic=GREEN)
    await world.until_gone("b1")
    await world.until_gone("b2")
    assert {who for who, _ in ends} == {"b1", "b2"}
    assert all(serving == {"g1", "g2"} for _, serving in ends)
    assert len(world.board.history) == before + 1
    await world.kill()


@virtual
async def test_shares_survive_the_agent_while_the_coordinator_is_away(world: World) -> None:
    await world.start(web("b1"), web("b2"))
    await world.tell(green("g1"), green("g2"), traffic=BLUE)
    await until_served(world, "b1", "b2")
    await world.until_running("g2")
    await world.kill()
    await world.start(whole=False)
    await world.until_running("g1")
    await world.until_running("g2")
    world.machine.end("cl-b1-1", 1)
    await until_served(world, "b2")
    await until_served(world, "b1", "b2")
    assert not ever_served(world, "g1")
    await world.tell(traffic=GREEN)
    await until_served(world, "g1", "g2")
    await world.kill()


@virtual
async def test_a_whole_message_without_shares_lets_everybody_in(world: World) -> None:
    await world.start(web("b1"), green("g1"), traffic=BLUE)
    await until_served(world, "b1")
    await world.kill()
    await world.start(web("b1"), green("g1"))
    await until_served(world, "b1", "g1")
    await world.kill()


@virtual
async def test_a_green_set_that_fails_after_the_switch_and_a_blue_one_that_drains(world: World) -> None:
    blue = web("b1", rollout={"drain_time": "60s"})
    await world.start(blue, green("g1", readiness_probe=PROBE), traffic=BLUE)
    await world.until(lambda one: one is not None and one.ready, "g1")
    await world.tell(traffic=GREEN)
    await until_served(world, "g1")
    connect(world, 1, "b1")
    world.probe_answers = lambda probe: REFUSED
    await until_served(world, "b1")
    assert world.reasons()[-1] == "SharesNotMet"
    world.probe_answers = lambda probe: OK
    await until_served(world, "g1")
    assert world.reasons()[-1] == "SharesMet"
    await world.tell(blue.replaced(run=False))
    await world.until(lambda one: one is not None and "draining" in one.message, "b1")
    world.probe_answers = lambda probe: REFUSED
    await until_served(world)
    await world.clock.sleep(10)
    assert served(world) == set(), "what drains gets nothing new"
    await world.kill()
