"""``ListExecs`` and ``KillExec`` on one node: which programs are meant, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence

from cloudless import api
from cloudless.agent.execs.find import name_of
from cloudless.agent.execs.limits import (
    KILL_GRACE_S,
    MAX_KILL_GRACE_S,
    MAX_LISTED,
    SHOWN_COMMAND_BYTES,
    SHOWN_USER_CHARS,
)
from cloudless.agent.execs.messages import MAX_SIGNAL
from cloudless.agent.execs.registry import ExecRegistry
from cloudless.agent.lookup import find
from cloudless.agent.node import Node
from cloudless.agent.output import split_id
from cloudless.agent.runtime.execport import ExecFact
from cloudless.domain.errors import Invalid


class ExecListing:
    """Answers for the programs of one node."""

    def __init__(self, node: Node, registry: ExecRegistry, *, node_name: str) -> None:
        self._node = node
        self._registry = registry
        self._node_name = node_name

    async def list_execs(self, request: api.ListExecsRequest) -> api.ListExecsResponse:
        """All that run here, or those of one replica or container.

        Raises ``Invalid``, ``NotFound``, and ``Unavailable`` while that is not known.
        """
        await self._registry.complete()
        found = self._registry.within(await self._node.found(lambda: self._containers(request)))
        return api.ListExecsResponse(
            execs=[self._described(one.fact) for one in found[:MAX_LISTED]],
            truncated=len(found) > MAX_LISTED,
        )

    async def kill_exec(self, request: api.KillExecRequest) -> api.KillExecResponse:
        """End one, or signal it.

        Raises ``Invalid``, ``NotFound``, ``DeadlineExceeded``, ``RuntimeAway``, and ``Unavailable`` while
        it is not known what runs.
        """
        grace_s = KILL_GRACE_S
        if request.grace_period is not None:
            grace_s = request.grace_period.total_seconds()
        if not 0 <= request.signal <= MAX_SIGNAL:
            raise Invalid.field("signal", f"must be from 1 to {MAX_SIGNAL}, or 0 to end it")
        if not 0 <= grace_s <= MAX_KILL_GRACE_S:
            raise Invalid.field("grace_period", f"must be from 0 to {MAX_KILL_GRACE_S:g} seconds")
        if request.signal and request.grace_period is not None:
            raise Invalid.field("grace_period", "is for ending it; with a signal nothing else is sent")
        await self._registry.complete()
        containers = await self._node.found(lambda: self._containers(request))
        process = self._registry.find(request.exec_id, containers)
        described = self._described(process.fact)
        if request.signal:
            await process.signal(request.signal)
        else:
            await self._registry.end(process, grace_s)
        return api.KillExecResponse(exec=described)

    def _containers(self, request: api.ListExecsRequest | api.KillExecRequest) -> frozenset[str]:
        """Ids of the containers that are meant."""
        for field in ("namespace", "name"):
            if getattr(request, field):
                raise Invalid.field(
                    field, "a node knows replicas and containers, not workloads: ask the coordinator"
                )
        replicas = self._node.replicas
        containers = {one.container_id for one in replicas.values() if one.container_id}
        if not request.container_id and not request.replica:
            return frozenset(containers)
        chosen = find(
            container_id=request.container_id,
            replica=request.replica,
            containers=containers,
            replicas=replicas,
        )
        return frozenset(one for one in containers if split_id(one)[0] == chosen.replica_id)

    def _described(self, fact: ExecFact) -> api.Exec:
        replica_id = split_id(fact.container_id)[0]
        replica = self._node.replicas.get(replica_id)
        assignment = replica.orders.assignment if replica is not None else None
        command, cut = shortened(fact.argv)
        return api.Exec(
            exec_id=fact.exec_id,
            namespace=assignment.namespace if assignment is not None else "",
            replica=name_of(replica) if replica is not None else replica_id,
            replica_id=replica_id,
            container_id=fact.container_id,
            node=self._node_name,
            command=command,
            command_truncated=cut,
            user=fact.user[:SHOWN_USER_CHARS],
            tty=fact.tty,
            detached=fact.detached,
            started_at=fact.started_at,
            pid=fact.pid,
        )


def shortened(argv: Sequence[str], limit_bytes: int = SHOWN_COMMAND_BYTES) -> tuple[list[str], bool]:
    """As much of a command as fits, word by word (each costs a byte more), and whether that is not all.

    >>> shortened(["sh", "-c", "sleep 5"], 10), shortened(["sh", "-c", "sleep 5"])
    ((['sh', '-c', 'sle'], True), (['sh', '-c', 'sleep 5'], False))
    """
    shown: list[str] = []
    left = limit_bytes
    for word in argv:
        data = word.encode()
        if len(data) + 1 > left:
            part = data[: max(left - 1, 0)].decode(errors="ignore")
            return [*shown, part] if part else shown, True
        shown.append(word)
        left -= len(data) + 1
    return shown, False
