"""The node: what was told and what is there, brought together; owner of all replicas.

Messages of the coordinator go into the journal and then to the replicas; events of the
runtime go to whoever waits for them. Nothing is polled: the runtime's word that it is
back leads to a list, everything else is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cloudless.agent.ends import Availability, Ends
from cloudless.agent.images import full_name
from cloudless.agent.journal import Journal, Progress
from cloudless.agent.limits import KNOWN_S, RETRY_BASE_S, RETRY_CAP_S
from cloudless.agent.replica.life import Replica
from cloudless.agent.replica.orders import Orders
from cloudless.agent.replica.seen import Seen
from cloudless.agent.replica.tools import Tools
from cloudless.agent.reports import Reports
from cloudless.agent.runtime.errors import RuntimeAway
from cloudless.agent.runtime.port import (
    Away,
    Back,
    Exited,
    OutOfMemory,
    Runtime,
    RuntimeEvent,
)
from cloudless.agent.traffic.switchboard import Switchboard
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, NotFound, PreconditionFailed, Unavailable
from cloudless.domain.event import Event, Severity
from cloudless.domain.replica import Assignment, Observation
from cloudless.domain.rollout import TrafficShare
from cloudless.planning.node import ContainerFact, NodePlan, plan_node

log = logging.getLogger(__name__)

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Desired:
    """A message of the coordinator, as ``api.SynchronizeRequest`` says it."""

    epoch: int
    whole: bool = False
    assignments: tuple[Assignment, ...] = ()
    removed: tuple[str, ...] = ()
    #: Workload id -> who gets new connections; empty: every ready replica alike.
    traffic: Mapping[str, tuple[TrafficShare, ...]] = field(default_factory=dict)


class StaleEpoch(PreconditionFailed):
    """A leader of the past speaks: nobody obeys it."""

    code = "CL-4123"


class Node:
    """``tidy`` removes what belongs to no replica in ``keep`` (network, files); see ``main``."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        new_id: Callable[[], str],
        runtime: Runtime,
        journal: Journal,
        reports: Reports,
        supervisor: Supervisor,
        ends: Ends,
        available: Availability,
        switchboard: Switchboard,
        tidy: Callable[[frozenset[str]], object],
        first_version: int,
    ) -> None:
        self._name = name
        self._clock = clock
        self._new_id = new_id
        self._runtime = runtime
        self._journal = journal
        self._reports = reports
        self._supervisor = supervisor
        self._ends = ends
        self._available = available
        self._switchboard = switchboard
        self._tidy = tidy
        self._version = first_version
        self._tools: Tools | None = None
        self._replicas: dict[str, Replica] = {}
        #: Ended for good and told so, though still assigned: not to be ended again.
        self._over: set[str] = set()
        self._lives = 0
        self._settling = asyncio.Lock()
        self._again = asyncio.Event()
        self._must_list = True
        self._told_whole = False
        self._tidied = False
        self._settled = False
        self._watchers: dict[str, set[asyncio.Future[None]]] = {}
        if journal.damage:
            self.report(Severity.WARNING, "JournalDamaged", f"{journal.damage}; waits for the coordinator")

    @property
    def replicas(self) -> dict[str, Replica]:
        """Replicas that live or end here now, by id."""
        return self._replicas

    @property
    def assignments(self) -> dict[str, Assignment]:
        """What this node was told."""
        return self._journal.assignments

    def change_of(self, replica_id: str) -> asyncio.Future[None]:
        """Done when the replica says something new, or is gone; cancel it when not needed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watching = self._watchers.setdefault(replica_id, set())
        watching.add(future)
        future.add_done_callback(watching.discard)
        return future

    async def found(self, look: Callable[[], _Found]) -> _Found:
        """What ``look`` finds; before this node says that there is no such thing, it knows what it holds.

        An agent that has just started meets its containers one by one: until it has met all of
        them, a ``NotFound`` or ``PreconditionFailed`` of ``look`` proves nothing. Raises what
        ``look`` raises, and ``Unavailable`` when the runtime takes long to tell.
        """
        try:
            return look()
        except (NotFound, PreconditionFailed):
            if self._reports.whole_known.is_set():
                raise
        try:
            async with asyncio.timeout(KNOWN_S):
                await self._reports.whole_known.wait()
        except TimeoutError:
            why = self._available.why or "it has just started"
            raise Unavailable(f"this node does not know yet what it runs: {why}", hint="try again") from None
        return look()

    def images_in_use(self) -> frozenset[str]:
        """Digests and full names of images that containers here run from, or replicas need."""
        used: set[str] = set()
        for replica in self._replicas.values():
            used.add(replica.seen.progress.image_digest)
        for assignment in self._journal.assignments.values():
            used |= {assignment.image_digest, full_name(assignment.spec.image)}
        return frozenset(used - {""})

    async def run(self, tools: Tools) -> None:
        """Follow the runtime's events for ever."""
        self._tools = tools
        self._supervisor.start("node again", self._settle_again())
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            async with self._runtime.events() as events:
                async for event in events:
                    await self._take(event)
            await self._clock.sleep(backoff.next())

    async def apply(self, desired: Desired) -> None:
        """Obey a message: written down first, then acted on. Raises ``StaleEpoch``."""
        journal = self._journal
        if desired.epoch < journal.epoch:
            raise StaleEpoch(
                f"epoch {desired.epoch} is over: this node has heard of {journal.epoch}",
                hint="after the store was restored from a backup: stop the agent, remove its journal,"
                " start it again; what runs is adopted",
            )
        before = set(journal.assignments)
        journal.tell(
            epoch=desired.epoch,
            whole=desired.whole,
            assignments=desired.assignments,
            removed=desired.removed,
            traffic=desired.traffic,
        )
        # Before any replica hears of this message: what it lets in is what the message says.
        self._switchboard.share(journal.traffic)
        for assignment in desired.assignments:
            living = self._replicas.get(assignment.replica_id)
            if living is not None:
                living.orders.update(assignment)
        for replica_id in (before | set(desired.removed)) - journal.assignments.keys():
            living = self._replicas.get(replica_id)
            if living is not None:
                living.orders.remove()
        self._over.intersection_update(() if desired.whole else journal.assignments)
        if desired.whole:
            self._must_list = self._must_list or not self._told_whole
            self._told_whole = True
            for replica_id, living in self._replicas.items():
                if replica_id not in journal.assignments:
                    living.orders.remove()
        await self._settle()
        await journal.sync()

    def publish(self, observation: Observation) -> None:
        """Pass on what a replica says of itself."""
        self._version += 1
        self._reports.observe(observation.replaced(node_id=self._reports.facts.id, version=self._version))
        self._wake(observation.replica_id)
        self._judge_whole()

    def report(
        self, severity: Severity, reason: str, message: str, assignment: Assignment | None = None
    ) -> None:
        """Make an event, of a replica or of the node itself."""
        event = Event(
            id=self._new_id(),
            at=self._clock.now(),
            severity=severity,
            reason=reason,
            message=message,
            kind="node" if assignment is None else "replica",
            namespace="" if assignment is None else assignment.namespace,
            name=self._name if assignment is None else assignment.name,
            replica_id="" if assignment is None else assignment.replica_id,
            node=self._name,
        )
        self._reports.tell(event)

    def forget(self, replica_id: str) -> None:
        """The coordinator knows that a replica is gone."""
        if replica_id not in self._journal.assignments and replica_id not in self._replicas:
            self._journal.forget(replica_id)

    async def _take(self, event: RuntimeEvent) -> None:
        match event:
            case Exited():
                self._ends.ended(event.container_id, event.exit_code, event.at)
            case OutOfMemory():
                self._ends.out_of_memory(event.container_id)
            case Away():
                if not self._available.why:
                    log.warning("the container runtime is away", extra={"why": event.why})
                self._available.away(event.why)
                self._must_list = True
            case Back():
                self._must_list = True
                await self._settle()

    async def _settle_again(self) -> None:
        """A list that failed is asked for again: no event may come to remind us."""
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            await self._again.wait()
            await self._clock.sleep(backoff.next())
            self._again.clear()
            await self._settle()
            if not self._again.is_set():
                backoff.reset()

    async def _settle(self) -> None:
        """Start, adopt and end what the journal asks for; does nothing while the runtime is away."""
        async with self._settling:
            if self._tools is None:
                return
            try:
                facts = await self._list() if self._must_list else ()
            except CloudlessError as error:
                if isinstance(error, RuntimeAway):
                    self._available.away(error.message)
                log.warning("cannot list containers", extra={"why": error.message})
                self._again.set()
                return
            journal = self._journal
            plan = plan_node(
                self._unattended({fact.replica_id for fact in facts}),
                [fact for fact in facts if fact.replica_id not in self._replicas],
                doomed=journal.doomed.keys() - self._replicas.keys() - self._reports.removed.keys(),
                whole=self._told_whole,
            )
            if self._told_whole and not self._tidied:
                await self._tidy_up(plan)
            self._carry_out(plan)
            self._settled = not journal.damage or self._told_whole
            self._judge_whole()

    def _unattended(self, found: set[str]) -> dict[str, Assignment]:
        """Assignments that no replica here looks after, and that ask for something."""
        return {
            replica_id: assignment
            for replica_id, assignment in self._journal.assignments.items()
            if replica_id not in self._replicas
            and (assignment.run or replica_id not in self._over or replica_id in found)
        }

    def _judge_whole(self) -> None:
        """The reports are whole once every replica that was found has said where it is."""
        if self._settled and self._replicas.keys() <= self._reports.observations.keys():
            self._reports.know_whole()

    async def _list(self) -> Sequence[ContainerFact]:
        before = self._ends.running
        facts = await self._runtime.list()
        self._available.back()
        self._ends.listed(before, facts, self._clock.now())
        self._must_list = False
        return facts

    async def _tidy_up(self, plan: NodePlan) -> None:
        """Once the coordinator has named everything, what belongs to nothing goes."""
        keep = {*self._journal.assignments, *self._replicas, *plan.stop}
        result = self._tidy(frozenset(keep))
        if asyncio.iscoroutine(result):
            await result
        self._tidied = True

    def _carry_out(self, plan: NodePlan) -> None:
        extra: dict[str, list[ContainerFact]] = {}
        for container in plan.remove:
            extra.setdefault(container.replica_id, []).append(container)
        for replica_id, found in plan.adopt.items():
            self._begin(replica_id, found, extra.get(replica_id, []))
        for replica_id in plan.start:
            self._begin(replica_id, None, extra.get(replica_id, []))
        for replica_id, containers in plan.stop.items():
            newest = max(containers, key=lambda container: container.attempt, default=None)
            self._begin(replica_id, newest, [one for one in containers if one is not newest])
        if plan.keep:
            self._must_list = True  # they are looked at again when more is known
            ids = sorted(container.id for container in plan.keep)
            log.warning("containers of unknown replicas are kept", extra={"containers": ids})

    def _begin(self, replica_id: str, found: ContainerFact | None, others: list[ContainerFact]) -> None:
        assert self._tools is not None
        if f"replica {replica_id}" in self._supervisor:
            self._again.set()  # its earlier task is just about to end; then it is looked at again
            return
        removed = replica_id not in self._journal.assignments
        assignment = self._journal.assignments.get(replica_id) or self._journal.doomed.get(replica_id)
        progress = self._journal.progress.get(replica_id) or Progress(replica_id=replica_id)
        there = others if found is None else [*others, found]
        progress = progress.replaced(attempt=max([progress.attempt, *(one.attempt for one in there)]))
        workload_id = assignment.workload_id if assignment is not None else ""
        if not workload_id and found is not None:
            workload_id = found.workload_id
        replica = Replica(
            Orders(assignment, removed=removed),
            self._tools,
            Seen(workload_id, progress, self.publish, self._journal.note),
            adopted=found,
            others=frozenset(one.id for one in others),
        )
        # An earlier life of the same replica may be in its last step: it has another number.
        self._lives += 1
        self._supervisor.start(f"replica {replica_id} life {self._lives}", self._live(replica))
        self._replicas[replica_id] = replica

    async def _live(self, replica: Replica) -> None:
        await replica.run()
        del self._replicas[replica.id]
        assignment = self._journal.assignments.get(replica.id)
        if assignment is not None and not assignment.run:
            self._over.add(replica.id)
        self._reports.remove(replica.id)
        self._wake(replica.id)
        self._watchers.pop(replica.id, None)
        if assignment is not None and assignment.run:
            await self._settle()

    def _wake(self, replica_id: str) -> None:
        for future in tuple(self._watchers.get(replica_id, ())):
            if not future.done():
                future.set_result(None)
