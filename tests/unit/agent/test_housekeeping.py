"""When logs are looked after: now and then, and soon after containers began."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from cloudless.agent.housekeeping import Housekeeping
from cloudless.agent.limits import COLLECT_S, HOUSEKEEPING_S
from cloudless.agent.logs.store import LogStore


class _OverError(Exception):
    """The test has seen enough."""


class _Clock:
    """Calls ``on_sleep`` with the time instead of waiting."""

    def __init__(self, on_sleep: Any) -> None:
        self.now_s = 0.0
        self._on_sleep = on_sleep

    async def sleep(self, delay_s: float) -> None:
        self.now_s += delay_s
        self._on_sleep(self.now_s)


async def test_logs_are_collected_soon_after_a_container_began(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "logs", tmp_path / "bin")
    collected: list[float] = []

    def on_sleep(now_s: float) -> None:
        if now_s == 3 * COLLECT_S:
            store.prepare("r1", 1)
        if now_s > HOUSEKEEPING_S + COLLECT_S:
            raise _OverError

    clock = _Clock(on_sleep)
    keeping = Housekeeping(
        None, folder=tmp_path, runtime=None, network=None, switchboard=None, logs=store, clock=clock
    )  # type: ignore[arg-type]

    async def collect_logs(_: object) -> None:
        collected.append(clock.now_s)

    looked: list[float] = []

    async def look_around(*_: object) -> None:
        looked.append(clock.now_s)

    keeping._collect_logs = collect_logs  # type: ignore[method-assign, assignment]
    keeping._look_around = look_around  # type: ignore[method-assign, assignment]
    with contextlib.suppress(_OverError):
        await keeping.run(None, frozenset)  # type: ignore[arg-type]
    assert collected == [3 * COLLECT_S, HOUSEKEEPING_S]
    assert looked == [HOUSEKEEPING_S]
    store.close()
