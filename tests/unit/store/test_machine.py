"""The embedded store against the memory store, through random histories with crashes.

A crash is what a power cut leaves: the files as they are at that moment, copied without
closing anything.
"""

from __future__ import annotations

import asyncio
import datetime
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit.store.subject import open_files

from cloudless.aio.clock import ManualClock
from cloudless.store.errors import StoreError
from cloudless.store.memory import open_memory
from cloudless.store.port import (
    Compare,
    Delete,
    DeletePrefix,
    Get,
    Lease,
    Put,
    Range,
    Relation,
    Store,
    Target,
    WatchBatch,
)

KEYS = ("a", "a/", "a/b", "a/c", "b", "ÿ", "\U0010ffff")
PREFIXES = ("", "a", "a/", "b", "\U0010ffff")

a_key = st.sampled_from(KEYS)
a_prefix = st.sampled_from(PREFIXES)
a_value = st.binary(max_size=3)
an_op = st.one_of(
    st.builds(Put, a_key, a_value, st.integers(0, 3)),
    st.builds(Delete, a_key),
    st.builds(DeletePrefix, a_prefix),
    st.builds(Get, a_key),
    st.builds(Range, a_prefix, st.integers(0, 3)),
)
a_relation = st.sampled_from(list(Relation))
a_compare = st.one_of(
    st.builds(
        Compare,
        a_key,
        st.sampled_from([Target.MOD_REVISION, Target.CREATE_REVISION, Target.VERSION]),
        a_relation,
        st.integers(0, 12),
    ),
    st.builds(Compare, a_key, st.just(Target.VALUE), a_relation, a_value),
)


class Twins(RuleBasedStateMachine):
    """Every rule does the same to both stores and compares the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.generation = 0
        self.clock = ManualClock(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        self.memory_stack, self.stack = AsyncExitStack(), AsyncExitStack()
        self.memory: Store = self.run(self.memory_stack.enter_async_context(open_memory(self.clock)))
        self.embedded: Store = self.run(self.open())
        self.revision = 1
        self.leased = False

    def run(self, work: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self.runner.run(waited())

    def open(self) -> Awaitable[Store]:
        path = self.folder / str(self.generation)
        return self.stack.enter_async_context(open_files(path, self.clock))

    def both(self, call: Callable[[Store], Awaitable[Any]]) -> Any:
        async def answer(store: Store) -> Any:
            try:
                return await call(store)
            except StoreError as error:
                return type(error), getattr(error, "oldest", None)

        expected, actual = self.run(answer(self.memory)), self.run(answer(self.embedded))
        assert actual == expected
        return actual

    @rule(
        compares=st.lists(a_compare, max_size=2),
        then=st.lists(an_op, max_size=4),
        otherwise=st.lists(an_op, max_size=2),
    )
    def txn(self, compares: Any, then: Any, otherwise: Any) -> None:
        self.both(lambda store: store.txn(compares, then, otherwise))

    @rule(ops=st.lists(st.builds(Put, a_key, a_value), min_size=2, max_size=6))
    def writers_at_once(self, ops: list[Put]) -> None:
        async def write(store: Store) -> Any:
            return await asyncio.gather(*(store.txn((), [op]) for op in ops))

        self.both(write)

    @rule(prefix=a_prefix, after=st.none() | a_key, limit=st.integers(0, 4), back=st.integers(0, 9))
    def read(self, prefix: str, after: str | None, limit: int, back: int) -> None:
        at = max(self.revision - back, 1) if back else None
        self.both(lambda store: store.range(prefix, start_after=after, limit=limit, revision=at))
        for key in KEYS:
            self.both(lambda store, key=key: store.get(key, revision=at))

    @rule(prefix=a_prefix, back=st.integers(0, 12))
    def watch(self, prefix: str, back: int) -> None:
        async def replay(store: Store) -> list[WatchBatch]:
            seen: list[WatchBatch] = []
            mark = (await store.txn((), [Put("b", b"mark")])).revision
            async with store.watch("", start_revision=max(mark - back, 1)) as batches:
                while not seen or seen[-1].revision < mark:
                    seen.append(await anext(batches))
            return [batch for batch in seen if any(e.kv.key.startswith(prefix) for e in batch.events)]

        self.both(replay)

    @rule(back=st.integers(0, 10))
    def compact(self, back: int) -> None:
        self.both(lambda store: store.compact(max(self.revision - back, 1)))

    @rule(ttl_s=st.integers(1, 20))
    def grant(self, ttl_s: int) -> None:
        self.both(lambda store: store.grant(ttl_s))
        self.leased = True

    @precondition(lambda self: self.leased)
    @rule(lease=st.integers(1, 3))
    def revoke(self, lease: int) -> None:
        self.both(lambda store: store.revoke(Lease(lease, 1)))

    @precondition(lambda self: self.leased)
    @rule(lease=st.integers(1, 3))
    def keep_alive(self, lease: int) -> None:
        self.both(lambda store: store.keep_alive(Lease(lease, 1)))

    @rule()
    def reopen(self) -> None:
        self.run(self.stack.aclose())
        self.renew_leases()
        self.embedded = self.run(self.open())

    @rule()
    def crash(self) -> None:
        old = self.folder / str(self.generation)
        self.generation += 1
        shutil.copytree(old, self.folder / str(self.generation))
        self.run(self.stack.aclose())
        self.renew_leases()
        self.embedded = self.run(self.open())

    def renew_leases(self) -> None:
        for lease in range(1, 40):
            self.run(_renewed(self.memory, lease))

    @invariant()
    def same_state(self) -> None:
        page = self.both(lambda store: store.range(""))
        self.revision = page.revision

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.run(self.memory_stack.aclose())
        self.runner.close()
        shutil.rmtree(self.folder)


async def _renewed(store: Store, lease: int) -> None:
    try:
        await store.keep_alive(Lease(lease, 1))
    except StoreError:
        return


Twins.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestTwins = Twins.TestCase
