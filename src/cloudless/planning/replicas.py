"""How many replicas, which ordinals, which ones go: outside of and around rollouts.

A replica is one-shot: it is replaced, never revived. One that ended well (SUCCEEDED)
or for good (FAILED) keeps its place and is not replaced within its revision. One on a
lost node is replaced at once; until the replacement has a node, the lost one is kept,
so that a node that comes back finds its replicas wanted.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloudless.domain.replica import ReplicaRecord
from cloudless.domain.rollout import Stage
from cloudless.domain.strategy import Strategy
from cloudless.planning.bounds import Bounds
from cloudless.planning.census import Census, Standing
from cloudless.planning.draft import Draft


def clear_lost(draft: Draft, bounds: Bounds) -> None:
    """Forget what lost nodes held and is replaced, surplus, or told to stop anyway."""
    for one in draft.census.abandoned:
        draft.remove(one, "")
    census = draft.census
    if not census.lost:
        return
    held = {one.record.ordinal for one in census.staying if one.record.node_id}
    lacking = {
        True: bounds.desired - sum(bool(one.record.node_id) for one in census.new),
        False: lacking_old(draft, bounds, placed=True),
    }
    for one in sorted(census.lost, key=lambda one: one.record.ordinal):
        where = f"node {one.node.name} is lost" if one.node else "its node is gone"
        if one.record.ordinal in held:
            draft.remove(one, f"{where}; replaced")
        elif lacking[one.current] <= 0:
            draft.remove(one, f"{where}; not needed any more")
        else:
            lacking[one.current] -= 1


def lacking_old(draft: Draft, bounds: Bounds, *, placed: bool = False) -> int:
    """Replicas of older revisions that are needed beside those that are there.

    With ``placed``, those that have no node yet do not count as there.
    """
    there = sum(bool(one.record.node_id) or not placed for one in draft.census.old)
    return wanted_old(draft, bounds) - there


def wanted_old(draft: Draft, bounds: Bounds) -> int:
    """Replicas of older revisions that are to be there now.

    A set that has all the traffic is kept whole; a rolling update keeps its floor.
    """
    rollout, strategy = draft.rollout, draft.workload.spec.rollout.strategy
    if strategy is Strategy.RECREATE:
        return 0
    early = rollout.stage in (Stage.SURGE, Stage.PROMOTE) and not rollout.back_to
    if strategy is Strategy.BLUE_GREEN:
        return bounds.desired if early else 0
    if strategy is Strategy.CANARY and early:
        return bounds.desired
    return bounds.floor - sum(one.settled for one in draft.census.new)


def stop_duplicates(draft: Draft) -> None:
    """Of two replicas with one ordinal only the first stays: a lost node came back in time."""
    staying = draft.census.staying
    if len({one.record.ordinal for one in staying}) == len(staying):
        return
    seen: dict[int, Standing] = {}
    for one in sorted(staying, key=_keeping_order):
        if one.record.ordinal in seen:
            draft.stop(one, "the replica that it was to replace is back")
        else:
            seen[one.record.ordinal] = one


def heal_old(draft: Draft, bounds: Bounds) -> None:
    """Replace lost replicas of an older revision by their like, while a rollout is on.

    Only as far as the floor of available replicas needs it: a rollout that cannot
    succeed must not cost the replicas that still serve.
    """
    census = draft.census
    led = {share.revision for share in draft.rollout.shares if share.percent}
    lost = [one for one in census.lost if not one.current and (not led or one.record.revision in led)]
    if not lost:
        return
    held = {one.record.ordinal for one in census.staying}
    lacking = lacking_old(draft, bounds)
    room = bounds.desired + bounds.surge - census.existing
    for one in [one for one in lost if one.record.ordinal not in held][: max(0, min(lacking, room))]:
        _create(draft, one.record.ordinal, one.record.revision, f"{one.title} is on a lost node")


def surge(draft: Draft, count: int, revision: int, because: str) -> bool:
    """Put the creation of replicas into the plan; whether there was room in it for all."""
    ordinals = free_ordinals(draft.census)
    return all(_create(draft, next(ordinals), revision, because) for _ in range(count))


def free_ordinals(census: Census) -> Iterator[int]:
    """The lowest ordinals that no replica that runs holds, in rising order."""
    held = {one.record.ordinal for one in census.staying}
    ordinal = 0
    while True:
        if ordinal not in held:
            yield ordinal
        ordinal += 1


def _create(draft: Draft, ordinal: int, revision: int, because: str) -> bool:
    workload = draft.workload
    return draft.change(
        ReplicaRecord.trusted(
            id=draft.new_id(),
            workload_id=workload.id,
            namespace=workload.namespace,
            name=workload.name,
            ordinal=ordinal,
            revision=revision,
            created_at=draft.now,
            because=because,
        )
    )


def _keeping_order(one: Standing) -> tuple[bool, bool, float, str]:
    record = one.record
    return not record.node_id, not one.ready, record.created_at.timestamp(), record.id
