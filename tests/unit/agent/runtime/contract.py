"""What every container runtime must do: one suite, run against memory and containerd.

A subclass gives the fixture ``bench``: a runtime for one node, a second life of it, and
an image whose programs behave as named.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cloudless.agent.execs.budget import ByteBudget
from cloudless.agent.runtime.errors import (
    CannotExecute,
    ContainerGone,
    ImageNotFound,
    NotEnforced,
    StartFailed,
)
from cloudless.agent.runtime.execport import (
    ExecEnd,
    ExecRequest,
    ExecWish,
    RunningExec,
)
from cloudless.agent.runtime.port import (
    Back,
    ContainerWish,
    Exited,
    LocalImage,
    Runtime,
    RuntimeEvent,
)
from cloudless.containerd.references import pinned
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.node import ContainerFact, ContainerState

LIMIT_S = 20.0
S = ContainerState


@dataclass
class RuntimeBench:
    """``image`` is on the node; ``another_life`` is the same node's runtime after a restart."""

    runtime: Runtime
    another_life: Callable[[], Awaitable[Runtime]]
    another_node: Runtime
    image: LocalImage
    new_id: Callable[[], str]

    def wish(self, *argv: str, attempt: int = 1, restarts: int = 0, **changes: Any) -> ContainerWish:
        replica_id = self.new_id()
        return ContainerWish(
            id=f"cl-{replica_id}-{attempt}",
            replica_id=replica_id,
            workload_id="w1",
            attempt=attempt,
            restarts=restarts,
            image=self.image,
            spec=WorkloadSpec.model_validate({"image": self.image.name, **changes}),
            argv=argv or ("sleep", "1000"),
            env=("PATH=/bin", "A=1"),
            cwd="/",
            hostname="web-0",
            netns_path=None,
        )

    async def fact(self, container_id: str, runtime: Runtime | None = None) -> ContainerFact | None:
        found = [one for one in await (runtime or self.runtime).list() if one.id == container_id]
        return found[0] if found else None


@asynccontextmanager
async def following(runtime: Runtime) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
    """Events, after the first word that they flow."""
    async with runtime.events() as events:
        async with asyncio.timeout(LIMIT_S):
            while not isinstance(await anext(events), Back):
                continue
        yield events


async def end_of(events: AsyncIterator[RuntimeEvent], container_id: str) -> Exited:
    async with asyncio.timeout(LIMIT_S):
        async for event in events:
            if isinstance(event, Exited) and event.container_id == container_id:
                return event
    raise AssertionError("the events ended")


class RuntimeContract:
    async def test_nothing_there(self, bench: RuntimeBench) -> None:
        assert await bench.fact("cl-none-1") is None
        await bench.runtime.delete("cl-none-1")
        with pytest.raises(ContainerGone):
            await bench.runtime.kill("cl-none-1", signal.SIGTERM)

    async def test_create_start_kill_delete(self, bench: RuntimeBench) -> None:
        wish = bench.wish(attempt=3, restarts=2)
        await bench.runtime.create(wish)
        fact = await bench.fact(wish.id)
        assert fact is not None
        assert (fact.state, fact.replica_id, fact.workload_id) == (S.RECORDED, wish.replica_id, "w1")
        assert (fact.attempt, fact.restarts, fact.image_digest) == (3, 2, bench.image.digest)
        assert fact.spec_hash == wish.spec.template_hash
        async with following(bench.runtime) as events:
            pid = await bench.runtime.start(wish.id)
            fact = await bench.fact(wish.id)
            assert fact is not None
            assert (fact.state, fact.pid, fact.exit_code) == (S.RUNNING, pid, None)
            await bench.runtime.kill(wish.id, signal.SIGKILL, everyone=True)
            ended = await end_of(events, wish.id)
        assert ended.exit_code == 128 + signal.SIGKILL
        fact = await bench.fact(wish.id)
        assert fact is not None
        assert (fact.state, fact.exit_code) == (S.STOPPED, 128 + signal.SIGKILL)
        assert fact.finished_at is not None
        with pytest.raises(ContainerGone):
            await bench.runtime.kill(wish.id, signal.SIGKILL)
        await bench.runtime.delete(wish.id)
        assert await bench.fact(wish.id) is None
        await bench.runtime.delete(wish.id)

    async def test_an_exit_code_is_told(self, bench: RuntimeBench) -> None:
        wish = bench.wish("exit-seven")
        await bench.runtime.create(wish)
        async with following(bench.runtime) as events:
            await bench.runtime.start(wish.id)
            assert (await end_of(events, wish.id)).exit_code == 7
        await bench.runtime.delete(wish.id)

    async def test_deleting_what_runs_ends_it(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        await bench.runtime.delete(wish.id)
        assert await bench.fact(wish.id) is None

    async def test_create_twice_is_one(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.create(wish)
        pid = await bench.runtime.start(wish.id)
        assert await bench.runtime.start(wish.id) == pid
        await bench.runtime.delete(wish.id)

    async def test_another_life_sees_and_goes_on(self, bench: RuntimeBench) -> None:
        running, recorded = bench.wish(), bench.wish()
        await bench.runtime.create(running)
        pid = await bench.runtime.start(running.id)
        await bench.runtime.create(recorded)
        later = await bench.another_life()
        try:
            fact = await bench.fact(running.id, later)
            assert fact is not None
            assert (fact.state, fact.pid) == (S.RUNNING, pid)
            await later.start(recorded.id)
            for wish in (running, recorded):
                await later.delete(wish.id)
                assert await bench.fact(wish.id) is None
        finally:
            await later.close()

    async def test_another_node_sees_nothing(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        assert await bench.fact(wish.id, bench.another_node) is None
        with pytest.raises(StartFailed, match="taken by somebody else"):
            await bench.another_node.create(wish)
        await bench.another_node.delete(wish.id)
        assert await bench.fact(wish.id) is not None
        await bench.runtime.delete(wish.id)

    async def test_a_command_that_is_not_there(self, bench: RuntimeBench) -> None:
        wish = bench.wish("no-such-program")
        await bench.runtime.create(wish)
        with pytest.raises(CannotExecute) as caught:
            await bench.runtime.start(wish.id)
        assert caught.value.exit_code == 127
        await bench.runtime.delete(wish.id)
        assert await bench.fact(wish.id) is None

    async def test_root_where_none_may_be(self, bench: RuntimeBench) -> None:
        wish = bench.wish(security_context={"run_as_non_root": True})
        with pytest.raises(NotEnforced, match="run_as_non_root"):
            await bench.runtime.create(wish)
        assert await bench.fact(wish.id) is None

    async def test_a_program_with_its_input_and_output(self, bench: RuntimeBench) -> None:
        wish = bench.wish(stdin=True)
        await bench.runtime.create(wish)
        with pytest.raises(ContainerGone):
            async with bench.runtime.open_exec(wish.id, ExecWish(("cat",))):
                pass
        await bench.runtime.start(wish.id)
        cat = ExecWish(("cat",), stdin=True)
        async with asyncio.timeout(20), bench.runtime.open_exec(wish.id, cat) as program:
            assert program.stdout is not None
            await program.write_stdin(b"hello")
            assert await program.stdout.read() == b"hello"
            await program.close_stdin()
            assert await program.stdout.read() == b""
            assert await program.wait() == ExecEnd(0)
        with pytest.raises(CannotExecute) as caught:
            async with bench.runtime.open_exec(wish.id, ExecWish(("no-such-program",))):
                pass
        assert caught.value.exit_code == 127
        async with bench.runtime.open_exec(wish.id, cat) as program:
            pass  # leaving ends it
        assert await bench.runtime.collect_execs() == (0, ())
        for _ in range(2):
            assert await bench.runtime.collect_strays() == ()
        async with bench.runtime.attach(wish.id) as joined:
            await joined.write(b"to be read one day")
        await bench.runtime.delete(wish.id)
        with pytest.raises(ContainerGone):
            async with bench.runtime.attach(wish.id):
                pass

    async def test_programs_are_ended(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        cat = ExecWish(("cat",), stdin=True, user="0")
        async with asyncio.timeout(20), bench.runtime.open_exec(wish.id, cat) as program:
            fact = program.fact
            assert (fact.exec_id, fact.container_id) == (program.exec_id, wish.id)
            assert (fact.argv, fact.user, fact.tty, fact.detached) == (("cat",), "0", False, False)
            assert fact.started_at is not None
            assert fact.pid > 0
            assert await program.end(0.0)
            assert await program.wait() in (ExecEnd(128 + 15), ExecEnd(128 + 9))
        begun: list[RunningExec] = []
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            request = ExecRequest(("sleep", "60"))
            task = group.create_task(bench.runtime.exec(wish.id, request, began=begun.append))
            while not begun:
                await asyncio.sleep(0.01)
            assert begun[0].fact.argv == request.argv
            assert await begun[0].end()
            assert (await task).exit_code == 128 + 15
        await bench.runtime.delete(wish.id)

    async def test_output_is_kept_as_far_as_there_is_room(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        budget = ByteBudget(8)
        with budget.share() as share:
            for kept, cut in ((b"hello\n", False), (b"he", True), (b"", True)):
                result = await bench.runtime.exec(wish.id, ExecRequest(("echo", "hello")), room=share)
                assert (result.exit_code, result.stdout, result.stdout_truncated) == (0, kept, cut)
        assert budget.left_bytes == 8
        await bench.runtime.delete(wish.id)

    async def test_exec(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        with pytest.raises(ContainerGone):
            await bench.runtime.exec(wish.id, ExecRequest(("true",)))
        await bench.runtime.start(wish.id)
        assert (await bench.runtime.exec(wish.id, ExecRequest(("true",)))).exit_code == 0
        await bench.runtime.delete(wish.id)
        with pytest.raises(ContainerGone):
            await bench.runtime.exec(wish.id, ExecRequest(("true",)))

    async def test_images(self, bench: RuntimeBench) -> None:
        image = await bench.runtime.resolve(bench.image.name)
        assert image == bench.image
        assert image.name in [one.name for one in await bench.runtime.images()]
        with pytest.raises(ImageNotFound):
            await bench.runtime.resolve("docker.io/library/no-such-image:1")
        with pytest.raises(ImageNotFound):
            await bench.runtime.remove_image("docker.io/library/no-such-image:1")

    async def test_a_digest_is_found_in_its_repository(self, bench: RuntimeBench) -> None:
        image = bench.image
        other_tag = f"{image.name.rpartition(':')[0]}:no-such-tag"
        assert (await bench.runtime.resolve(pinned(other_tag, image.digest))).digest == image.digest
        listed = [one.name for one in await bench.runtime.images()]
        assert pinned(image.name, image.digest) not in listed, "a tag says it already"
        elsewhere = pinned("example.test/team/other", image.digest)
        if image.imported:  # nobody's credentials brought it
            assert (await bench.runtime.resolve(elsewhere)).digest == image.digest
        else:
            with pytest.raises(ImageNotFound):
                await bench.runtime.resolve(elsewhere)
        with pytest.raises(ImageNotFound):
            await bench.runtime.resolve(pinned(image.name, f"sha256:{'0' * 64}"))

    async def test_info(self, bench: RuntimeBench) -> None:
        info = await bench.runtime.info()
        assert info.version
        assert "runc" in info.runtime_classes
