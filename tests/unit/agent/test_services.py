"""AgentService on an agent in memory: called directly, as the server would."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import World, assignment

from cloudless import api
from cloudless.agent.execs.limits import MAX_PROGRAMS
from cloudless.agent.node import StaleEpoch
from cloudless.agent.runtime.execport import ExecResult
from cloudless.coordinator.limits import MAX_EXECS_OF_CALLER
from cloudless.domain.errors import Exhausted, Invalid, NotFound, PreconditionFailed
from cloudless.wire import link


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class Coordinator:
    """The other end of the life line."""

    def __init__(self, world: World) -> None:
        self.outbox: asyncio.Queue[api.SynchronizeRequest | None] = asyncio.Queue()
        self.answers = world.agent.service.synchronize(self._requests())

    def say(self, epoch: int, *told: Any, **fields: Any) -> None:
        assignments = [link.assignment_to_wire(one) for one in told]
        self.outbox.put_nowait(api.SynchronizeRequest(epoch=epoch, assignments=assignments, **fields))

    async def _requests(self) -> AsyncIterator[api.SynchronizeRequest]:
        while (request := await self.outbox.get()) is not None:
            yield request


@virtual
async def test_the_life_line(world: World) -> None:
    await world.start(whole=False)
    coordinator = Coordinator(world)
    coordinator.say(1, assignment(), whole=True)
    async with aclosing(coordinator.answers) as answers:
        first = await anext(answers)
        assert (first.sequence, first.node.name if first.node else "") == (1, "node-1")
        seen: list[api.ReplicaObservation] = [*first.replicas]
        whole = first.whole
        async for answer in answers:
            coordinator.say(1, acknowledged=answer.sequence)
            whole = whole or answer.whole
            seen += answer.replicas
            if seen and seen[-1].phase == api.ReplicaPhase.RUNNING:
                break
        assert whole
        assert seen[-1].ready
        coordinator.say(1, assignment(run=False))
        removed: list[str] = []
        async for answer in answers:
            coordinator.say(1, acknowledged=answer.sequence)
            removed += answer.removed
            if removed:
                break
        assert removed == ["r1"]
        coordinator.outbox.put_nowait(None)
        async for _ in answers:
            pass
    assert world.agent.reports.removed == {}
    await world.kill()


@virtual
async def test_a_newer_line_ends_the_older_and_a_stale_leader_is_refused(world: World) -> None:
    await world.start(whole=False)
    old, new, stale = Coordinator(world), Coordinator(world), Coordinator(world)
    old.say(4, whole=True)
    async with aclosing(old.answers), aclosing(new.answers), aclosing(stale.answers):
        await anext(old.answers)
        await anext(new.answers)
        new.say(5, assignment(), whole=True)
        async for _ in old.answers:
            pass
        await world.until_running()
        stale.say(4, whole=True)
        with pytest.raises(StaleEpoch):
            async for _ in stale.answers:
                pass
        assert (await world.until_running()).restarts == 0
    await world.kill()


@virtual
async def test_an_assignment_that_is_not_understood_is_reported_and_the_rest_obeyed(world: World) -> None:
    await world.start(whole=False)
    coordinator = Coordinator(world)
    broken = link.assignment_to_wire(assignment("broken"))
    assert broken.spec is not None
    broken.spec.image = ""  # type: ignore[union-attr]
    good = link.assignment_to_wire(assignment("good"))
    coordinator.outbox.put_nowait(api.SynchronizeRequest(epoch=1, whole=True, assignments=[broken, good]))
    async with aclosing(coordinator.answers) as answers:
        await anext(answers)
        await world.until_running("good")
    assert "AssignmentInvalid" in world.reasons()
    await world.kill()


@virtual
async def test_commands_have_a_limit_that_one_caller_does_not_reach(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    release = asyncio.Event()

    async def on_exec(container_id: str, request: Any) -> ExecResult:
        await release.wait()
        return ExecResult(0, request.stdin)

    world.machine.on_exec = on_exec
    service = world.agent.service
    request = api.ExecCommandRequest(container_id="cl-r1-1", command=["cat"], stdin=b"x")
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(service.exec_command(request)) for _ in range(MAX_EXECS_OF_CALLER)]
        running += [group.create_task(service.exec_command(request)) for _ in range(MAX_EXECS_OF_CALLER)]
        await asyncio.sleep(1)
        assert 2 * MAX_EXECS_OF_CALLER == MAX_PROGRAMS
        with pytest.raises(Exhausted, match="512 programs"):
            await service.exec_command(request)
        release.set()
    assert {task.result().stdout for task in running} == {b"x"}
    assert (await service.exec_command(request)).container_id == "cl-r1-1"
    await world.kill()


@virtual
async def test_what_commands_read_and_write_has_a_limit_for_all_together(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    release = asyncio.Event()

    async def on_exec(container_id: str, request: Any) -> ExecResult:
        await release.wait()
        return ExecResult(0, b"x" * request.output_limit_bytes)

    world.machine.on_exec = on_exec
    service = world.agent.service
    budget = service._runner.budget
    assert budget.limit_bytes <= 64 * 2**20
    budget.limit_bytes = budget.left_bytes = 2**20
    request = api.ExecCommandRequest(
        container_id="cl-r1-1", command=["x"], stdin=b"y" * 400_000, output_limit_bytes=400_000
    )
    async with asyncio.TaskGroup() as group:
        two = [group.create_task(service.exec_command(request)) for _ in range(2)]
        await world.clock.sleep(1)
        with pytest.raises(Exhausted, match="1 MiB of input and output"):
            await service.exec_command(request)
        release.set()
    first, second = (task.result() for task in two)
    assert (len(first.stdout), first.stdout_truncated) == (2**20 - 800_000, True)
    assert (second.exit_code, second.stdout_truncated) == (0, len(second.stdout) < 400_000)
    assert budget.left_bytes == budget.limit_bytes
    await world.kill()


@virtual
async def test_a_command_that_takes_too_long(world: World) -> None:
    await world.start(assignment())
    await world.until_running()

    async def on_exec(container_id: str, request: Any) -> ExecResult:
        await asyncio.sleep(1000)
        return ExecResult(0)

    world.machine.on_exec = on_exec
    answer = await world.agent.service.exec_command(
        api.ExecCommandRequest(replica="r1", command=["x"], timeout=datetime.timedelta(seconds=5))
    )
    assert (answer.timed_out, answer.exit_code) == (True, 137)
    assert world.machine.execs == set()
    await world.kill()


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"command": []}, "command"),
        ({"command": ["a\0b"]}, "command"),
        ({"command": ["x"] * 2000}, "command"),
        ({"command": ["x"], "env": {"1A": "x"}}, "env"),
        ({"command": ["x"], "working_dir": "relative"}, "working_dir"),
        ({"command": ["x"], "timeout": datetime.timedelta(hours=2)}, "timeout"),
        ({"command": ["x"], "output_limit_bytes": 1 << 30}, "output_limit_bytes"),
        ({"command": ["x"], "stdin": b"x" * (1 << 20)}, "stdin"),
        ({"command": ["x"], "container_id": ""}, "container_id"),
        ({"command": ["x"], "name": "web"}, "name"),
    ],
)
def test_bad_commands_name_the_field(world: World, fields: dict[str, Any], path: str) -> None:
    @virtual
    async def run() -> None:
        await world.start(assignment())
        await world.until_running()
        request = api.ExecCommandRequest(**{"container_id": "cl-r1-1", **fields})
        with pytest.raises(Invalid) as caught:
            await world.agent.service.exec_command(request)
        assert [violation.path for violation in caught.value.violations] == [path]
        await world.kill()

    run()


@virtual
async def test_what_is_not_here_is_not_found(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    service = world.agent.service
    with pytest.raises(NotFound):
        await service.exec_command(api.ExecCommandRequest(container_id="cl-zzz", command=["x"]))
    with pytest.raises(NotFound):
        await anext(service.stream_logs(api.StreamLogsRequest(container_id="cl-zzz")))
    with pytest.raises(Invalid, match="must not be negative"):
        await anext(service.stream_logs(api.StreamLogsRequest(container_id="cl-r1-1", tail_lines=-1)))
    await world.kill()


@virtual
async def test_images(world: World) -> None:
    world.machine.add_image("docker.io/library/other:1")
    await world.start(assignment())
    await world.until_running()
    service = world.agent.service
    stages = [
        answer
        async for answer in service.pull_image(api.PullImageRequest(reference="docker.io/library/other:1"))
    ]
    assert stages[-1].stage == "done"
    assert stages[-1].image is not None
    listed = (await service.list_images(api.ListImagesRequest())).images
    assert {image.reference: image.in_use for image in listed} == {
        "docker.io/library/app:1": True,
        "docker.io/library/other:1": False,
    }
    with pytest.raises(PreconditionFailed, match="in use"):
        await service.remove_image(api.RemoveImageRequest(reference="docker.io/library/app:1"))
    await service.remove_image(api.RemoveImageRequest(reference="docker.io/library/other:1"))
    with pytest.raises(NotFound):
        await service.remove_image(api.RemoveImageRequest(reference="docker.io/library/other:1"))
    with pytest.raises(NotFound):
        async for _ in service.pull_image(api.PullImageRequest(reference="docker.io/library/none:1")):
            pass
    await world.kill()
