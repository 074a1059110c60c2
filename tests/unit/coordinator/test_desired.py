"""What one node is told of replicas and shares, and in which order. No control loop takes part."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from cloudless import api
from cloudless.aio.clock import LoopClock
from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.desired import Outbox, assignment_of
from cloudless.coordinator.limits import ASSIGNMENTS_BYTES
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.codec import Codec
from cloudless.coordinator.state.typed import TypedStore
from cloudless.domain.replica import Observation, ReplicaPhase, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import Rollout, RolloutPhase, TrafficShare
from cloudless.domain.status import StatusRecord
from cloudless.domain.strategy import RolloutStrategy, Strategy
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec
from cloudless.store.memory import open_memory

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
BLUE, GREEN = {1: 100}, {2: 100}
DIGEST = "sha256:" + "ab" * 32


def spec(strategy: Strategy = Strategy.BLUE_GREEN, padding: int = 0) -> WorkloadSpec:
    return WorkloadSpec(
        image="app:1", env={"PADDING": "x" * padding}, rollout=RolloutStrategy(strategy=strategy)
    )


def replica(replica_id: str, revision: int = 1, *, node: str = "n1", run: bool = True) -> ReplicaRecord:
    return ReplicaRecord(
        id=replica_id,
        workload_id="w1",
        namespace="default",
        name="web",
        ordinal=0,
        revision=revision,
        node_id=node,
        run=run,
        created_at=NOW,
    )


class Scene:
    """A store with one workload, a cache that follows it, and the messages to node n1."""

    def __init__(self, typed: TypedStore, cache: WatchCache) -> None:
        self._typed = typed
        self.cache = cache
        self.outbox = Outbox(cache, "n1", lambda: 1)
        self.messages = self.outbox.messages()
        self._batch = typed.batch()

    async def next(self) -> api.SynchronizeRequest:
        return await anext(self.messages)

    def workload(self, strategy: Strategy = Strategy.BLUE_GREEN) -> Scene:
        record = WorkloadRecord(
            id="w1",
            namespace="default",
            name="web",
            spec=spec(strategy),
            generation=1,
            created_at=NOW,
            updated_at=NOW,
        )
        self._batch.put(keys.workload("default", "web"), record)
        return self

    def revision(
        self,
        number: int,
        *,
        padding: int = 0,
        pull: bool = False,
        digest: str = "",
        phase: RolloutPhase | None = None,
    ) -> Scene:
        record = Revision(
            workload_id="w1",
            number=number,
            template_hash=f"h{number}",
            spec=spec(padding=padding),
            generation=number,
            created_at=NOW,
            pull=pull,
            image_digest=digest,
            phase=phase,
        )
        self._batch.put(keys.revision("w1", number), record)
        return self

    def replicas(self, *records: ReplicaRecord) -> Scene:
        for record in records:
            self._batch.put(keys.replica("w1", record.id), record)
        return self

    def gone(self, replica_id: str) -> Scene:
        self._batch.delete(keys.replica("w1", replica_id))
        return self

    def seen(self, replica_id: str) -> Scene:
        seen = Observation(replica_id=replica_id, workload_id="w1", phase=ReplicaPhase.RUNNING, node_id="n1")
        self._batch.put(keys.observation("w1", replica_id), seen)
        return self

    def status(self, shares: dict[int, int], *, revision: int = 2, back_to: int = 0) -> Scene:
        rollout = Rollout(
            phase=RolloutPhase.PROGRESSING,
            revision=revision,
            back_to=back_to,
            started_at=NOW,
            progressed_at=NOW,
            shares=tuple(TrafficShare(revision=one, percent=part) for one, part in shares.items()),
        )
        record = StatusRecord(workload_id="w1", observed_generation=1, rollout=rollout)
        self._batch.put(keys.status("w1"), record)
        return self

    async def commit(self) -> None:
        """Store all that was said since the last time, as one transaction, and see it."""
        batch, self._batch = self._batch, self._typed.batch()
        await self.cache.wait_for((await self._typed.commit(batch)).revision)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """Two blue replicas; blue gets all connections."""
    async with opened() as made:
        yield made


@asynccontextmanager
async def opened() -> AsyncIterator[Scene]:
    clock = LoopClock(NOW)
    async with open_memory(clock) as store, Supervisor("test") as tasks:
        codec = Codec()
        cache = WatchCache(store, codec, clock)
        tasks.start("cache", cache.run())
        await cache.wait_filled()
        made = Scene(TypedStore(store, codec, clock, lambda what, seconds: None), cache)
        made.workload().revision(1).revision(2).replicas(replica("b1"), replica("b2")).status(BLUE)
        await made.commit()
        async with aclosing(made.messages):
            with cache.subscribed(made.outbox.notice):
                yield made


def split(message: api.SynchronizeRequest) -> list[tuple[str, dict[int, int]]]:
    return [(one.workload_id, {s.revision: s.percent for s in one.shares}) for one in message.traffic]


def told(message: api.SynchronizeRequest) -> set[str]:
    return {one.replica_id for one in message.assignments}


async def test_the_first_message_holds_the_shares_of_what_runs_there(scene: Scene) -> None:
    first = await scene.next()
    assert (first.whole, told(first), split(first)) == (True, {"b1", "b2"}, [("w1", BLUE)])
    assert len(first.traffic) == 1, "once for all of its replicas"


async def test_a_switch_goes_with_nothing_else_and_once(scene: Scene) -> None:
    await scene.next()
    await scene.status(GREEN).commit()
    second = await scene.next()
    assert (second.whole, told(second), split(second)) == (False, set(), [("w1", GREEN)])
    await scene.status(GREEN).replicas(replica("g1", 2)).commit()
    third = await scene.next()
    assert (told(third), split(third)) == ({"g1"}, [])
    await scene.status({}).commit()
    assert split(await scene.next()) == [("w1", {})]


async def test_a_switch_is_the_next_message_whatever_else_waits(scene: Scene) -> None:
    await scene.revision(2, padding=40_000).commit()
    await scene.next()
    many = [replica(f"g{number}", 2) for number in range(100)]
    for start in range(0, len(many), 50):
        await scene.replicas(*many[start : start + 50]).commit()
    await scene.status(GREEN).commit()
    message = await scene.next()
    assert (split(message), told(message)) == ([("w1", GREEN)], set())
    found: set[str] = set()
    while len(found) < len(many):
        message = await scene.next()
        assert split(message) == []
        assert 0 < len(message.assignments) * 40_000 < ASSIGNMENTS_BYTES + 80_000, "not all of them fit"
        found |= told(message)


async def test_how_a_rollout_stands_is_nothing_to_tell_nodes(scene: Scene) -> None:
    await scene.next()
    await scene.revision(1, phase=RolloutPhase.COMPLETED).revision(2, digest=DIGEST).commit()
    await scene.replicas(replica("g1", 2)).commit()
    assert told(await scene.next()) == {"g1"}
    await scene.revision(1, digest=DIGEST).commit()
    assert told(await scene.next()) == {"b1", "b2"}


async def test_a_new_replica_brings_the_shares_that_leave_it_out(scene: Scene) -> None:
    await scene.gone("b1").gone("b2").commit()
    assert split(await scene.next()) == []
    await scene.replicas(replica("g1", 2)).commit()
    message = await scene.next()
    assert (told(message), split(message)) == ({"g1"}, [("w1", BLUE)])


@pytest.mark.parametrize("strategy", [Strategy.BLUE_GREEN, Strategy.CANARY])
async def test_it_waits_for_a_status_that_comes_later(scene: Scene, strategy: Strategy) -> None:
    await scene.workload(strategy).commit()
    await scene.next()
    await scene.revision(3).replicas(replica("n1", 3), replica("old", 2)).commit()
    assert told(await scene.next()) == {"old"}
    await scene.status(BLUE, revision=3).commit()
    message = await scene.next()
    assert (told(message), split(message)) == ({"n1"}, [])


async def test_nothing_waits_when_every_ready_replica_gets_connections_anyway(scene: Scene) -> None:
    await scene.workload(Strategy.ROLLING_UPDATE).commit()
    await scene.next()
    await scene.revision(3).replicas(replica("n1", 3)).commit()
    assert "n1" in told(await scene.next())


async def test_what_a_node_runs_already_is_never_left_out_of_the_whole(scene: Scene) -> None:
    """Else its node would stop it: on the way back the newer ones still serve."""
    await scene.status({2: 100}, revision=2, back_to=1).replicas(replica("g1", 2)).seen("g1").commit()
    assert told(await scene.next()) == {"b1", "b2", "g1"}


async def test_the_node_forgets_shares_with_the_last_replica(scene: Scene) -> None:
    await scene.next()
    await scene.gone("b1").commit()
    assert split(await scene.next()) == []
    await scene.replicas(replica("b2", node="n2")).commit()
    message = await scene.next()
    assert (list(message.removed), split(message)) == (["b2"], [("w1", {})])
    await scene.status(GREEN).commit()
    await scene.replicas(replica("g1", 2)).commit()
    message = await scene.next()
    assert (told(message), split(message)) == ({"g1"}, [("w1", GREEN)])


@pytest.mark.parametrize(
    ("pull", "digest", "asks"), [(True, "", True), (True, DIGEST, False), (False, "", False)]
)
async def test_the_registry_is_asked_until_the_digest_is_known(
    scene: Scene, pull: bool, digest: str, asks: bool
) -> None:
    await scene.revision(1, pull=pull, digest=digest).commit()
    assignment = assignment_of(scene.cache.cluster, replica("b1"))
    assert assignment is not None
    assert assignment.pull is asks
    assert {one.pull for one in (await scene.next()).assignments} == {asks}
