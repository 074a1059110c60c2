"""``Replica``: start, watch, start again, end. One task for each replica of this node.

Cancelling the task leaves the container as it is: that is how an agent stops. Only
orders to stop end containers.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cloudless.agent.ends import Ended
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget
from cloudless.agent.replica import process
from cloudless.agent.replica.drain import drain, hurried, leave_traffic
from cloudless.agent.replica.health import Health
from cloudless.agent.replica.orders import Orders
from cloudless.agent.replica.seen import Seen
from cloudless.agent.replica.start import (
    Surroundings,
    attach,
    check_permitted,
    container_id_of,
    start_container,
    surround,
)
from cloudless.agent.replica.stop import clear, terminate
from cloudless.agent.replica.tools import Tools
from cloudless.agent.replica.words import LastWords
from cloudless.agent.runtime.errors import (
    CannotExecute,
    ImageNotFound,
    NotEnforced,
    RuntimeAway,
    reason_of,
)
from cloudless.agent.runtime.execport import ExecRequest
from cloudless.agent.runtime.port import LocalImage
from cloudless.domain.errors import CloudlessError, Invalid
from cloudless.domain.event import Severity
from cloudless.domain.probes import Probe
from cloudless.domain.replica import UNPROBED, Assignment, ReplicaPhase
from cloudless.planning.node import ContainerFact, ContainerState
from cloudless.planning.restart import RestartDecision, decide, retry_start

log = logging.getLogger(__name__)
P = ReplicaPhase


class Replica:
    """``adopted`` is a container that was found and goes on; ``others`` are deleted at once."""

    def __init__(
        self,
        orders: Orders,
        tools: Tools,
        seen: Seen,
        *,
        adopted: ContainerFact | None = None,
        others: frozenset[str] = frozenset(),
    ) -> None:
        self.id = seen.progress.replica_id
        self.orders = orders
        self.seen = seen
        self._tools = tools
        self._adopted = adopted
        self._containers = set(others) | ({adopted.id} if adopted is not None else set())
        self._current = adopted.id if adopted is not None else ""
        self._image: LocalImage | None = None
        self._around: Surroundings | None = None
        self._target = ProbeTarget("127.0.0.1", None)
        self._warned = ("", "")
        self._words = LastWords(tools, seen)

    @property
    def container_id(self) -> str:
        """The newest container; empty when there is none yet."""
        return self._current

    @property
    def target(self) -> ProbeTarget:
        """Where it can be reached; the host's own network while nothing else is known."""
        return self._target

    def runs(self, container_id: str) -> bool:
        """Whether this container may still write to its log."""
        return container_id == self._current and container_id in self._containers

    async def run(self) -> None:
        """Live until ordered to stop, then end; returns when nothing is left on this node."""
        assignment = self.orders.assignment
        self._discard(*(self._containers - {self._current}))
        if assignment is not None and not self.orders.stop:
            await self._live(assignment)
        await self._end()

    async def _live(self, assignment: Assignment) -> None:
        """Keep a container running as the policy says, until ordered to stop."""
        progress = self.seen.progress
        if progress.ended is not None:
            self.seen.say(progress.ended, progress.message)
        container, self._adopted = self._adopted, None
        while self.seen.progress.ended is None and not self.orders.stop:
            if container is not None:
                await self._adopt(assignment, container)
                ended = await self._watch(assignment, self._current)
            else:
                ended = await self._start(assignment)
            container = None
            if ended is not None:
                await self._after_end(assignment, *ended)
        if not self.orders.stop and self._current in self._containers:
            self._discard(self._current)
        await self.orders.wait_for_stop()

    async def _adopt(self, assignment: Assignment, container: ContainerFact) -> None:
        """Take over a container that an earlier life of the agent started."""
        tools = self._tools
        self._current = container.id
        progress = self.seen.progress
        restarts = max(progress.restarts, container.restarts)
        self.seen.note(
            attempt=max(progress.attempt, container.attempt),
            restarts=restarts,
            image_digest=container.image_digest or progress.image_digest,
        )
        future = tools.ends.expect(container.id)
        if container.state is ContainerState.RUNNING:
            tools.ends.started(container.id)
            address = ""
            try:
                attachment = await attach(assignment, tools)
                address = attachment.address
                self._target = ProbeTarget(address, attachment.netns_path)
                tools.switchboard.resume(assignment)
            except CloudlessError as error:
                log.warning(
                    "an adopted replica has no network", extra={"replica": self.id, "why": str(error)}
                )
            self._say_running(assignment, container.started_at, address)
        elif not future.done():
            tools.ends.ended(container.id, container.exit_code, container.finished_at or tools.clock.now())
            self.seen.say(P.STARTING, "ended while the agent was away")

    async def _start(self, assignment: Assignment) -> tuple[Ended | None, str] | None:
        """Start a container and watch it; None when it has to be tried again or stopped."""
        attempt = self.seen.progress.attempt + 1
        try:
            check_permitted(assignment, self._tools)
            self.seen.say(P.STARTING, "preparing image and network")
            around: Surroundings | None = None
            async with self.orders.until_stop():
                around = await self._surround(assignment)
            if around is None or self.orders.stop:
                return None
            await self._tools.switchboard.open(assignment)
            await self._start_attempt(assignment, around, attempt)
        except NotEnforced as error:
            self._fail_for_good(assignment, error)
            return None
        except CannotExecute as error:
            now = self._tools.clock.now()
            return Ended(error.exit_code, now), f"CannotExecute: {error.message}"
        except RuntimeAway as error:
            self.seen.say(P.STARTING, f"waits for the container runtime: {error.message}")
            async with self.orders.until_stop():
                await self._tools.available.wait()
            await self.orders.pause(1.0)
            return None
        except CloudlessError as error:
            await self._retry_later(assignment, error)
            return None
        return await self._watch(assignment, self._current)

    async def _surround(self, assignment: Assignment) -> Surroundings:
        digest = assignment.image_digest or self.seen.progress.image_digest
        image = self._image
        if self._around is not None and image is not None:
            return self._around
        around = await surround(
            assignment,
            self._tools,
            image,
            digest,
            lambda message: self.seen.say(P.STARTING, message),
        )
        self._around, self._image = around, around.image
        self._target = ProbeTarget(around.attachment.address, around.attachment.netns_path)
        return around

    async def _start_attempt(self, assignment: Assignment, around: Surroundings, attempt: int) -> None:
        tools, old = self._tools, self._current
        container_id = container_id_of(self.id, attempt)
        self.seen.note(attempt=attempt, image_digest=around.image.digest)
        self._current = container_id
        self._containers.add(container_id)
        tools.ends.expect(container_id)
        try:
            await start_container(
                assignment, tools, around, attempt=attempt, restarts=self.seen.progress.restarts
            )
        except CloudlessError as error:
            self._discard(old, container_id)
            if isinstance(error, ImageNotFound | Invalid):
                self._image = self._around = None
            raise
        tools.ends.started(container_id)
        self._say_running(assignment, tools.clock.now(), around.attachment.address)
        self._report(assignment, Severity.NORMAL, "Started", f"container {container_id} runs")
        self._discard(old)  # only now: deleting it would have delayed the new one

    def _say_running(self, assignment: Assignment, started_at: object, address: str) -> None:
        spec, now = assignment.spec, self._tools.clock.now()
        ready = spec.readiness_probe is None and spec.startup_probe is None
        self.seen.say(
            P.RUNNING,
            "" if ready else UNPROBED,
            ready=ready,
            ready_since=now if ready else None,
            started_at=started_at,
            address=address,
            container_id=self._current,
            restarts=self.seen.progress.restarts,
            image_digest=self.seen.progress.image_digest,
        )
        if ready:
            self._enter_traffic(assignment)

    def _enter_traffic(self, assignment: Assignment) -> None:
        self._tools.switchboard.enter(assignment, self._target.address, self._target.netns_path)

    async def _watch(self, assignment: Assignment, container_id: str) -> tuple[Ended | None, str] | None:
        """Wait for the container's end, probing it; None when ordered to stop first."""
        tools = self._tools
        future = tools.ends.expect(container_id)
        health = Health(
            assignment.spec, tools.clock, self._attempt_probe, lambda: self._probed(assignment, health)
        )
        because = ""
        async with asyncio.TaskGroup() as group:
            checking: set[asyncio.Future[str]] = set()
            if health.state and not future.done():
                checking.add(group.create_task(health.run()))
            telling = group.create_task(self._words.run(container_id, probes=not health.state.ready))
            while not (future.done() or self.orders.stop or any(task.done() for task in checking)):
                awaited: set[asyncio.Future[Any]] = {future, self.orders.change, *checking}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            tools.switchboard.leave(self.id)
            telling.cancel()
            for task in checking:
                because = task.result() if task.done() else because
                task.cancel()
        if future.done():
            return future.result(), ""
        if self.orders.stop:
            return None
        self._report(assignment, Severity.WARNING, "Unhealthy", because)
        signal_number = process.stop_signal(assignment.spec, self._stop_signal)
        self.seen.say(P.RUNNING, f"restarts: {because}", ready=False, ready_since=None)
        await leave_traffic(tools, self.id)
        ended = await terminate(tools, self.orders, container_id, signal_number)
        return None if self.orders.stop else (ended, f"Unhealthy: {because}")

    async def _after_end(self, assignment: Assignment, ended: Ended | None, why: str) -> None:
        """Tell of an end, and do what the restart policy says: start again, later, or never."""
        tools, spec = self._tools, assignment.spec
        ended = ended or Ended(None, tools.clock.now())
        reason, _, detail = why.partition(": ")
        succeeded = ended.exit_code == 0 and reason == ""
        decision = decide(
            spec.restart_policy,
            self.seen.history,
            succeeded=succeeded,
            started_at=self.seen.observation.started_at if reason != "CannotExecute" else None,
            now=ended.at,
        )
        tail, began = "", tools.clock.monotonic()
        if reason != "CannotExecute":
            at_once = succeeded or (decision.restart and decision.delay_s <= 0)
            tail = await self._words.of_ended(self._current, hurry=at_once)
        waited_s = tools.clock.monotonic() - began
        status = process.exit_status(
            ended.exit_code, ended.at, oom_killed=ended.oom_killed, reason=reason, log_tail=tail
        )
        tools.logs.exited(self._current, status)
        told = detail or process.describe_exit(status)
        word = "OOMKilled" if ended.oom_killed else reason or ("Completed" if succeeded else "Exited")
        severity = Severity.NORMAL if succeeded else Severity.WARNING
        self._report(assignment, severity, word, told if detail else f"container {told}", decision.because)
        if not decision.restart:
            phase = P.SUCCEEDED if succeeded else P.FAILED
            message = f"{told}; {decision.because}"
            self.seen.note(ended=phase, message=message, last_exit=status)
            self.seen.say(phase, message, last_exit=status)
            return
        self.seen.note_history(decision.history, last_exit=status)
        await self._back_off(decision, f"{told}; {decision.because}", waited_s, last_exit=status)

    async def _back_off(
        self, decision: RestartDecision, message: str, waited_s: float = 0.0, **changes: object
    ) -> None:
        changes |= {"restarts": decision.history.restarts}
        if decision.delay_s <= 0:
            self.seen.say(P.STARTING, message, **changes)
            return
        self.seen.say(P.BACKING_OFF, message, **changes)
        await self.orders.pause(decision.delay_s - waited_s)

    async def _retry_later(self, assignment: Assignment, error: CloudlessError) -> None:
        decision = retry_start(assignment.spec.restart_policy, self.seen.history)
        reason = reason_of(error)
        self.seen.note_history(decision.history)
        self._report(
            assignment, Severity.WARNING, reason, error.message, "it is tried again, later each time"
        )
        await self._back_off(decision, f"{reason}: {error.message}; {decision.because}")

    def _fail_for_good(self, assignment: Assignment, error: CloudlessError) -> None:
        message = f"{reason_of(error)}: {error.message}"
        self.seen.note(ended=P.FAILED, message=message)
        self.seen.say(P.FAILED, message)
        self._report(assignment, Severity.WARNING, reason_of(error), error.message)

    async def _end(self) -> None:
        """Stop what runs, and remove everything."""
        tools = self._tools
        self.seen.say(P.STOPPING, "stops")
        if self._current in self._containers:
            spec = self.orders.assignment.spec if self.orders.assignment is not None else None
            number = process.stop_signal(spec, self._stop_signal)
            await self._drain()
            ended = await terminate(tools, self.orders, self._current, number)
            if ended is not None:
                status = process.exit_status(ended.exit_code, ended.at, oom_killed=ended.oom_killed)
                tools.logs.exited(self._current, status)
        self._discard(*self._containers)
        await clear(tools, self.id)
        tools.switchboard.close(self.id)

    async def _drain(self) -> None:
        """Nothing new comes to it, and what is under way may end, unless somebody is in a hurry."""
        tools = self._tools
        tools.switchboard.leave(self.id)
        ended = tools.ends.expect(self._current)
        if not hurried(self.orders) and not ended.done():
            await leave_traffic(tools, self.id)
            await drain(tools, self.orders, self.id, ended, lambda told: self.seen.say(P.STOPPING, told))
            self.seen.say(P.STOPPING, "stops")

    async def _attempt_probe(self, probe: Probe) -> ProbeOutcome:
        container_id = self._current

        async def run_command(argv: tuple[str, ...]) -> int:
            request = ExecRequest(argv, timeout_s=probe.timeout.total_seconds(), output_limit_bytes=1024)
            result = await self._tools.runtime.exec(container_id, request)
            if result.timed_out:
                raise TimeoutError
            return result.exit_code

        return await self._tools.run_probe(probe, self._target, run_command)

    def _probed(self, assignment: Assignment, health: Health) -> None:
        old = self.seen.observation
        ready = health.state.ready
        since = (old.ready_since or self._tools.clock.now()) if ready else None
        self.seen.say(P.RUNNING, health.state.message, ready=ready, ready_since=since)
        # Undecided is neither: an adopted replica goes on serving until its probes say otherwise.
        self._words.probed(failing=health.state.failing)
        if ready:
            self._enter_traffic(assignment)
        elif health.state.failing:
            self._tools.switchboard.leave(self.id)

    def _discard(self, *container_ids: str) -> None:
        for container_id in self._containers.intersection(container_ids):
            self._containers.discard(container_id)
            self._tools.sweeper.discard(self.id, container_id)
            self._tools.ends.forget(container_id)

    def _report(
        self, assignment: Assignment, severity: Severity, reason: str, message: str, then: str = ""
    ) -> None:
        """Tell of an event; that another try failed just like the last one is no news."""
        warning = (reason, message) if severity is Severity.WARNING else ("", "")
        if severity is Severity.WARNING and warning == self._warned:
            return
        self._warned = warning
        self._tools.report(severity, reason, f"{message}; {then}" if then else message, assignment)

    @property
    def _stop_signal(self) -> str:
        return self._image.stop_signal if self._image is not None else ""
