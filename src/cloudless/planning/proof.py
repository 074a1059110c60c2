"""Which revisions count as proved healthy after their rollout: a way back must lead to one that runs.

A rollout that completes proves its revision (``progress``). The proof is withdrawn when
replicas of the revision that are not available have ended badly more often than
``max_failures`` tolerates, and given (back) to the revision that replicas are made from
when all of those wanted have been ready for ``reset_after`` of its restart policy: the
time after which a node forgets earlier ends as well.
"""

from __future__ import annotations

import datetime

from cloudless.planning.bounds import Bounds
from cloudless.planning.draft import Draft
from cloudless.planning.judging import bad_ends
from cloudless.planning.progress import ENDED


def review_proofs(draft: Draft, bounds: Bounds) -> None:
    """Withdraw the proof of what crashes, and give it to what has run for long enough."""
    tolerated = draft.workload.spec.rollout.max_failures
    failing: dict[int, int] = {}
    for one in draft.census.staying:
        if not one.settled:
            failing[one.record.revision] = failing.get(one.record.revision, 0) + bad_ends(one)
    for number, bad in failing.items():
        revision = draft.revisions.get(number)
        if revision is not None and revision.healthy_at is not None and bad > tolerated:
            draft.revise(number, healthy_at=None)
            times = f"{bad} {'time' if bad == 1 else 'times'}"
            text = f"revision {number} does not count as healthy any more: replicas ended badly {times}"
            draft.tell("RevisionUnproved", text, warning=True)
    target = draft.revisions.get(draft.rollout.target)
    if target is None or target.healthy_at is not None or draft.rollout.phase not in ENDED:
        return
    at = _proved_at(draft, bounds)
    if at is not None and at <= draft.now:
        draft.revise(target.number, healthy_at=draft.now)
    elif at is not None:
        draft.wake(at)


def _proved_at(draft: Draft, bounds: Bounds) -> datetime.datetime | None:
    """When time alone proves the revision that replicas are made from; None when it does not."""
    mine = [one for one in draft.census.staying if one.record.revision == draft.rollout.target]
    if not bounds.desired or len(mine) != bounds.desired or not all(one.settled for one in mine):
        return None
    ready = [one.observation.ready_since for one in mine if one.observation and one.observation.ready_since]
    wait = draft.workload.spec.restart_policy.backoff.reset_after
    return max(ready) + wait if ready else draft.now
