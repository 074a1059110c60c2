"""How a workload's new connections are shared out over its ready replicas on this node. Pure.

The switchboard asks, with the replicas that are ready and the shares that the coordinator
has told. Shares are of revisions; here they become weights of replicas. Every node shares
out what arrives at its own port among its own replicas.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloudless.agent.traffic.limits import MAX_SCALE
from cloudless.domain.rollout import TrafficShare


@dataclass(frozen=True, slots=True)
class Sharing:
    """``weights`` of the replicas that get connections; the others get none.

    ``instead`` is the revision that stands in because none of ``missing``, which should get
    connections, has a ready replica here; 0 when all is as it should be. ``missing`` without
    ``instead``: nobody gets any.
    """

    weights: dict[str, int]
    missing: tuple[int, ...] = ()
    instead: int = 0


def share_out(ready: Mapping[str, int], shares: Iterable[TrafficShare]) -> Sharing:
    """Weights for the replicas in ``ready`` (replica id -> revision).

    Without shares all are alike. With shares each revision's percentage is divided over its
    ready replicas; what a revision without any would get goes to the others that are listed.

    When no listed revision has a ready replica, the newest revision *before* them that has
    one stands in: users knew it, and it is still ready, so it serves them better than a
    refusal. After a switch that is the old set, for as long as it is kept; a replica that was
    told to stop is not ready any more and never comes back. A *newer* revision never stands
    in: nobody has decided yet that users shall see it, and connections are refused instead.

    >>> share_out({"a": 1, "b": 1, "c": 2}, [TrafficShare(revision=1, percent=90),
    ...           TrafficShare(revision=2, percent=10)]).weights
    {'a': 90, 'b': 90, 'c': 20}
    >>> share_out({"a": 1, "b": 2}, [TrafficShare(revision=2, percent=100)]).weights
    {'b': 1}
    >>> share_out({"a": 1}, [TrafficShare(revision=2, percent=100)])
    Sharing(weights={'a': 1}, missing=(2,), instead=1)
    >>> share_out({"b": 2}, [TrafficShare(revision=1, percent=100)])
    Sharing(weights={}, missing=(1,), instead=0)
    """
    percents = {share.revision: share.percent for share in shares}
    if not percents:
        return Sharing(dict.fromkeys(ready, 1))
    counts = Counter(revision for revision in ready.values() if percents.get(revision, 0) > 0)
    if len(counts) == 1:
        return Sharing({replica_id: 1 for replica_id, revision in ready.items() if revision in counts})
    if counts:
        scale = min(math.lcm(*counts.values()), MAX_SCALE)
        each = {revision: max(percents[revision] * scale // count, 1) for revision, count in counts.items()}
        return Sharing(
            {replica_id: each[revision] for replica_id, revision in ready.items() if revision in each}
        )
    missing = tuple(sorted(revision for revision, percent in percents.items() if percent > 0))
    newest = max(missing, default=0)
    instead = max((revision for revision in ready.values() if revision < newest), default=0)
    weights = {replica_id: 1 for replica_id, revision in ready.items() if instead and revision == instead}
    return Sharing(weights, missing if ready else (), instead)
