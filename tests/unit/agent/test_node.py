"""A node that is killed, cut off, lied to: what it adopts, keeps, ends and reports."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import IMAGE, World, assignment, spec

from cloudless.agent.execs.find import find_replica
from cloudless.agent.node import Desired, StaleEpoch
from cloudless.agent.runtime.memory import MemoryRuntime
from cloudless.agent.runtime.memorymachine import Program
from cloudless.agent.runtime.port import ContainerWish
from cloudless.domain.errors import NotFound, Unavailable
from cloudless.domain.replica import ReplicaPhase

P = ReplicaPhase
FAST = {"backoff": {"base": "0s"}}
START_STEPS = ("create", "create:recorded", "start", "start:created", "start:running")
STOP_STEPS = ("delete", "delete:task", "delete:record")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Trap:
    """Holds whoever reaches a step for the n-th time, so that a test can strike there."""

    def __init__(self, world: World, step: str) -> None:
        self.sprung = asyncio.Event()
        self._step = step
        self._world = world
        world.machine.reached = self._reached

    async def _reached(self, step: str) -> None:
        if step == self._step and not self.sprung.is_set():
            self.sprung.set()
            await asyncio.get_running_loop().create_future()

    def remove(self) -> None:
        async def pass_on(step: str) -> None:
            return

        self._world.machine.reached = pass_on


@virtual
async def test_kill_9_adopts_with_no_restart_and_the_same_process(world: World) -> None:
    await world.start(assignment("a"), assignment("b", restart_policy=FAST))
    await world.until_running("a")
    await world.until_running("b")
    world.machine.end("cl-b-1", 1)
    before = await world.until_running("b", restarts=1)
    pids = {one.fact.replica_id: one.fact.pid for one in world.machine.running()}
    for _ in range(10):
        await world.kill()
        await world.start(whole=False)
        a, b = await world.until_running("a"), await world.until_running("b", restarts=1)
        assert (a.restarts, b.restarts, a.ready) == (0, 1, True)
        assert b.version > before.version
        assert b.last_exit == before.last_exit
        before = b
    assert {one.fact.replica_id: one.fact.pid for one in world.machine.running()} == pids
    await world.kill()


@pytest.mark.parametrize("step", START_STEPS)
def test_killed_at_any_step_of_a_start_it_exists_once(world: World, step: str) -> None:
    @virtual
    async def run() -> None:
        trap = Trap(world, step)
        await world.start(assignment())
        await trap.sprung.wait()
        await world.kill()
        trap.remove()
        await world.start(whole=False)
        seen = await world.until_running()
        await world.until_swept(1)
        assert seen.restarts == 0
        assert len(world.machine.running()) == 1
        await world.tell(assignment(run=False))
        await world.until_gone()
        world.assert_clean()
        await world.kill()

    run()


@pytest.mark.parametrize("step", STOP_STEPS)
@pytest.mark.parametrize("forget", [False, True])
def test_killed_at_any_step_of_a_stop_nothing_is_left(world: World, step: str, forget: bool) -> None:
    @virtual
    async def run() -> None:
        await world.start(assignment())
        await world.until_running()
        trap = Trap(world, step)
        if forget:
            await world.tell(removed=("r1",))
        else:
            await world.tell(assignment(run=False))
        await trap.sprung.wait()
        await world.kill()
        trap.remove()
        await world.start(whole=False)
        await world.until_gone()
        assert world.agent.reports.removed == {"r1": None}
        world.assert_clean()
        await world.kill()

    run()


@pytest.mark.parametrize("step", [*START_STEPS, *STOP_STEPS])
def test_killed_at_any_step_of_a_restart_it_goes_on_counting(world: World, step: str) -> None:
    @virtual
    async def run() -> None:
        await world.start(assignment(restart_policy=FAST))
        await world.until_running()
        trap = Trap(world, step)
        world.machine.end("cl-r1-1", 9)
        await trap.sprung.wait()
        await world.kill()
        trap.remove()
        await world.start(whole=False)
        seen = await world.until_running(restarts=1)
        await world.until_swept(1)
        assert seen.last_exit is not None
        assert seen.last_exit.code == 9
        assert len(world.machine.running()) == 1
        await world.kill()

    run()


@virtual
async def test_an_end_while_the_agent_was_away_is_judged_by_the_policy(world: World) -> None:
    await world.start(
        assignment("a", restart_policy=FAST), assignment("b", restart_policy={"policy": "NEVER"})
    )
    await world.until_running("a")
    await world.until_running("b")
    await world.kill()
    world.machine.end("cl-a-1", 5)
    world.machine.end("cl-b-1", 0)
    await world.start(whole=False)
    seen = await world.until_running("a", restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.code == 5
    assert (await world.until_phase(P.SUCCEEDED, "b")).restarts == 0
    await world.kill()


@virtual
async def test_ends_in_a_gap_are_found_by_listing(world: World) -> None:
    await world.start(assignment("a", restart_policy=FAST), assignment("b", restart_policy=FAST))
    await world.until_running("a")
    await world.until_running("b")
    world.machine.stop_answering()
    await asyncio.sleep(1)
    world.machine.end("cl-a-1", 3)
    await asyncio.sleep(60)
    seen = world.seen("a")
    assert seen is not None
    assert seen.phase is P.RUNNING
    assert world.agent.reports.facts.not_ready == "containerd is away: containerd is down"
    world.machine.answer_again()
    seen = await world.until_running("a", restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.code == 3
    assert (await world.until_running("b")).restarts == 0
    assert world.agent.reports.facts.not_ready == ""
    await world.kill()


@virtual
async def test_a_lost_event_costs_time_and_no_truth(world: World) -> None:
    await world.start(assignment(restart_policy=FAST))
    await world.until_running()
    world.machine.end("cl-r1-1", 4, quiet=True)
    await asyncio.sleep(5)
    world.machine.lose_events()
    seen = await world.until_running(restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.code == 4
    await world.kill()


@virtual
async def test_a_container_that_vanished_is_lost_and_started_again(world: World) -> None:
    await world.start(assignment(restart_policy=FAST))
    await world.until_running()
    world.machine.stop_answering()
    await asyncio.sleep(1)
    del world.machine.containers["cl-r1-1"]
    world.machine.answer_again()
    seen = await world.until_running(restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.reason == "Lost"
    await world.kill()


@virtual
async def test_orders_while_the_runtime_is_away_are_obeyed_when_it_is_back(world: World) -> None:
    await world.start(assignment("a"), assignment("b"))
    await world.until_running("a")
    await world.until_running("b")
    world.machine.stop_answering()
    await asyncio.sleep(1)
    await world.tell(assignment("a", run=False), assignment("c"))
    await asyncio.sleep(60)
    assert len(world.machine.containers) == 2
    world.machine.answer_again()
    await world.until_gone("a")
    await world.until_running("c")
    await world.kill()


@virtual
async def test_an_agent_that_starts_without_its_runtime_waits_and_reports_nothing_whole(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    await world.kill()
    world.machine.stop_answering()
    await world.start(assignment())
    await asyncio.sleep(60)
    assert not world.agent.reports.whole_known.is_set()
    assert world.agent.reports.facts.not_ready.startswith("containerd is away")
    world.machine.answer_again()
    assert (await world.until_running()).restarts == 0
    assert world.agent.reports.whole_known.is_set()
    await world.kill()


@virtual
async def test_an_agent_that_has_just_started_does_not_deny_what_it_has_not_met_yet(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    await world.kill()
    world.machine.stop_answering()
    await world.start(assignment())
    node = world.agent.node
    with pytest.raises(Unavailable, match="does not know yet what it runs: containerd is down"):
        await find_replica(node, "cl-r1-1", "", "", "attach")
    asked = asyncio.create_task(find_replica(node, "cl-r1-1", "", "", "attach"))
    await asyncio.sleep(0)
    assert not asked.done()
    world.machine.answer_again()
    assert (await asked).id == "r1"
    with pytest.raises(NotFound, match="no container 'cl-r2-1' on this node"):
        await find_replica(node, "cl-r2-1", "", "", "attach")
    await world.kill()


@virtual
async def test_a_lower_epoch_is_refused_even_after_a_restart(world: World) -> None:
    await world.start()
    await world.agent.node.apply(Desired(7, True))
    await world.kill()
    await world.start(whole=False)
    with pytest.raises(StaleEpoch, match="epoch 6 is over"):
        await world.agent.node.apply(Desired(6, True, (assignment(),)))
    assert world.agent.node.assignments == {}
    await world.agent.node.apply(Desired(7, True, (assignment(),)))
    await world.until_running()
    await world.kill()


@virtual
async def test_a_whole_message_ends_what_it_does_not_name(world: World) -> None:
    await world.start(assignment("a"), assignment("b"))
    await world.until_running("a")
    await world.until_running("b")
    await world.agent.node.apply(Desired(1, True, (assignment("b"),)))
    await world.until_gone("a")
    assert (await world.until_running("b")).restarts == 0
    await world.kill()


@virtual
async def test_a_damaged_journal_keeps_everything_until_the_coordinator_has_spoken(world: World) -> None:
    await world.start(assignment("a"), assignment("b"))
    await world.until_running("a")
    await world.until_running("b")
    await world.kill()
    path = world.config.folder / "journal"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    await world.start(whole=False)
    await asyncio.sleep(3600)
    assert len(world.machine.running()) == 2
    assert not world.agent.reports.whole_known.is_set()
    assert "JournalDamaged" in world.reasons()
    await world.agent.node.apply(Desired(1, True, (assignment("a"),)))
    assert (await world.until_running("a")).restarts == 0
    await world.until_gone("b")
    assert [one.fact.id for one in world.machine.running()] == ["cl-a-1"]
    await world.kill()


@virtual
async def test_a_truncated_journal_ends_nothing_by_itself(world: World) -> None:
    await world.start(assignment("a"), assignment("b"))
    await world.until_running("a")
    await world.until_running("b")
    await world.kill()
    path = world.config.folder / "journal"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines[:1]))
    await world.start(whole=False)
    await asyncio.sleep(3600)
    assert len(world.machine.running()) == 2
    await world.agent.node.apply(Desired(1, True, (assignment("a"), assignment("b"))))
    assert [(await world.until_running(name)).restarts for name in "ab"] == [0, 0]
    await world.kill()


@virtual
async def test_containers_of_others_are_never_touched(world: World) -> None:
    other = MemoryRuntime(world.machine, "another-node")
    image = world.machine.registry[IMAGE].image
    world.machine.images[IMAGE] = image
    wish = ContainerWish(
        id="cl-x-1", replica_id="x", workload_id="w", attempt=1, restarts=0, image=image, spec=spec(),
        argv=("serve",), env=(), cwd="/", hostname="x", netns_path=None,
    )  # fmt: skip
    await other.create(wish)
    await other.start("cl-x-1")
    await world.start()
    await asyncio.sleep(60)
    assert [one.fact.id for one in world.machine.running()] == ["cl-x-1"]
    await world.kill()


@virtual
async def test_leftover_networks_and_files_go_once_everything_is_known(world: World) -> None:
    await world.start(assignment("a"))
    await world.until_running("a")
    await world.kill()
    attachment = world.host.attachments["a"]
    world.host.attachments["old"] = replace(attachment, id="old", address="10.213.200.200")
    left = world.config.folder / "replicas" / "old" / "volumes" / "data"
    left.mkdir(parents=True)
    (left / "file").write_text("x")
    await world.start(whole=False)
    await world.until_running("a")
    assert set(world.host.attachments) == {"a", "old"}
    await world.agent.node.apply(Desired(1, True, (assignment("a"),)))
    assert set(world.host.attachments) == {"a"}
    assert [path.name for path in (world.config.folder / "replicas").iterdir()] == ["a"]
    await world.kill()


@virtual
async def test_the_gone_are_told_until_acknowledged_and_then_forgotten(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    first = world.agent.reports.open()
    await first.next()
    await world.tell(removed=("r1",))
    await world.until_gone()
    report = await first.next()
    assert report is not None
    assert report.removed == ("r1",)
    await world.kill()
    await world.start(whole=False)
    await world.until_gone()
    stream = world.agent.reports.open()
    report = await stream.next()
    assert report is not None
    assert (report.whole, report.observations, report.removed) == (True, (), ("r1",))
    stream.acknowledged(report.sequence)
    await world.kill()
    await world.start(whole=False)
    stream = world.agent.reports.open()
    report = await stream.next()
    assert report is not None
    assert report.removed == ()
    await world.kill()


@virtual
async def test_orders_in_the_very_moment_of_an_end_are_obeyed(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    await world.tell(assignment(run=False))
    while world.seen() is not None:
        await world.agent.node.change_of("r1")
    # Nothing ran between the last step of that replica and this.
    await world.tell(assignment("r2"))
    await world.until_running("r2")
    await world.tell(assignment("r2", run=False))
    await world.until_gone("r2")
    world.assert_clean()
    await world.kill()


@virtual
async def test_what_has_ended_for_good_is_not_ended_again(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    stream = world.agent.reports.open()
    await world.tell(assignment(run=False))
    await world.until_gone()
    report = await stream.next()
    assert report is not None
    stream.acknowledged(report.sequence)
    await world.tell(assignment("r2"))
    assert set(world.agent.node.replicas) == {"r2"}
    # Somebody who was told nothing of its end asks for everything: it is said again.
    await world.agent.node.apply(Desired(1, True, (assignment(run=False), assignment("r2"))))
    await world.until_gone()
    assert set(world.agent.reports.removed) == {"r1"}
    await world.kill()


@virtual
async def test_many_start_no_more_than_eight_at_a_time(world: World) -> None:
    inside, most = 0, 0

    async def reached(step: str) -> None:
        nonlocal inside, most
        if step == "start":
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1.0)
            inside -= 1

    world.machine.reached = reached
    replicas = [assignment(f"r{number}", ordinal=number) for number in range(20)]
    await world.start(*replicas)
    for number in range(20):
        await world.until_running(f"r{number}")
    assert most == 8
    await world.kill()


@virtual
async def test_the_first_whole_report_names_every_replica(world: World) -> None:
    replicas = [assignment(f"r{number}", ordinal=number) for number in range(5)]
    await world.start(*replicas)
    for number in range(5):
        await world.until_running(f"r{number}")
    await world.kill()
    await world.start(whole=False)
    stream = world.agent.reports.open()
    while True:
        report = await stream.next()
        assert report is not None
        if report.whole:
            break
        assert report.observations == ()
    assert {seen.replica_id for seen in report.observations} == {one.replica_id for one in replicas}
    assert {seen.phase for seen in report.observations} == {P.RUNNING}
    await world.kill()


@virtual
async def test_a_port_that_is_taken_is_retried(world: World) -> None:
    ports = [{"container_port": 80, "host_port": 8080}]
    await world.start(assignment("a", ports=ports))
    await world.until_running("a")
    await world.tell(assignment("b", ports=ports))
    seen = await world.until_phase(P.BACKING_OFF, "b")
    assert seen.message.startswith("PortTaken: port 127.0.0.1:8080/tcp of this node is taken by")
    await world.tell(assignment("a", run=False, ports=ports))
    assert (await world.until_running("b")).restarts == 0
    await world.kill()


@virtual
async def test_what_was_taken_away_before_the_agent_died_still_ends_by_its_own_rules(world: World) -> None:
    world.machine.programs["serve"] = Program(deaf=frozenset({signal.SIGQUIT}))
    wanted = assignment(stop_signal="SIGQUIT", stop_grace_period="77s")
    await world.start(wanted)
    await world.until_running()
    container = world.container()
    trap = Trap(world, "delete")
    await world.tell(removed=("r1",))
    await world.clock.sleep(1)
    await world.kill()
    trap.remove()
    assert container.signals == [signal.SIGQUIT]
    await world.start(whole=False)
    at = world.clock.monotonic()
    await world.until_gone()
    assert container.signals == [signal.SIGQUIT, signal.SIGQUIT, signal.SIGKILL]
    assert world.clock.monotonic() - at == pytest.approx(77.0, abs=0.2)
    world.assert_clean()
    await world.kill()


@virtual
async def test_a_list_that_fails_right_after_the_return_is_asked_for_again(world: World) -> None:
    await world.start(assignment(restart_policy=FAST))
    await world.until_running()
    world.machine.stop_answering()
    await asyncio.sleep(1)
    world.machine.end("cl-r1-1", 6)
    world.machine.lose_events()  # it says that it is back, and still does not answer
    await asyncio.sleep(1)
    world.machine.away = ""
    seen = await world.until_running(restarts=1)
    assert seen.last_exit is not None
    assert seen.last_exit.code == 6
    assert world.agent.reports.facts.not_ready == ""
    await world.kill()
