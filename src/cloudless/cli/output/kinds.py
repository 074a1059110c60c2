"""What each kind of object shows: its columns, its plain form, its name.

Verbs choose a kind and hand it to ``formats``. Columns marked wide appear with
``-o wide`` only.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloudless.cli.output.plain import plain, plain_workload
from cloudless.cli.output.table import Cell
from cloudless.cli.output.words import age, command_line, cpu, joined, phase_cell, size
from cloudless.sdk.objects import enum_name
from cloudless.sdk.verdict import reason_of
from cloudless.sdk.workload import phase_of

#: One cell of an object (a message), at a given time.
Read = Callable[[Any, datetime.datetime], str | Cell]


@dataclass(frozen=True)
class Column:
    """A titled cell; ``wide`` ones are left out of the plain table."""

    title: str
    read: Read
    wide: bool = False


@dataclass(frozen=True)
class Kind:
    """``name_of`` is what ``-o name`` prints; ``plain`` is the JSON form of a message."""

    name: str
    words: tuple[str, ...]
    columns: tuple[Column, ...]
    name_of: Callable[[Any], str]
    plain: Callable[[Any], dict[str, Any]] = plain
    namespaced: bool = True


def _workload_state(item: Any, _: datetime.datetime) -> Cell:
    return phase_cell(phase_of(item))


def _ready(item: Any, _: datetime.datetime) -> Cell:
    status = item.status
    if status is None:
        return Cell("0/?", "yellow")
    short = status.available_replicas < status.desired_replicas
    return Cell(f"{status.ready_replicas}/{status.desired_replicas}", "yellow" if short else "")


def _because(item: Any, _: datetime.datetime) -> str:
    return item.status.message if item.status is not None else ""


def _replica_state(item: Any, _: datetime.datetime) -> Cell:
    phase = enum_name(item.phase)
    return phase_cell(phase) if phase != "RUNNING" or item.ready else Cell("Running", "yellow")


def _replica_reason(item: Any, _: datetime.datetime) -> str:
    return reason_of(item)


def _node_use(name: str, show: Callable[[int], str]) -> Read:
    def read(item: Any, _: datetime.datetime) -> str:
        used = getattr(item.reserved, name, 0) if item.reserved is not None else 0
        return f"{show(used)}/{show(getattr(item.capacity, name, 0) if item.capacity is not None else 0)}"

    return read


def _capability(name: str) -> Read:
    return lambda item, _: getattr(item.capabilities, name, "") if item.capabilities is not None else ""


WORKLOADS = Kind(
    "workload",
    ("workloads", "workload", "wl", "w"),
    (
        Column("NAME", lambda item, _: item.name),
        Column("READY", _ready),
        Column("STATE", _workload_state),
        Column("REVISION", lambda item, _: str(item.status.revision if item.status is not None else 0)),
        Column("IMAGE", lambda item, _: item.spec.image if item.spec is not None else ""),
        Column("AGE", lambda item, now: age(item.created_at, now)),
        Column("ID", lambda item, _: item.id, wide=True),
        Column("LABELS", lambda item, _: joined(item.labels), wide=True),
        Column("MESSAGE", _because, wide=True),
    ),
    lambda item: f"workload/{item.name}",
    plain_workload,
)
REPLICAS = Kind(
    "replica",
    ("replicas", "replica", "rep", "r"),
    (
        Column("NAME", lambda item, _: f"{item.workload}/{item.ordinal}"),
        Column("READY", lambda item, _: "yes" if item.ready else "no"),
        Column("STATE", _replica_state),
        Column("RESTARTS", lambda item, _: str(item.restarts)),
        Column("NODE", lambda item, _: item.node),
        Column("REVISION", lambda item, _: str(item.revision)),
        Column("AGE", lambda item, now: age(item.created_at, now)),
        Column("ADDRESS", lambda item, _: item.address, wide=True),
        Column("ID", lambda item, _: item.id, wide=True),
        Column("CONTAINER", lambda item, _: item.container_id, wide=True),
        Column("REASON", _replica_reason),
    ),
    lambda item: f"replica/{item.workload}/{item.ordinal}",
)
NODES = Kind(
    "node",
    ("nodes", "node", "no"),
    (
        Column("NAME", lambda item, _: item.name),
        Column("STATE", lambda item, _: phase_cell(enum_name(item.phase))),
        Column("REPLICAS", lambda item, _: str(item.replicas)),
        Column("CPU", _node_use("cpu_millicores", cpu)),
        Column("MEMORY", _node_use("memory_bytes", size)),
        Column("REGION", lambda item, _: item.region, wide=True),
        Column("ZONE", lambda item, _: item.zone, wide=True),
        Column("VERSION", lambda item, _: item.version),
        Column("AGE", lambda item, now: age(item.joined_at, now)),
        Column("CONTAINERD", _capability("containerd_version"), wide=True),
        Column("KERNEL", _capability("kernel"), wide=True),
        Column("LABELS", lambda item, _: joined(item.labels), wide=True),
        Column("ID", lambda item, _: item.id, wide=True),
        Column("MESSAGE", lambda item, _: item.message),
    ),
    lambda item: f"node/{item.name}",
    namespaced=False,
)
EVENTS = Kind(
    "event",
    ("events", "event", "ev"),
    (
        Column("AGE", lambda item, now: age(item.at, now)),
        Column("SEVERITY", lambda item, _: phase_cell(item.severity)),
        Column("REASON", lambda item, _: item.reason),
        Column("OBJECT", lambda item, _: f"{item.kind}/{item.name}"),
        Column("NODE", lambda item, _: item.node, wide=True),
        Column("REPLICA ID", lambda item, _: item.replica_id, wide=True),
        Column("MESSAGE", lambda item, _: item.message),
    ),
    lambda item: f"event/{item.id}",
)


def plain_rollout(message: Any) -> dict[str, Any]:
    """A workload's rollout: ``rollout`` as the API has it, counts, and its replicas."""
    status = plain(message.status) if message.status is not None else {}
    counts = ("observed_generation", "desired_replicas", "available_replicas", "revision", "replicas")
    head = {"kind": "Rollout", "namespace": message.namespace, "name": message.name}
    found = {key: status[key] for key in counts if key in status}
    return head | {"generation": message.generation, "rollout": status.get("rollout", {})} | found


#: A workload's message, shown as its rollout.
ROLLOUTS = Kind(
    "rollout",
    ("rollouts", "rollout"),
    (
        Column("NAME", lambda item, _: item.name),
        Column("PHASE", lambda item, _: phase_cell(phase_of(item))),
        Column("READY", _ready),
        Column("MESSAGE", _because),
    ),
    lambda item: f"workload/{item.name}",
    plain_rollout,
)
REVISIONS = Kind(
    "revision",
    ("revisions", "revision", "rev"),
    (
        Column("REVISION", lambda item, _: str(item.number)),
        Column("IMAGE", lambda item, _: item.spec.image if item.spec is not None else ""),
        Column("PHASE", lambda item, _: phase_cell(enum_name(item.phase))),
        Column("DIGEST", lambda item, _: item.image_digest.removeprefix("sha256:")[:12]),
        Column("AGE", lambda item, now: age(item.created_at, now)),
        Column("AUTHOR", lambda item, _: item.author, wide=True),
        Column("MESSAGE", lambda item, _: item.message),
    ),
    lambda item: f"revision/{item.number}",
)
IMAGES = Kind(
    "image",
    ("images", "image", "img"),
    (
        Column("REFERENCE", lambda item, _: item.reference),
        Column("SIZE", lambda item, _: size(item.size_bytes)),
        Column("IN USE", lambda item, _: "yes" if item.in_use else "no"),
        Column("DIGEST", lambda item, _: item.digest),
    ),
    lambda item: f"image/{item.reference}",
    namespaced=False,
)
EXECS = Kind(
    "exec",
    ("execs", "exec"),
    (
        Column("ID", lambda item, _: item.exec_id),
        Column("REPLICA", lambda item, _: item.replica),
        Column("NODE", lambda item, _: item.node),
        Column("DETACHED", lambda item, _: "yes" if item.detached else "no"),
        Column("USER", lambda item, _: item.user),
        Column("AGE", lambda item, now: age(item.started_at, now)),
        Column("PID", lambda item, _: str(item.pid or ""), wide=True),
        Column("CONTAINER", lambda item, _: item.container_id, wide=True),
        Column("COMMAND", lambda item, _: command_line(item.command, cut=item.command_truncated)),
    ),
    lambda item: f"exec/{item.exec_id}",
)
KINDS = (WORKLOADS, REPLICAS, NODES, EVENTS, REVISIONS, IMAGES, EXECS)
KIND_OF_WORD = {word: kind for kind in KINDS for word in kind.words}
NAMESPACE = Column("NAMESPACE", lambda item, _: item.namespace)
