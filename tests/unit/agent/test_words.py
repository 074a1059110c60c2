"""The last lines of a log: when they are told, when told anew, and when they are gone again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import World, assignment

from cloudless.agent.limits import NOT_READY_BASE_S
from cloudless.agent.output import ContainerLogs
from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.domain.replica import Observation, ReplicaPhase

P = ReplicaPhase
OK, REFUSED = ProbeOutcome(True, "ok"), ProbeOutcome(False, "connection refused")
READINESS = {"tcp": {"port": 80}, "period": "1s", "failure_threshold": 3}
STARTUP = {"tcp": {"port": 80}, "period": "1s", "failure_threshold": 30}


class Logs:
    """What containers wrote, and who asked; ``late`` lines show only when one waits for them."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}
        self.late: dict[str, list[str]] = {}
        self.asked: list[tuple[str, bool]] = []

    async def tail(self, logs: ContainerLogs, container_id: str, *, ended: bool = False) -> str:
        self.asked.append((container_id, ended))
        late = self.late.get(container_id, []) if ended else []
        return "\n".join([*self.lines.get(container_id, []), *late])


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Logs:
    made = Logs()

    async def tail(self: ContainerLogs, container_id: str, *, ended: bool = False) -> str:
        return await made.tail(self, container_id, ended=ended)

    monkeypatch.setattr(ContainerLogs, "tail", tail)
    return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def told(world: World, tail: str) -> Observation:
    seen = await world.until(lambda one: one is not None and one.log_tail == tail)
    assert seen is not None
    return seen


def web(**changes: Any) -> Any:
    return assignment(**{"readiness_probe": READINESS, **changes})


@virtual
async def test_a_probe_that_fails_for_good_tells_them_once_and_ready_takes_them_back(
    world: World, logs: Logs
) -> None:
    logs.lines["cl-r1-1"] = ["no database"]
    world.probe_answers = lambda probe: REFUSED
    await world.start(web())
    began = world.clock.monotonic()
    seen = await told(world, "no database")
    assert 2 <= world.clock.monotonic() - began <= 2.1
    assert (seen.phase, seen.ready, seen.message) == (P.RUNNING, False, "readiness probe: connection refused")
    await world.clock.sleep(5)
    assert logs.asked == [("cl-r1-1", False)]
    world.probe_answers = lambda probe: OK
    seen = await told(world, "")
    assert seen.ready
    await world.clock.sleep(10_000)
    assert len(logs.asked) == 1, "nobody reads the log of one that is well"
    logs.lines["cl-r1-1"] = ["lost it again"]
    world.probe_answers = lambda probe: REFUSED
    assert not (await told(world, "lost it again")).ready
    await world.kill()


@virtual
async def test_one_that_is_not_ready_for_long_tells_them_now_and_then(world: World, logs: Logs) -> None:
    logs.lines["cl-r1-1"] = ["starting"]
    world.probe_answers = lambda probe: REFUSED
    await world.start(web(startup_probe={**STARTUP, "failure_threshold": 1000}))
    began = world.clock.monotonic()
    await told(world, "starting")
    assert world.clock.monotonic() - began == pytest.approx(NOT_READY_BASE_S, abs=0.1)
    logs.lines["cl-r1-1"] = ["still starting"]
    await told(world, "still starting")
    assert world.clock.monotonic() - began == pytest.approx(3 * NOT_READY_BASE_S, abs=0.1)
    await world.clock.sleep(900)
    assert len(logs.asked) < 10
    await world.kill()


@virtual
async def test_a_startup_probe_that_gives_up_leaves_them_with_the_exit(world: World, logs: Logs) -> None:
    logs.lines["cl-r1-1"], logs.late["cl-r1-1"] = ["starting"], ["gave up"]
    world.probe_answers = lambda probe: REFUSED
    await world.start(web(startup_probe={**STARTUP, "failure_threshold": 2}))
    seen = await world.until_phase(P.BACKING_OFF)
    assert seen.last_exit is not None
    assert (seen.last_exit.reason, seen.last_exit.log_tail) == ("Unhealthy", "starting\ngave up")
    assert seen.log_tail == ""
    await world.kill()


@virtual
async def test_who_fails_for_good_or_waits_has_time_for_the_last_of_them(world: World, logs: Logs) -> None:
    logs.late["cl-r1-1"] = ["last words"]
    await world.start(assignment(restart_policy={"policy": "NEVER"}))
    await world.until_running()
    world.machine.end("cl-r1-1", 3)
    seen = await world.until_phase(P.FAILED)
    assert seen.last_exit is not None
    assert seen.last_exit.log_tail == "last words"
    await world.kill()


@virtual
async def test_who_starts_again_at_once_tells_the_last_of_them_later(world: World, logs: Logs) -> None:
    logs.lines["cl-r1-1"], logs.late["cl-r1-1"] = ["first"], ["last"]
    await world.start(assignment(restart_policy={"backoff": {"base": "0s"}}))
    await world.until_running()
    began = world.clock.monotonic()
    world.machine.end("cl-r1-1", 3)
    seen = await world.until(
        lambda one: one is not None and one.last_exit is not None and one.last_exit.log_tail == "first\nlast"
    )
    assert seen is not None
    assert (seen.phase, seen.restarts, world.clock.monotonic() - began) == (P.RUNNING, 1, 0)
    await world.kill()
    await world.start(whole=False)
    again = await world.until_running()
    assert again.last_exit == seen.last_exit, "the journal has them too"
    await world.kill()


@virtual
async def test_without_probes_there_is_nothing_to_tell(world: World, logs: Logs) -> None:
    logs.lines["cl-r1-1"] = ["hello"]
    await world.start(assignment(liveness_probe=READINESS))
    await world.until_running()
    await world.clock.sleep(3600)
    assert logs.asked == []
    await world.kill()
