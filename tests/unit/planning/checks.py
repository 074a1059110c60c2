"""What must hold of every plan and in every state: computed apart from the planners.

Each check raises ``Broken`` with its name; ``test_zoo`` plants a bug for each of them.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections import Counter
from collections.abc import Collection

from cloudless.domain.cluster import Cluster
from cloudless.domain.node import NODE_TRANSITIONS, NodePhase
from cloudless.domain.plan import (
    Action,
    Plan,
    PutJournal,
    PutNode,
    PutReplica,
    PutRevision,
    RemoveReplica,
    RemoveRevision,
)
from cloudless.domain.replica import TRANSITIONS, ReplicaPhase, ReplicaRecord
from cloudless.domain.revision import Revision
from cloudless.domain.rollout import ROLLOUT_TRANSITIONS, RolloutPhase
from cloudless.domain.strategy import Strategy
from cloudless.domain.workload import WorkloadSpec
from cloudless.planning.status import view_workload

P = RolloutPhase
LEADING = (Strategy.BLUE_GREEN, Strategy.CANARY)
#: Verbs of the journal that are steps, or an end.
STEPS = {"switch", "weigh", "bake", "pause", "promote", "end"}
#: Two phases between which one plan steps over a third without a line of the journal in it.
STEPPED_OVER = {
    (P.WAITING_PROMOTION, P.COMPLETED),  # promoted, and nothing else was left to wait for
}


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, name: str, detail: object) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


def follows(
    before: RolloutPhase, after: RolloutPhase, pairs: Collection[tuple[RolloutPhase, RolloutPhase]]
) -> bool:
    """Whether a phase stays, goes one step of its table, or makes one of the named ``pairs``."""
    return before is after or after in ROLLOUT_TRANSITIONS[before] or (before, after) in pairs


def require(truth: bool, name: str, detail: object = "") -> None:
    if not truth:
        raise Broken(name, detail)


def percent(text: str, total: int, up: bool) -> int:
    if not text.endswith("%"):
        return int(text)
    return (math.ceil if up else math.floor)(int(text[:-1]) * total / 100)


def limits(spec: WorkloadSpec) -> tuple[int, int]:
    """(most replicas, fewest available ones) while a rollout is on."""
    rollout, wanted = spec.rollout, spec.replicas
    if rollout.strategy is Strategy.BLUE_GREEN:
        return 2 * wanted, wanted
    if rollout.strategy is Strategy.RECREATE:
        return wanted, 0
    surge = percent(rollout.max_surge, wanted, True)
    unavailable = percent(rollout.max_unavailable, wanted, False)
    if surge == unavailable == 0:
        unavailable = 1
    if rollout.strategy is Strategy.CANARY:
        surge = max(surge, *(step.count(wanted) for step in rollout.canary_steps), 0)
    least = percent(rollout.min_available or "0", wanted, True)
    return wanted + surge, max(wanted - unavailable, min(least, wanted), 0)


def lost(cluster: Cluster, replica: ReplicaRecord) -> bool:
    node = cluster.nodes.get(replica.node_id)
    return bool(replica.node_id) and (node is None or node.phase is NodePhase.LOST)


def existing(cluster: Cluster, workload_id: str) -> int:
    return sum(not lost(cluster, one) for one in cluster.replicas_of(workload_id))


def available(cluster: Cluster, workload_id: str, now: datetime.datetime) -> set[str]:
    wanted = cluster.workloads[workload_id].spec.rollout.min_ready_time
    found = set()
    for one in cluster.replicas_of(workload_id):
        node, seen = cluster.nodes.get(one.node_id), cluster.observations.get(one.id)
        connected = node is not None and node.phase in (NodePhase.READY, NodePhase.NOT_READY)
        since = seen.ready_since if seen is not None and seen.ready else None
        if connected and one.run and since is not None and since + wanted <= now:
            found.add(one.id)
    return found


def served(cluster: Cluster, workload_id: str, now: datetime.datetime) -> set[str]:
    """Available replicas that get traffic: what a user's clients meet."""
    status = cluster.statuses.get(workload_id)
    shares = status.rollout.shares if status is not None and status.rollout is not None else ()
    found = available(cluster, workload_id, now)
    if not shares:
        return found
    led = {share.revision for share in shares if share.percent}
    return {one for one in found if cluster.replicas[one].revision in led}


def target_of(cluster: Cluster, workload_id: str) -> Revision:
    """The revision that replicas are made from now."""
    newest, status = cluster.newest_revision(workload_id), cluster.statuses.get(workload_id)
    assert newest is not None
    if status is None or status.rollout is None or status.rollout.revision != newest.number:
        return newest
    return cluster.revisions[workload_id][status.rollout.target]


def ready(cluster: Cluster, one: ReplicaRecord) -> bool:
    node, seen = cluster.nodes.get(one.node_id), cluster.observations.get(one.id)
    connected = node is not None and node.phase in (NodePhase.READY, NodePhase.NOT_READY)
    return connected and seen is not None and seen.ready


def template_of(cluster: Cluster, one: ReplicaRecord) -> str:
    revision = cluster.revision_of(one)
    return revision.template_hash if revision else ""


def check_nodes(cluster: Cluster, plan: Plan, live: Collection[str]) -> None:
    for action in plan.actions:
        assert isinstance(action, PutNode)
        before, after = cluster.nodes[action.node.id].phase, action.node.phase
        require(after is before or after in NODE_TRANSITIONS[before], "node-transition", (before, after))
        gone = after in (NodePhase.DISCONNECTED, NodePhase.LOST)
        require(gone is not (action.node.session in live), "node-truth", action.node)


def key_of(action: Action) -> tuple[object, ...]:
    match action:
        case PutReplica(replica) | RemoveReplica(replica):
            return "replica", replica.id
        case PutRevision(revision):
            return "revision", revision.number
        case RemoveRevision(_, number):
            return "revision", number
        case PutJournal(entry):
            return "journal", entry.revision, entry.sequence
    return (type(action).__name__,)


class Watch:
    """Remembers what may only move one way."""

    def __init__(self) -> None:
        self.phases: dict[str, ReplicaPhase] = {}
        self.generation = 0
        self.stopped: set[str] = set()
        self.seen: set[str] = set()

    def plan(
        self, before: Cluster, after: Cluster, plan: Plan, workload_id: str, now: datetime.datetime
    ) -> None:
        """Check one plan by what it does to a state."""
        born = [
            a.replica
            for a in plan.actions
            if isinstance(a, PutReplica) and a.replica.id not in before.replicas
        ]
        self._removals(before, plan)
        keys = [key_of(action) for action in plan.actions]
        require(len(keys) == len(set(keys)), "one-write-per-record", keys)
        self._rollout(before, after, plan, workload_id)
        if workload_id in before.workloads and before.workloads[workload_id].deleted_at is None:
            self._surge(before, after, born, workload_id)
            self._floor(before, after, workload_id, now)
        if workload_id not in after.workloads:
            require(not list(after.replicas_of(workload_id)), "deleted-whole")
        for replica in after.replicas_of(workload_id):
            require(after.revision_of(replica) is not None, "revision-kept", replica.revision)

    def _rollout(self, before: Cluster, after: Cluster, plan: Plan, workload_id: str) -> None:
        """A rollout's phase moves along its table, its journal by one, and no way back starts another."""
        was, now = before.statuses.get(workload_id), after.statuses.get(workload_id)
        entries = [action.entry for action in plan.actions if isinstance(action, PutJournal)]
        if now is None or now.rollout is None:
            return
        rollout = now.rollout
        mine = [one.sequence for one in entries if one.revision == rollout.revision]
        require(mine == list(range(rollout.journal - len(mine) + 1, rollout.journal + 1)), "journal", mine)
        require(sum(share.percent for share in rollout.shares) in (0, 100), "shares", rollout.shares)
        old = was.rollout if was is not None else None
        if old is None or old.revision != rollout.revision:
            return
        phases = [old.phase, *(one.phase for one in entries), rollout.phase]
        for left, reached in itertools.pairwise(phases):
            require(follows(left, reached, STEPPED_OVER), "rollout-transition", (left, reached))
        if old.back_to and rollout.back_to:
            require(old.back_to == rollout.back_to, "one-way-back", (old.back_to, rollout.back_to))
        if old.phase is P.PAUSED is rollout.phase:
            require(not {one.verb for one in entries} & STEPS, "held", entries)
            self._held(before, after, workload_id)

    def _held(self, before: Cluster, after: Cluster, workload_id: str) -> None:
        """Under a user's pause nothing is born or stopped but to have as many as are wanted."""
        spec = after.workloads[workload_id].spec
        if spec.rollout.strategy is Strategy.RECREATE:
            return  # half way nothing serves: it is never left there
        there = [one for one in before.replicas_of(workload_id) if one.run and not lost(before, one)]
        kept = {one.id for one in after.replicas_of(workload_id) if one.run}
        stopped = [one for one in there if one.id not in kept]
        sizes = Counter(one.revision for one in there)
        twice = len({one.ordinal for one in there}) < len(there)
        many = (
            max(sizes.values(), default=0) > spec.replicas or existing(before, workload_id) > limits(spec)[0]
        )
        require(not stopped or many or twice, "held", stopped)
        born = [one for one in after.replicas_of(workload_id) if one.id not in before.replicas]
        for one in born:
            led = spec.rollout.strategy in LEADING
            few = (sizes[one.revision] if led else len(there)) < spec.replicas
            require(few, "held", one)

    def _removals(self, before: Cluster, plan: Plan) -> None:
        for action in plan.actions:
            if isinstance(action, RemoveReplica):
                one = action.replica
                require(not one.node_id or lost(before, one), "no-orphan", one)

    def _surge(self, before: Cluster, after: Cluster, born: list[ReplicaRecord], workload_id: str) -> None:
        spec = after.workloads[workload_id].spec
        target = target_of(after, workload_id)
        old = [
            one
            for one in after.replicas_of(workload_id)
            if template_of(after, one) != target.template_hash and not lost(after, one)
        ]
        if not old or not born:
            return
        most, _ = limits(spec)
        if spec.rollout.strategy is Strategy.RECREATE:
            require(False, "recreate-all-gone-first", born)
        require(existing(after, workload_id) <= most, "surge", (existing(after, workload_id), most))

    def _floor(self, before: Cluster, after: Cluster, workload_id: str, now: datetime.datetime) -> None:
        spec = after.workloads[workload_id].spec
        if spec.rollout.strategy is Strategy.RECREATE:
            return
        was, still = served(before, workload_id, now), served(after, workload_id, now)
        _, least = limits(spec)
        staying = [one for one in after.replicas_of(workload_id) if one.run and not lost(after, one)]
        target = target_of(after, workload_id)
        both = [*before.replicas_of(workload_id), *staying]
        if all(template_of(after, one) == target.template_hash for one in both):
            unready = [one for one in staying if one.id in before.replicas and not ready(before, one)]
            require(was == still or not unready, "ready-stop-last", unready)
        require(was <= still or len(still) >= least, "floor", (len(was), len(still), least))

    def state(self, cluster: Cluster, workload_id: str, now: datetime.datetime) -> None:
        """Check a state after all that was to be done is done."""
        self._identity(cluster, workload_id)
        self._reservations(cluster)
        if workload_id in cluster.workloads:
            self._status(cluster, workload_id, now)

    def _identity(self, cluster: Cluster, workload_id: str) -> None:
        held: dict[int, str] = {}
        for one in cluster.replicas_of(workload_id):
            require(one.run or one.id in self.stopped or one.id in self.seen or not one.run, "known")
            if not one.run:
                self.stopped.add(one.id)
            require(not (one.run and one.id in self.stopped), "never-revived", one.id)
            if one.run and one.node_id:
                require(one.ordinal not in held, "identity", (one.ordinal, held.get(one.ordinal), one.id))
                held[one.ordinal] = one.id

    def _reservations(self, cluster: Cluster) -> None:
        for node in cluster.nodes.values():
            memory, ports = 0, []
            for one in cluster.replicas_on(node.id):
                seen, revision = cluster.observations.get(one.id), cluster.revision_of(one)
                if revision is None or (seen and seen.phase in (ReplicaPhase.FAILED, ReplicaPhase.SUCCEEDED)):
                    continue
                memory += revision.spec.resources.requests.memory_bytes
                ports += [port.host_port for port in revision.spec.ports if port.host_port]
            require(memory <= node.facts.capacity.memory_bytes, "over-commit", (node.name, memory))
            require(len(ports) == len(set(ports)), "ports", (node.name, ports))
            require(cluster.usage_of(node.id).memory_bytes == memory, "usage-index", node.name)

    def _status(self, cluster: Cluster, workload_id: str, now: datetime.datetime) -> None:
        view = view_workload(cluster, workload_id, now)
        for one in view.replicas:
            node = cluster.nodes.get(one.record.node_id)
            connected = node is not None and node.phase in (NodePhase.READY, NodePhase.NOT_READY)
            running = one.ready or one.available or one.phase is ReplicaPhase.RUNNING
            require(connected or not running, "nothing-runs-unseen", one)
            before = self.phases.get(one.record.id, one.phase)
            allowed = one.phase is before or one.phase in TRANSITIONS[before]
            require(allowed, "transition", (one.record.id, before, one.phase))
            self.phases[one.record.id] = one.phase
            require(bool(one.message) or one.ready or one.phase is ReplicaPhase.SUCCEEDED, "explained", one)
        require(view.available == len(available(cluster, workload_id, now)), "available")
        status = view.status
        if status is not None:
            require(status.observed_generation >= self.generation, "generation")
            require(status.observed_generation <= cluster.workloads[workload_id].generation, "generation")
            self.generation = status.observed_generation
