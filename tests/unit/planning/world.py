"""A small world for planners: nodes that do what records say, late, or not at all.

Users, nodes and faults act on it by numbered operations, so that hypothesis can shrink
a run; ``checks`` looks at every plan before and after it is applied.
"""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass, field

from tests.unit.planning import checks

from cloudless.aio.ids import IdSource
from cloudless.domain.cluster import Cluster
from cloudless.domain.intent import RolloutIntent
from cloudless.domain.node import NodeFacts, NodePhase, NodeRecord
from cloudless.domain.plan import Plan
from cloudless.domain.replica import ExitStatus, Observation, ReplicaPhase
from cloudless.domain.rollout import RolloutPhase
from cloudless.domain.workload import WorkloadRecord, WorkloadSpec
from cloudless.planning.apply import apply_plan
from cloudless.planning.liveness import plan_nodes
from cloudless.planning.status import WorkloadView, view_workload
from cloudless.planning.workload import plan_workload

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
WEB = "web-id"
MI = 2**20

Operation = tuple[str, int]
STRATEGIES: tuple[dict[str, object], ...] = (
    {},
    {"strategy": "RECREATE"},
    {"strategy": "BLUE_GREEN", "scale_down_delay": "5s"},
    {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "0s"},
    {"strategy": "CANARY"},
    {
        "strategy": "CANARY",
        "auto_promote": True,
        "steps": [{"weight": 10}, {"weight": 50, "pause": {"duration": "3s"}}],
    },
)
OPERATIONS = (
    "tick", "tick", "tick", "tick", "update", "scale", "bounds", "restart", "revert",
    "crash", "fail", "cut", "mend", "not_ready", "forget_node", "strategy", "delete",
    "strategy", "verb", "verb", "safety",
)  # fmt: skip


@dataclass
class Container:
    """What is really on a node."""

    starts_at: datetime.datetime
    ready_at: datetime.datetime
    bad: bool
    gone_at: datetime.datetime | None = None
    broken_until: datetime.datetime | None = None
    failed: bool = False
    restarts: int = 0


@dataclass
class Machine:
    """A node as it really is, connected or not."""

    id: str
    connected: bool = True
    not_ready: str = ""
    containers: dict[str, Container] = field(default_factory=dict)


def node_record(name: str, **facts: object) -> NodeRecord:
    """A ready node with room for 7 replicas of the world's workload."""
    given = {"capacity": {"memory": "750Mi", "cpu": "4"}, "zone": "a", **facts}
    parsed = NodeFacts.model_validate({"id": f"{name}-id", "name": name, **given})
    return NodeRecord(facts=parsed, joined_at=START, changed_at=START, session=f"{name}-session")


def workload_record(replicas: int = 3, name: str = "web", **spec: object) -> WorkloadRecord:
    """A workload that takes 100Mi per replica."""
    given = {"image": "web:1", "replicas": replicas, "resources": {"requests": {"memory": "100Mi"}}, **spec}
    return WorkloadRecord(
        id=f"{name}-id",
        namespace="default",
        name=name,
        labels={"app": name},
        spec=WorkloadSpec.model_validate(given),
        created_at=START,
        updated_at=START,
    )


class World:
    """One workload on a few nodes."""

    def __init__(self, seed: int = 0, nodes: int = 3, **spec: object) -> None:
        self.random = random.Random(seed)
        self.new_id = IdSource(random.Random(seed + 1))
        self.now = START
        self.cluster = Cluster()
        self.machines = {f"n{i}-id": Machine(f"n{i}-id") for i in range(nodes)}
        for number in range(nodes):
            record = node_record(f"n{number}")
            self.cluster.nodes[record.id] = record
        self.cluster.put_workload(workload_record(**spec))
        self.watch = checks.Watch()
        self.plans: list[Plan] = []

    # -- the control loop

    def settle(self) -> None:
        """Plan nodes and the workload until nothing is left to do now."""
        live = {f"{m.id[:-3]}-session" for m in self.machines.values() if m.connected}
        nodes = plan_nodes(self.cluster, live, self.now, since=START)
        checks.check_nodes(self.cluster, nodes, live)
        self.cluster = apply_plan(self.cluster, nodes)
        assert not plan_nodes(self.cluster, live, self.now, since=START).actions
        for _ in range(10):
            plan = plan_workload(self.cluster, WEB, self.now, self.new_id)
            after = apply_plan(self.cluster, plan)
            self.watch.plan(self.cluster, after, plan, WEB, self.now)
            self.cluster = after
            self.plans.append(plan)
            if not plan.actions:
                break
            again = plan_workload(self.cluster, WEB, self.now, self.new_id)
            checks.require(
                not again.actions and not again.events, "idempotent", again.because or again.actions
            )
        self.watch.state(self.cluster, WEB, self.now)

    # -- what happens to it

    def do(self, operation: Operation) -> None:
        """One operation, then a decision."""
        name, number = operation
        getattr(self, f"do_{name}")(number)
        self.settle()

    def do_tick(self, number: int) -> None:
        self.now += SECOND * (1 + number % 3)
        for machine in self.machines.values():
            self._advance(machine)

    def do_update(self, number: int) -> None:
        bad = "bad" if number % 4 == 0 else "web"
        self.change(image=f"{bad}:{number % 7}")

    def do_revert(self, number: int) -> None:
        revisions = self.cluster.revisions.get(WEB, {})
        if revisions:
            chosen = sorted(revisions)[number % len(revisions)]
            self.change(image=revisions[chosen].spec.image)

    def do_scale(self, number: int) -> None:
        self.change(replicas=number % 7)

    def do_strategy(self, number: int) -> None:
        self.change(rollout=STRATEGIES[number % len(STRATEGIES)])

    def do_safety(self, number: int) -> None:
        record = self.cluster.workloads.get(WEB)
        if record is not None:
            kept = record.spec.rollout.model_dump(mode="json", exclude_unset=True)
            more = {"auto_rollback": bool(number % 2), "max_failures": number % 4}
            more |= {
                "bake_time": ("0s", "5s")[number // 4 % 2],
                "progress_deadline": ("600s", "20s")[number // 8 % 2],
                "pause_deadline": ("24h", "6s")[number // 16 % 2],
            }
            self.change(rollout={**kept, **more})

    def do_verb(self, number: int) -> None:
        """A user steers the rollout that is on, as the service would let them."""
        record, status = self.cluster.workloads.get(WEB), self.cluster.statuses.get(WEB)
        if record is None or status is None or status.rollout is None:
            return
        revision = status.rollout.revision
        intent = record.intent if record.intent.revision == revision else RolloutIntent(revision=revision)
        match number % 6:
            case 0:
                intent = intent.replaced(paused=True)
            case 1:
                intent = intent.replaced(paused=False)
            case 2 | 3:
                intent = intent.replaced(promotions=intent.promotions + 1, full=number % 5 == 0)
            case 4:
                intent = intent.replaced(aborts=intent.aborts + 1)
            case 5:
                intent = intent.replaced(retries=intent.retries + 1)
        self.cluster.put_workload(record.replaced(intent=intent))

    def do_bounds(self, number: int) -> None:
        surge, unavailable = ("0", "1", "25%", "100%")[number % 4], ("1%", "1", "50%")[number // 4 % 3]
        rollout: dict[str, object] = {"max_surge": surge, "max_unavailable": unavailable}
        if number % 5 == 0:
            rollout["min_available"] = ("1", "50%", "100%")[number // 5 % 3]
        if number % 7 == 0:
            rollout["pause_duration"] = "4s"
        if number % 3 == 0:
            rollout["min_ready_time"] = "3s"
        self.change(rollout=rollout)

    def do_restart(self, number: int) -> None:
        record = self.cluster.workloads.get(WEB)
        if record is not None:
            self.cluster.put_workload(record.replaced(restart_count=record.restart_count + 1))

    def do_crash(self, number: int) -> None:
        """A container ends and is restarted in place after a while."""
        for container in self._some_container(number):
            container.broken_until = self.now + SECOND * (number % 6)
            container.restarts += 1
        self._report_all()

    def do_fail(self, number: int) -> None:
        """A container ends for good."""
        if number % 3 == 0:
            for container in self._some_container(number):
                container.failed = True
        self._report_all()

    def do_cut(self, number: int) -> None:
        machine = self._machine(number)
        machine.connected = False

    def do_mend(self, number: int) -> None:
        self._connect(self._machine(number))

    def do_not_ready(self, number: int) -> None:
        machine = self._machine(number)
        machine.not_ready = "containerd is away" if number % 2 else ""
        if machine.connected:
            self._report_facts(machine)

    def do_forget_node(self, number: int) -> None:
        """A lost node is taken out of the cluster; it may join again later."""
        machine = self._machine(number)
        record = self.cluster.nodes.get(machine.id)
        if record is not None and record.phase is NodePhase.LOST:
            del self.cluster.nodes[machine.id]

    def do_delete(self, number: int) -> None:
        record = self.cluster.workloads.get(WEB)
        if number % 10 == 0 and record is not None and record.deleted_at is None:
            self.cluster.put_workload(record.replaced(deleted_at=self.now))

    def change(self, **fields: object) -> None:
        """A user's change of the specification."""
        record = self.cluster.workloads.get(WEB)
        if record is None or record.deleted_at is not None:
            return
        data = record.spec.model_dump(mode="json", exclude_unset=True)
        spec = WorkloadSpec.model_validate({**data, **fields})
        if spec != record.spec:
            changed = record.replaced(spec=spec, generation=record.generation + 1, updated_at=self.now)
            self.cluster.put_workload(changed)

    # -- healing

    def heal(self) -> None:
        """All nodes back, a good image, default bounds."""
        for machine in self.machines.values():
            machine.not_ready = ""
            self._connect(machine)
        self.change(image="web:good", rollout={})
        for _ in range(120):
            self.do(("tick", 0))
            if self.converged():
                return
        raise AssertionError(
            f"no convergence: {self.view().message if WEB in self.cluster.workloads else ''}"
        )

    def converged(self) -> bool:
        """Exactly what is wanted runs, and nothing else is left anywhere."""
        record = self.cluster.workloads.get(WEB)
        left = sum(len(machine.containers) for machine in self.machines.values())
        if record is None or record.deleted_at is not None:
            return record is None and not left and not self.cluster.replicas
        view = self.view()
        rollout = view.status.rollout if view.status else None
        done = rollout is not None and rollout.phase is RolloutPhase.COMPLETED
        wanted = record.spec.replicas
        return done and (view.available, view.current, view.updated, left) == (wanted,) * 4

    def view(self) -> WorkloadView:
        """The workload's status now."""
        return view_workload(self.cluster, WEB, self.now)

    def run(self, ticks: int) -> None:
        """Let time pass, a second at a time."""
        for _ in range(ticks):
            self.do(("tick", 0))

    # -- the nodes

    def _machine(self, number: int) -> Machine:
        return self.machines[sorted(self.machines)[number % len(self.machines)]]

    def _some_container(self, number: int) -> list[Container]:
        found = [c for m in self.machines.values() for _, c in sorted(m.containers.items()) if not c.failed]
        return [found[number % len(found)]] if found else []

    def _connect(self, machine: Machine) -> None:
        machine.connected = True
        if machine.id not in self.cluster.nodes:
            record = node_record(machine.id[:-3])
            self.cluster.nodes[machine.id] = record.replaced(joined_at=self.now, changed_at=self.now)
        self._report_facts(machine)
        self._advance(machine)

    def _report_facts(self, machine: Machine) -> None:
        record = self.cluster.nodes[machine.id]
        facts = record.facts.replaced(not_ready=machine.not_ready)
        self.cluster.nodes[machine.id] = record.replaced(facts=facts)

    def _advance(self, machine: Machine) -> None:
        """Let the node do what it knows of; cut off, it only goes on with what it has."""
        wanted = {r.id: r for r in self.cluster.replicas_on(machine.id)} if machine.connected else None
        for replica_id, container in list(machine.containers.items()):
            told_to_stop = wanted is not None and (replica_id not in wanted or not wanted[replica_id].run)
            if told_to_stop and container.gone_at is None:
                container.gone_at = self.now + SECOND * self.random.randrange(3)
            if container.gone_at is not None and container.gone_at <= self.now:
                del machine.containers[replica_id]
        if wanted is None:
            return
        for replica_id, record in wanted.items():
            if record.run and replica_id not in machine.containers and not machine.not_ready:
                revision = self.cluster.revision_of(record)
                assert revision is not None
                starts = self.now + SECOND * self.random.randrange(3)
                ready = starts + SECOND * self.random.randrange(3)
                machine.containers[replica_id] = Container(
                    starts, ready, revision.spec.image.startswith("bad")
                )
        self._report(machine)

    def _report_all(self) -> None:
        for machine in self.machines.values():
            if machine.connected and machine.id in self.cluster.nodes:
                self._report(machine)

    def _report(self, machine: Machine) -> None:
        """What the link does with a node's report: observations, and records of what is gone."""
        for record in list(self.cluster.replicas_on(machine.id)):
            container = machine.containers.get(record.id)
            if container is not None:
                self.cluster.put_observation(
                    self._observation(record.workload_id, record.id, machine, container)
                )
            elif not record.run:
                self.cluster.drop_observation(record.id)
                self.cluster.drop_replica(record.id)

    def _observation(self, workload_id: str, replica_id: str, machine: Machine, c: Container) -> Observation:
        old = self.cluster.observations.get(replica_id)
        phase, ready, message, ended = ReplicaPhase.RUNNING, False, "", None
        if c.failed:
            phase, message = ReplicaPhase.FAILED, "exit code 1, no retries left"
            ended = ExitStatus(code=1, finished_at=self.now)
        elif c.gone_at is not None:
            phase = ReplicaPhase.STOPPING
        elif self.now < c.starts_at:
            phase, message = ReplicaPhase.STARTING, "preparing image and network"
        elif c.bad:
            phase, message = ReplicaPhase.BACKING_OFF, "image not found: bad"
        elif c.broken_until is not None and self.now < c.broken_until:
            phase = ReplicaPhase.BACKING_OFF
        else:
            ready = self.now >= c.ready_at
        since = old.ready_since if old and old.ready and ready else self.now
        if c.restarts and ended is None:
            ended = ExitStatus(code=1, reason="Error", finished_at=c.starts_at)
        digest = "" if c.bad or phase is ReplicaPhase.STARTING else "sha256:" + "ab" * 32
        return Observation(
            replica_id=replica_id,
            workload_id=workload_id,
            node_id=machine.id,
            phase=phase,
            ready=ready,
            restarts=c.restarts,
            last_exit=ended,
            image_digest=digest,
            started_at=c.starts_at,
            ready_since=since if ready else None,
            message=message,
            version=(old.version if old else 0) + 1,
        )
