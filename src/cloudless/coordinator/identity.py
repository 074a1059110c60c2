"""Which cluster this is: an id that is made once, kept in the store, and checked ever after.

A data directory remembers the id too, so that a coordinator which was pointed at another
cluster's store by mistake stops before it acts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cloudless.aio.clock import Clock
from cloudless.coordinator.state import keys
from cloudless.coordinator.state.records import ClusterRecord
from cloudless.coordinator.state.typed import TypedStore
from cloudless.domain.errors import Fatal


class WrongCluster(Fatal):
    """The store belongs to another cluster than the data directory."""

    code = "CL-1006"


async def cluster_identity(typed: TypedStore, clock: Clock, new_id: Callable[[], str]) -> ClusterRecord:
    """Which cluster it is; the first coordinator that asks makes it."""
    while True:
        found = await typed.get(ClusterRecord, keys.CLUSTER)
        if found is not None:
            return found[0]
        batch = typed.batch()
        batch.expect(keys.CLUSTER, 0)
        batch.put(keys.CLUSTER, ClusterRecord(id=new_id(), created_at=clock.now(), secret=new_id()))
        await typed.commit(batch)  # whoever was first: it is there now


def check_identity(path: Path, cluster_id: str) -> None:
    """Compare with what the data directory remembers, or make it remember.

    Raises ``WrongCluster``, and ``Fatal`` when the file cannot be read or written.
    """
    try:
        known = path.read_text().strip() if path.exists() else ""
        if not known:
            fresh = path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_text(cluster_id + "\n")
            os.replace(fresh, path)
    except OSError as error:
        raise Fatal(
            f"cannot use {path}: {error.strerror or error}", hint="choose another --data-dir"
        ) from None
    if known and known != cluster_id:
        raise WrongCluster(
            f"{path} says cluster {known}, but the store holds cluster {cluster_id}",
            hint="use the store of this data directory, or another data directory",
        )
