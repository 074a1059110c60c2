"""What every handler is given: the state it reads and writes, and where ids and time come from."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from cloudless.aio.clock import Clock
from cloudless.coordinator.nodes import NodeTable
from cloudless.coordinator.services.closing import Closing
from cloudless.coordinator.services.paging import PageTokens
from cloudless.coordinator.services.views import WorkloadViews
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.snapshots import Snapshots
from cloudless.coordinator.state.typed import TypedStore


@dataclass(frozen=True, slots=True)
class About:
    """What ``GetInfo`` says that does not change."""

    cluster_id: str
    store: str
    started_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Context:
    """One for each coordinator; handlers keep nothing of their own."""

    typed: TypedStore
    cache: WatchCache
    snapshots: Snapshots
    views: WorkloadViews
    tokens: PageTokens
    nodes: NodeTable
    closing: Closing
    leading: Callable[[], bool]
    clock: Clock
    new_id: Callable[[], str]
    about: About
