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

from cloudless.agent.runtime.errors import (
    CannotExecute,
    ContainerGone,
    ImageNotFound,
    NotEnforced,
    StartFailed,
)
from cloudless.agent.runtime.port import (
    Back,
    ContainerWish,
    ExecRequest,
    Exited,
    LocalImage,
    Runtime,
    RuntimeEvent,
)
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

    async def test_info(self, bench: RuntimeBench) -> None:
        info = await bench.runtime.info()
        assert info.version
        assert "runc" in info.runtime_classes
