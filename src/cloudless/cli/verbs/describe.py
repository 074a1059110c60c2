"""Show one object with all that explains it.

A workload: what is wanted, conditions, rollout, replicas with their last exits and log
lines, why nodes refuse replicas, and what happened. A replica or a node likewise."""

from __future__ import annotations

import argparse
import datetime
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.output.kinds import EVENTS, NODES, REPLICAS, WORKLOADS, Kind
from cloudless.cli.output.words import age, cpu, joined, phase_cell, size
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain.errors import NotFound
from cloudless.sdk.objects import enum_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudless import api
    from cloudless.cli.output.ports import Place
    from cloudless.sdk.client import Client
    from cloudless.sdk.objects import Replica
    from cloudless.sdk.workload import Workload

#: Newest events that are shown.
MAX_EVENTS = 20
#: Last log lines that are shown of a replica that ended.
MAX_LOG_LINES = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("words", nargs="+", metavar="[KIND] NAME", help="workload, replica or node")


async def run(context: Context) -> int:
    """Describe each."""
    from cloudless.cli.naming import kind_and_names, parse_name

    kind, names = kind_and_names(context.arguments.words)
    if not names:
        raise UsageError(f"which {kind.name}?", hint=f"cloudless describe {kind.name} NAME")
    if kind not in (WORKLOADS, REPLICAS, NODES):
        raise UsageError(
            f"{kind.words[0]} cannot be described", hint=f"cloudless get {kind.words[0]} -o yaml"
        )
    page = Page(context)
    async with context.client() as client:
        for index, name in enumerate(names):
            if index:
                page.gap()
            if kind is NODES:
                await _node(page, client, name)
            elif kind is REPLICAS or parse_name(name).replica:
                await _replica(page, client, name)
            else:
                await _workload(page, client, name)
    return exits.OK


class Page:
    """Headed sections of aligned fields."""

    def __init__(self, context: Context) -> None:
        self._out = context.out
        self.now = context.clock.now()

    @property
    def plain(self) -> Terminal:
        """The same without colours: lines are neutralised."""
        return Terminal(self._out.stream, {}, "never")

    def gap(self) -> None:
        """An empty line."""
        self._out.line()

    def head(self, title: str) -> None:
        """A section."""
        self._out.line(self._out.paint(title, "bold"))

    def fields(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Aligned names and values; what is empty is left out."""
        shown = [(name, neutral(value)) for name, value in pairs if value]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self._out.line(f"  {name:<{width}}  {value}")

    def lines(self, lines: Sequence[str], indent: int = 2) -> None:
        """Harmless lines."""
        for text in lines:
            self._out.line(" " * indent + neutral(text, tabs=True))

    def table(self, kind: Kind, items: Sequence[Any]) -> None:
        """A table, indented."""
        from cloudless.cli.output.formats import Format, columns_of
        from cloudless.cli.output.table import lines_of

        columns = columns_of(kind, Format("table"), with_namespace=False)
        rows = [[column.read(item, self.now) for column in columns] for item in items]
        for line in lines_of([column.title for column in columns], rows, self._out):
            self._out.line("  " + line)

    def phase(self, phase: str) -> str:
        """A phase as a word (fields are not coloured: they are neutralised)."""
        return phase_cell(phase).text


async def _workload(page: Page, client: Client, name: str) -> None:
    from cloudless.cli.naming import suggesting
    from cloudless.cli.output.ports import published_lines

    async with suggesting(client, name, or_kind=True):
        workload = await client.get(name)
    message, status = workload.message, workload.status
    published = published_lines(workload.spec, await _places(client, workload))
    page.head(f"Workload {neutral(message.namespace)}/{neutral(message.name)}")
    page.fields(
        [
            ("state", f"{workload.phase}: {status.message}" if status.message else workload.phase),
            ("replicas", _counts(status)),
            ("image", message.spec.image if message.spec is not None else ""),
            *(("published", line) for line in published),
            ("revision", str(status.revision)),
            ("generation", f"{message.generation} (observed {status.observed_generation})"),
            ("version", message.resource_version),
            ("labels", joined(message.labels)),
            ("annotations", joined(message.annotations)),
            ("created", _when(page, message.created_at)),
            ("deleted", _when(page, message.deleted_at) if message.deleted_at else ""),
            ("id", message.id),
        ]
    )
    _rollout(page, status, await _newest(client, message, status.revision))
    if status.conditions:
        page.head("Conditions")
        page.fields(
            [
                (
                    item.type,
                    f"{item.status}  {item.reason}  {item.message}".rstrip()
                    + f"  ({age(item.changed_at, page.now)})",
                )
                for item in status.conditions
            ]
        )
    page.head("Specification")
    page.lines(_specification(workload))
    if status.replicas:
        page.head("Replicas")
        page.table(REPLICAS, sorted(status.replicas, key=lambda replica: (replica.ordinal, replica.revision)))
    for replica in status.replicas:
        _trouble(page, replica)
    await _events(page, client, message.name, message.namespace)


async def _places(client: Client, workload: Workload) -> list[Place]:
    """The nodes where a workload has replicas; none is asked for unless it publishes ports."""
    from cloudless.cli.output.ports import Place

    names = {replica.node for replica in workload.status.replicas}
    if not any(port.publish for port in workload.spec.ports) or not names:
        return []
    found = []
    for node in await client.nodes():
        can = node.message.capabilities
        if node.name in names and can is not None:
            found.append(Place(node.name, tuple(can.addresses), tuple(can.publish_addresses)))
    return found


def _counts(status: api.WorkloadStatus) -> str:
    return (
        f"{status.desired_replicas} wanted, {status.current_replicas} there, "
        f"{status.updated_replicas} updated, {status.ready_replicas} ready, "
        f"{status.available_replicas} available"
    )


async def _newest(client: Client, workload: api.Workload, number: int) -> api.Revision:
    """The newest revision; an empty one while there is none."""
    from cloudless import api

    kept = [item.message for item in await client.revisions(workload.name, namespace=workload.namespace)]
    return next((item for item in kept if item.number == number), api.Revision())


def _rollout(page: Page, status: api.WorkloadStatus, revision: api.Revision) -> None:
    rollout = status.rollout
    if rollout is None:
        return
    from cloudless.cli.output.rollouts import countdowns, failure_lines, way_text
    from cloudless.sdk.explaining import explanation_of

    shares = ", ".join(f"{share.percent} % revision {share.revision}" for share in rollout.traffic)
    page.head("Rollout")
    page.fields(
        [
            ("phase", page.phase(enum_name(rollout.phase))),
            ("revision", way_text(rollout).removeprefix("revision ")),
            ("made by", revision.author),
            ("message", revision.message),
            ("strategy", enum_name(rollout.strategy)),
            ("step", f"{rollout.step} of {rollout.steps}" if rollout.step else ""),
            ("traffic", shares),
            ("because", rollout.because),
            *(("time", text) for text in countdowns(rollout, page.now)),
            ("started", _when(page, rollout.started_at) if rollout.started_at else ""),
            ("progress", _when(page, rollout.progressed_at) if rollout.progressed_at else ""),
            ("ended", _when(page, rollout.ended_at) if rollout.ended_at else ""),
        ]
    )
    if rollout.failure is not None:
        told = explanation_of(status)
        page.head(f"Why {told.sentence.partition(':')[0]}")
        page.lines([told.message, *failure_lines(told, page.plain, said=told.message)])


def _specification(workload: Workload) -> list[str]:
    from cloudless.sdk.manifest.writing import dump_yaml, spec_values

    values = spec_values(workload.spec)
    for secret in values.get("pull_secrets", ()):
        secret["password"] = "(not shown)" if secret.get("password") else ""
    return dump_yaml(values).splitlines()


def _trouble(page: Page, replica: api.ReplicaStatus) -> None:
    """Refusals per node, and how it ended last."""
    name = f"{neutral(replica.workload)}/{replica.ordinal}"
    if replica.refusals:
        page.head(f"Why {name} has no node")
        page.fields([(neutral(refusal.node), refusal.reason) for refusal in replica.refusals])
    if replica.last_exit is None:
        return
    ended = replica.last_exit
    page.head(f"Last exit of {name}")
    page.fields(
        [
            ("reason", ended.reason),
            ("code", str(ended.code)),
            ("signal", str(ended.signal) if ended.signal else ""),
            ("out of memory", "yes" if ended.oom_killed else ""),
            ("finished", _when(page, ended.finished_at)),
        ]
    )
    page.lines([f"| {text}" for text in ended.log_tail.splitlines()[-MAX_LOG_LINES:]])


async def _replica(page: Page, client: Client, name: str) -> None:
    from cloudless.cli.naming import find_replica

    replica: Replica = await find_replica(client, name)
    message = replica.message
    page.head(f"Replica {neutral(message.namespace)}/{neutral(replica.name)}")
    page.fields(
        [
            ("state", f"{page.phase(replica.phase)}{', ready' if replica.ready else ', not ready'}"),
            ("because", message.message),
            ("node", message.node or "none"),
            ("address", message.address),
            ("revision", str(message.revision)),
            ("restarts", str(message.restarts)),
            ("image digest", message.image_digest),
            ("container", message.container_id),
            ("created", _when(page, message.created_at)),
            ("started", _when(page, message.started_at) if message.started_at else ""),
            ("id", message.id),
        ]
    )
    _trouble(page, message)
    found = await client.events(message.workload, namespace=message.namespace)
    _show_events(page, [event.message for event in found if event.message.replica_id == message.id])


async def _node(page: Page, client: Client, name: str) -> None:
    from cloudless.cli.naming import suggesting

    async with suggesting(client, name, NODES):
        node = (await client.node(name)).message
    can = node.capabilities
    page.head(f"Node {neutral(node.name)}")
    page.fields(
        [
            ("state", f"{page.phase(enum_name(node.phase))}{': ' + node.message if node.message else ''}"),
            ("region", node.region),
            ("zone", node.zone),
            ("labels", joined(node.labels)),
            ("taints", ", ".join(f"{taint.key}={taint.value}:{taint.effect}" for taint in node.taints)),
            ("version", node.version),
            ("joined", _when(page, node.joined_at)),
            ("seen", _when(page, node.seen_at) if node.seen_at else ""),
            ("id", node.id),
        ]
    )
    if node.capacity is not None:
        used, whole = node.reserved, node.capacity
        page.head("Reserved")
        page.fields(
            [
                ("cpu", f"{cpu(used.cpu_millicores if used else 0)} of {cpu(whole.cpu_millicores)}"),
                ("memory", f"{size(used.memory_bytes if used else 0)} of {size(whole.memory_bytes)}"),
                ("storage", f"{size(used.storage_bytes if used else 0)} of {size(whole.storage_bytes)}"),
            ]
        )
    if can is not None:
        page.head("Can")
        page.fields(
            [
                ("architecture", can.architecture),
                ("kernel", can.kernel),
                ("containerd", can.containerd_version),
                ("runtimes", ", ".join(can.runtime_classes)),
                ("seccomp", "yes" if can.seccomp else "no"),
                ("apparmor", "yes" if can.apparmor else "no"),
                ("host paths", ", ".join(can.host_paths)),
                ("addresses", ", ".join(can.addresses)),
                ("publishes at", ", ".join(("127.0.0.1", *can.publish_addresses))),
                ("privileged", "allowed" if can.allow_privileged else "refused"),
                ("host namespaces", "allowed" if can.allow_host_namespaces else "refused"),
            ]
        )
    replicas = await client.replicas(namespace="", node=node.name)
    if replicas:
        page.head("Replicas")
        page.table(REPLICAS, [replica.message for replica in replicas])
    await _events(page, client, node.name, "", kind="node")


async def _events(page: Page, client: Client, name: str, namespace: str, kind: str = "") -> None:
    try:
        found = await client.events(name, namespace=namespace, kind=kind)
    except NotFound:
        return
    _show_events(page, [event.message for event in found])


def _show_events(page: Page, events: list[Any]) -> None:
    if not events:
        return
    page.head("Events")
    page.table(EVENTS, events[-MAX_EVENTS:])


def _when(page: Page, at: datetime.datetime | None) -> str:
    from cloudless.cli.output.plain import time_text

    return f"{time_text(at)} ({age(at, page.now)} ago)" if at is not None else ""
