"""A coordinator in memory with real gRPC in front: what the tests of SDK and CLI talk to.

It keeps the rules that clients rely on (generations, versions, request ids, paging, masks,
watch from a version) and runs nothing: tests set the status, or let ``auto`` make every
wanted replica ready at once. Also run as a program for a look at the real command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from contextlib import aclosing

from cloudless import api
from cloudless.domain.errors import (
    AlreadyExists,
    CloudlessError,
    Conflict,
    Invalid,
    NotFound,
    OutOfRange,
    Unavailable,
)
from cloudless.domain.selector import selector_of
from cloudless.transport.server import GuardedServer
from cloudless.wire.loglines import chunk_from_entry
from cloudless.wire.spec import spec_from_wire, spec_to_wire

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
Type = api.WatchWorkloadsResponseType


class FakeCoordinator(api.CoordinatorServiceBase):
    """One instance may be served, stopped and served again: its state stays."""

    def __init__(self, *, auto: bool = True, page_limit: int = 1000) -> None:
        self.auto = auto
        self.page_limit = page_limit
        self.version = 100
        self.workloads: dict[tuple[str, str], api.Workload] = {}
        self.nodes: dict[str, api.Node] = {}
        self.events: list[api.Event] = []
        self.history: list[tuple[int, Type, api.Workload]] = []
        self.oldest = 0
        self.changed = asyncio.Event()
        self.answers: dict[str, object] = {}
        self.requests: list[tuple[str, object]] = []
        #: Raised by the named methods, in order, before they do anything.
        self.failures: dict[str, list[CloudlessError]] = {}
        #: What was written, batch by batch, and by whom.
        self.log_batches: list[list[api.LogChunk]] = []
        self.log_sources: dict[str, api.LogSource] = {}
        #: The connection breaks after these batches (counted from 1), once each.
        self.log_breaks: list[int] = []
        #: How a stream that is not followed ends.
        #: Workloads that are gone, and whose logs are kept.
        self.logs_kept: set[str] = set()
        #: Whether it is said that what comes is new.
        self.log_catches_up = False
        self.log_end: CloudlessError | None = None
        #: (workload, revision) -> what is answered about its rollout.
        self.rollouts: dict[tuple[str, int], api.GetRolloutResponse] = {}
        self.revisions: dict[str, list[api.Revision]] = {}
        self.plan: list[api.PlannedStep] = []
        self.exec_answer = api.ExecCommandResponse(stdout=b"hello\n")
        self.execs = api.ListExecsResponse()
        #: What a program in a replica writes, its exit included; empty: it echoes its input.
        self.program: list[api.ExecResponse] = []
        self.typed: list[api.ExecRequest] = []
        #: Streams that never answer.
        self.silent: set[str] = set()
        self.address = ""
        #: Bytes that came over forwarded connections.
        self.forwarded = 0

    # Steering by tests.

    def put(self, workload: api.Workload, kind: Type = Type.MODIFIED) -> None:
        """Store a new state of a workload and tell the watches."""
        self.version += 1
        key = (workload.namespace, workload.name)
        if kind is Type.DELETED:
            self.workloads.pop(key, None)
        else:
            self.workloads[key] = workload
        self.history.append((self.version, kind, copied(workload)))
        self._wake()

    def forget_history(self) -> None:
        """Compact: versions up to now are too old to watch from."""
        self.oldest = self.version
        self.history.clear()

    def set_status(self, name: str, status: api.WorkloadStatus, namespace: str = "default") -> None:
        """Give a workload another status."""
        workload = copied(self.workloads[namespace, name])
        workload.status = status
        self.put(workload)

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _note(self, method: str, request: object) -> None:
        self.requests.append((method, request))
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    async def _answers(self, method: str) -> None:
        """Waits for ever when it is not to answer."""
        if method in self.silent:
            await asyncio.Event().wait()

    def asked(self, method: str) -> list:
        """The requests that a method got."""
        return [request for name, request in self.requests if name == method]

    # The service.

    async def create_workload(self, message):
        self._note("create", message)
        if message.request_id in self.answers:
            return self.answers[message.request_id]
        key = (message.namespace or "default", message.name)
        if key in self.workloads:
            raise AlreadyExists(f"workload {key[0]}/{key[1]} exists already")
        spec = spec_to_wire(spec_from_wire(message.spec))
        workload = api.Workload(
            id=f"id{self.version:04d}{message.name}",
            namespace=key[0],
            name=key[1],
            spec=spec,
            labels=message.labels,
            annotations=message.annotations,
            generation=1,
            resource_version=str(self.version + 1),
            created_at=NOW,
            updated_at=NOW,
        )
        if message.dry_run:
            plan = [
                api.PlannedStep(
                    action="create",
                    replica=f"{key[1]}/0",
                    node="n1",
                    because="bin-pack",
                    score={"total": 1.5},
                )
            ]
            return api.CreateWorkloadResponse(workload=workload, plan=plan)
        self.put(self._observed(workload), Type.ADDED)
        answer = api.CreateWorkloadResponse(workload=copied(workload))
        self.answers[message.request_id] = answer
        return answer

    def _observed(self, workload):
        if self.auto:
            workload = copied(workload)
            workload.status = ready_status(workload)
        return workload

    def _existing(self, namespace, name):
        found = self.workloads.get((namespace or "default", name))
        if found is None:
            matching = [item for item in self.workloads.values() if name and item.id.startswith(name)]
            if len(matching) == 1:
                return matching[0]
            raise NotFound(f"workload {namespace or 'default'}/{name} does not exist")
        return found

    async def update_workload(self, message):
        self._note("update", message)
        before = self._existing(message.namespace, message.name)
        if message.resource_version and message.resource_version != before.resource_version:
            raise Conflict(f"workload {before.name} has changed meanwhile")
        after = copied(before)
        if message.update_mask is not None and message.update_mask.paths:
            for path in message.update_mask.paths:
                head, _, field = path.partition(".")
                if head != "spec" or not hasattr(after.spec, field):
                    raise Invalid.field("update_mask", f"{path} is not a field")
                setattr(after.spec, field, getattr(message.spec, field))
        else:
            after.spec = message.spec
            after.labels = message.labels or after.labels
            after.annotations = message.annotations or after.annotations
        after.spec = spec_to_wire(spec_from_wire(after.spec))
        if after.spec != before.spec:
            after.generation += 1
        if after != before:
            after.resource_version = str(self.version + 1)
            if not message.dry_run:
                self.put(self._observed(after))
        return api.UpdateWorkloadResponse(
            workload=after, plan=self.plan or [api.PlannedStep(action="stop", replica=f"{after.name}/0")]
        )

    async def scale_workload(self, message):
        self._note("scale", message)
        after = copied(self._existing(message.namespace, message.name))
        if message.replicas is None or message.replicas < 0:
            raise Invalid.field("replicas", "must be 0 or more")
        after.spec.replicas = message.replicas
        after.generation += 1
        after.resource_version = str(self.version + 1)
        if not message.dry_run:
            self.put(self._observed(after))
        return api.ScaleWorkloadResponse(workload=after)

    async def delete_workload(self, message):
        self._note("delete", message)
        workload = copied(self._existing(message.namespace, message.name))
        workload.deleted_at = NOW
        workload.resource_version = str(self.version + 1)
        if not message.dry_run:
            self.put(workload)
            if self.auto:
                self.put(workload, Type.DELETED)
        return api.DeleteWorkloadResponse(workload=workload)

    async def get_workload(self, message):
        self._note("get", message)
        return api.GetWorkloadResponse(workload=self._existing(message.namespace, message.name))

    async def list_workloads(self, message):
        self._note("list", message)
        selector = selector_of(message.label_selector)
        found = [
            item
            for key, item in sorted(self.workloads.items())
            if message.namespace in ("", key[0]) and selector.matches(item.labels)
        ]
        start = int(message.page_token or 0)
        end = start + min(message.page_size or 500, self.page_limit)
        token = str(end) if end < len(found) else ""
        return api.ListWorkloadsResponse(
            workloads=found[start:end], next_page_token=token, resource_version=str(self.version)
        )

    async def watch_workloads(self, message):
        self._note("watch", message)
        selector = selector_of(message.label_selector)

        def fits(item):
            named = message.name in ("", item.name)
            return named and message.namespace in ("", item.namespace) and selector.matches(item.labels)

        if message.resource_version:
            version = int(message.resource_version)
            if version < self.oldest:
                raise OutOfRange(f"version {version} is no longer kept")
        else:
            version = self.version
            for item in list(self.workloads.values()):
                if fits(item):
                    yield api.WatchWorkloadsResponse(Type.ADDED, copied(item), str(version))
        while True:
            for at, kind, item in list(self.history):
                if at > version:
                    version = at
                    if fits(item):
                        yield api.WatchWorkloadsResponse(kind, item, str(at))
            await self.changed.wait()

    async def list_replicas(self, message):
        self._note("replicas", message)
        found = [
            replica
            for item in self.workloads.values()
            if message.namespace in ("", item.namespace) and message.name in ("", item.name)
            for replica in (item.status.replicas if item.status else ())
        ]
        return api.ListReplicasResponse(replicas=found)

    async def get_node(self, message):
        if message.name not in self.nodes:
            raise NotFound(f"node {message.name} does not exist")
        return api.GetNodeResponse(node=self.nodes[message.name])

    async def list_nodes(self, message):
        self._note("nodes", message)
        selector = selector_of(message.label_selector)
        return api.ListNodesResponse(nodes=[n for n in self.nodes.values() if selector.matches(n.labels)])

    async def list_events(self, message):
        self._note("events", message)
        found = [event for event in self.events if message.name in ("", event.name)]
        if message.since is not None:
            found = [event for event in found if event.at >= message.since]
        return api.ListEventsResponse(events=found, resource_version=str(len(self.events) + 1))

    async def watch_events(self, message):
        self._note("watch_events", message)
        at = int(message.resource_version or len(self.events) + 1) - 1
        while True:
            for event in self.events[at:]:
                at += 1
                yield api.WatchEventsResponse(event, str(at + 1))
            await self.changed.wait()

    def happen(self, event: api.Event) -> None:
        """Add an event."""
        self.events.append(event)
        self._wake()

    async def rollout(self, message):
        self._note("rollout", message)
        after = copied(self._existing(message.namespace, message.name))
        if message.resource_version and message.resource_version != after.resource_version:
            raise Conflict(f"workload {after.name} has changed meanwhile")
        after.resource_version = str(self.version + 1)
        if message.verb is api.RolloutRequestVerb.UNDO:
            after.generation += 1
        if after.status is not None and after.status.rollout is not None:
            after.status.rollout.pending = True
        if not message.dry_run:
            self.put(after)
            if self.auto:
                self.put(self._steered(copied(after), message.verb))
        return api.RolloutResponse(workload=after, plan=self.plan)

    def _steered(self, workload, verb):
        """What a coordinator makes of a verb, at once."""
        phases = {
            api.RolloutRequestVerb.PAUSE: api.RolloutStatusPhase.PAUSED,
            api.RolloutRequestVerb.ABORT: api.RolloutStatusPhase.ABORTED,
        }
        revision = workload.status.revision
        restarted = verb in (api.RolloutRequestVerb.UNDO, api.RolloutRequestVerb.RESTART)
        workload.status = ready_status(workload)
        workload.status.revision = revision + restarted
        workload.status.rollout.revision = revision + restarted
        workload.status.rollout.target_revision = max(revision - 1, 1)
        workload.status.rollout.phase = phases.get(verb, api.RolloutStatusPhase.COMPLETED)
        return workload

    async def get_rollout(self, message):
        self._note("get_rollout", message)
        workload = self._existing(message.namespace, message.name)
        number = message.revision or workload.status.revision
        if (message.name, number) not in self.rollouts:
            raise NotFound(f"workload {message.namespace}/{message.name} has no revision {number}")
        return self.rollouts[message.name, number]

    async def list_revisions(self, message):
        workload = self._existing(message.namespace, message.name)
        if message.name in self.revisions:
            return api.ListRevisionsResponse(revisions=self.revisions[message.name])
        return api.ListRevisionsResponse(
            revisions=[
                api.Revision(
                    number=number, spec=workload.spec, created_at=NOW, image_digest="sha256:" + "ab" * 32
                )
                for number in range(workload.generation, 0, -1)
            ]
        )

    async def stream_logs(self, message):
        self._note("logs", message)
        await self._answers("logs")
        if message.name and (message.current_only or message.name not in self.logs_kept):
            self._existing(message.namespace, message.name)
        passed = {one.replica_id: int(one.cursor) for one in message.resume.cursors} if message.resume else {}
        told, caught_up = 0, not self.log_catches_up
        yield api.LogBatch(opened=True, chunks=[self._standing(name, passed) for name in self.log_sources])
        while True:
            for number, chunks in enumerate(self.log_batches[told:], told + 1):
                told = number
                left = [
                    self._numbered(one, number) for one in chunks if passed.get(one.replica_id, 0) < number
                ]
                if left:
                    yield api.LogBatch(chunks=left)
                if number in self.log_breaks:
                    self.log_breaks.remove(number)
                    raise UNAVAILABLE
            if not message.follow:
                if self.log_end is not None:
                    raise self.log_end
                return
            if not caught_up:
                caught_up = True
                yield api.LogBatch(caught_up=True)
                continue  # something may have come meanwhile
            await self.changed.wait()

    def _standing(self, replica_id, passed):
        cursor = str(passed.get(replica_id, 0))
        return api.LogChunk(replica_id=replica_id, cursor=cursor, source=self.log_sources[replica_id])

    def _numbered(self, chunk, number):
        cursor = str(number) if chunk.replica_id else ""
        source = self.log_sources.get(chunk.replica_id)
        return api.LogChunk(
            replica_id=chunk.replica_id,
            container_id=chunk.container_id,
            lines=chunk.lines,
            marker=chunk.marker,
            cursor=cursor,
            source=source,
        )

    def log(self, *entries: api.LogEntry) -> None:
        """Write lines (or gaps), all in one batch."""
        chunks = []
        for entry in entries:
            entry.replica_id = entry.replica_id or entry.replica
            name, _, ordinal = entry.replica.rpartition("/")
            self.log_sources.setdefault(
                entry.replica_id,
                api.LogSource(namespace="default", name=name, ordinal=int(ordinal), node="n1", revision=1),
            )
            chunks.append(chunk_from_entry(entry))
        self.log_chunks(*chunks)

    def log_chunks(self, *chunks: api.LogChunk) -> None:
        """Write chunks, all in one batch."""
        self.log_batches.append(list(chunks))
        self._wake()

    async def exec_command(self, message):
        self._note("exec", message)
        self._existing(message.namespace, message.name)
        return self.exec_answer

    async def list_execs(self, message):
        self._note("execs", message)
        await self._answers("execs")
        return self.execs

    async def kill_exec(self, message):
        self._note("kill_exec", message)
        await self._answers("kill_exec")
        for one in self.execs.execs:
            if one.exec_id.startswith(message.exec_id):
                return api.KillExecResponse(exec=one)
        raise NotFound(f"no program {message.exec_id!r} runs in workload default/{message.name}")

    async def exec(self, messages):
        """Plays ``program``: what is sent before input is read, or says what it reads."""
        message = await anext(messages)
        self._note("program", message.start)
        await self._answers("program")
        self._existing(message.start.namespace, message.start.name)
        if message.start.command[0] == "nosuch":
            end = api.ExecExit(exit_code=127, reason="CannotExecute", message="command not found: nosuch")
            yield api.ExecResponse(exit=end)
            return
        replica = f"{message.start.name}/{message.start.replica or 0}"
        yield api.ExecResponse(started=api.ExecStarted(exec_id="x-1", replica=replica, node="n1"))
        if message.start.detach:
            return
        async with aclosing(self._play(messages)) as responses:
            async for response in responses:
                yield response

    async def attach(self, messages):
        """The same for a replica's own program."""
        message = await anext(messages)
        self._note("attach", message.attach)
        await self._answers("attach")
        self._existing(message.attach.namespace, message.attach.name)
        yield api.ExecResponse(started=api.ExecStarted(replica=f"{message.attach.name}/0", node="n1"))
        async with aclosing(self._play(messages)) as responses:
            async for response in responses:
                yield response

    async def _play(self, messages):
        for response in self.program:
            yield response
        if self.program:
            return
        async for message in messages:
            self.typed.append(message)
            if message.stdin is not None:
                yield api.ExecResponse(stdout=message.stdin)
            if message.stdin_close is not None:
                yield api.ExecResponse(exit=api.ExecExit(exit_code=6))
                return

    async def forward(self, messages):
        """Answers each piece with the same piece, and the end with the end."""
        message = await anext(messages)
        self._note("forward", message)
        await self._answers("forward")
        self._existing(message.target.namespace, message.target.name)
        yield api.ForwardResponse(opened=api.ForwardOpened(replica=f"{message.target.name}/0"))
        async for message in messages:
            self.forwarded += len(message.data)
            if message.data == b"fail":
                raise Unavailable("replica web/0 cut the connection: connection reset by peer")
            yield api.ForwardResponse(data=message.data, end=message.end)

    async def get_info(self, message):
        self._note("info", message)
        return api.GetInfoResponse(version="0.1.0", store="memory", leader=True, nodes=1, nodes_ready=1)

    # Serving.

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        """Listen; gives the address. A second time on the same port continues the first."""
        async with GuardedServer([self]) as server:
            bound = await server.listen("127.0.0.1", port)
            self.address = f"127.0.0.1:{bound}"
            yield self.address


def copied(workload: api.Workload) -> api.Workload:
    """An independent copy."""
    return api.Workload.parse(bytes(workload))


def replica_of(workload: api.Workload, ordinal: int, **fields) -> api.ReplicaStatus:
    """A ready replica, unless ``fields`` say otherwise."""
    given = {
        "id": f"{workload.name}{ordinal}aaaaaaaa",
        "ordinal": ordinal,
        "node": "n1",
        "phase": api.ReplicaPhase.RUNNING,
        "ready": True,
        "available": True,
        "revision": workload.generation,
        "created_at": NOW,
        "workload": workload.name,
        "namespace": workload.namespace,
        "address": f"10.0.0.{ordinal + 2}",
    }
    return api.ReplicaStatus(**given | fields)


def ready_status(workload: api.Workload) -> api.WorkloadStatus:
    """All that is wanted is there."""
    wanted = workload.spec.replicas if workload.spec.replicas is not None else 1
    return api.WorkloadStatus(
        observed_generation=workload.generation,
        desired_replicas=wanted,
        ready_replicas=wanted,
        available_replicas=wanted,
        updated_replicas=wanted,
        current_replicas=wanted,
        revision=workload.generation,
        conditions=[api.Condition("Available", "True", "MinimumReplicasAvailable", changed_at=NOW)],
        rollout=api.RolloutStatus(
            api.RolloutStatusPhase.COMPLETED,
            workload.generation,
            target_revision=workload.generation,
            new_replicas=wanted,
            new_available=wanted,
        ),
        replicas=[replica_of(workload, ordinal) for ordinal in range(wanted)],
        message=f"{wanted} of {wanted} replicas are available",
    )


def node(name: str = "n1", **fields) -> api.Node:
    """A ready node."""
    given = {
        "id": f"node-{name}",
        "name": name,
        "phase": api.NodePhase.READY,
        "capacity": api.ResourceList(cpu_millicores=2000, memory_bytes=4 * 2**30),
        "reserved": api.ResourceList(cpu_millicores=250, memory_bytes=64 * 2**20),
        "replicas": 3,
        "version": "0.1.0",
        "joined_at": NOW,
        "capabilities": api.NodeCapabilities(containerd_version="1.6.20", kernel="6.1"),
    }
    return api.Node(**given | fields)


UNAVAILABLE = Unavailable("no leader", retry_after_s=0.01)


async def _main(port: int) -> None:
    fake = FakeCoordinator()
    fake.nodes["n1"] = node()
    async with fake.serving(port) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
