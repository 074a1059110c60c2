"""The journals of rollouts as they are stored: read when somebody asks, never kept in memory.

The control loop writes entries with its plans and removes them with their revision or
workload (``control.apply``); services read them here.
"""

from __future__ import annotations

from collections import deque

from cloudless.coordinator.limits import JOURNAL_CHUNK, MAX_JOURNAL_BYTES, MAX_JOURNAL_ENTRIES
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.typed import TypedStore
from cloudless.domain.rollout import JournalEntry
from cloudless.store.port import KeyValue


async def read_journal(
    typed: TypedStore, workload_id: str, revision: int, limit: int = MAX_JOURNAL_ENTRIES
) -> list[JournalEntry]:
    """The newest ``limit`` entries of one revision's journal, oldest first.

    Entries are numbered from 1, so that a reader sees when older ones are left out.
    """
    newest: deque[KeyValue] = deque()
    size_bytes = 0
    after: str | None = None
    while True:
        page = await typed.range(keys.journal(workload_id, revision), start_after=after, limit=JOURNAL_CHUNK)
        for kv in page.items:
            newest.append(kv)
            size_bytes += len(kv.value)
            while len(newest) > limit or size_bytes > MAX_JOURNAL_BYTES:
                size_bytes -= len(newest.popleft().value)
        if not page.more:
            return [typed.read(JournalEntry, kv)[0] for kv in newest]
        after = page.items[-1].key
