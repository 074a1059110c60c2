"""What the client returns beside workloads: thin views of messages, nothing is copied.

Attributes have the names and units of the API (docs/sdk.md); times are aware datetimes
or None; enums are their names as text (``"RUNNING"``). ``message`` is the whole answer.
"""

from __future__ import annotations

import datetime
from typing import Any, Generic, TypeVar

from cloudless import api

M = TypeVar("M")
T = TypeVar("T")


class Listed(list[T]):
    """A whole list and the revision it was read at, from which a watch may go on."""

    resource_version: str = ""


class View(Generic[M]):
    """The base of all views: equal when their messages are."""

    __slots__ = ("message",)

    def __init__(self, message: M) -> None:
        self.message = message

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(self.message == other.message)

    __hash__ = None  # type: ignore[assignment]


def enum_name(value: Any) -> str:
    """The name of an enum value without "UNSPECIFIED"; unknown numbers as text."""
    name = getattr(value, "name", None) or str(int(value))
    return "" if name.endswith("UNSPECIFIED") else str(name)


class Replica(View[api.ReplicaStatus]):
    """One container's worth of a workload."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """``workload/ordinal``: how people call it."""
        return f"{self.message.workload}/{self.message.ordinal}"

    @property
    def id(self) -> str:
        """Unique for ever."""
        return self.message.id

    @property
    def namespace(self) -> str:
        """The workload's namespace."""
        return self.message.namespace

    @property
    def workload(self) -> str:
        """The workload's name."""
        return self.message.workload

    @property
    def ordinal(self) -> int:
        """Its place among the workload's replicas, from 0."""
        return self.message.ordinal

    @property
    def node(self) -> str:
        """Name of the node it is on; empty when it has none."""
        return self.message.node

    @property
    def phase(self) -> str:
        """PENDING, STARTING, RUNNING, BACKING_OFF, STOPPING, SUCCEEDED, FAILED or UNKNOWN."""
        return enum_name(self.message.phase)

    @property
    def ready(self) -> bool:
        """Whether its readiness probe succeeds (or it runs and has none)."""
        return self.message.ready

    @property
    def available(self) -> bool:
        """Ready for at least ``rollout.min_ready_time``."""
        return self.message.available

    @property
    def revision(self) -> int:
        """Number of the revision it was made from."""
        return self.message.revision

    @property
    def restarts(self) -> int:
        """How often it was started again in place."""
        return self.message.restarts

    @property
    def address(self) -> str:
        """Its own network address; empty when it has none."""
        return self.message.address

    @property
    def last_exit(self) -> api.ExitStatus | None:
        """How its container ended last; None when it never did."""
        return self.message.last_exit

    @property
    def text(self) -> str:
        """Why it is in its phase, in one sentence."""
        return self.message.message

    def __repr__(self) -> str:
        return f"<Replica {self.namespace}/{self.name} {self.phase} on {self.node or 'no node'}>"


class Node(View[api.Node]):
    """A machine that runs replicas."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Unique for ever."""
        return self.message.id

    @property
    def name(self) -> str:
        """Unique among the nodes there are."""
        return self.message.name

    @property
    def phase(self) -> str:
        """READY, NOT_READY, DISCONNECTED or LOST."""
        return enum_name(self.message.phase)

    @property
    def labels(self) -> dict[str, str]:
        """Labels that node selectors ask for."""
        return self.message.labels

    @property
    def replicas(self) -> int:
        """Number of replicas placed on it."""
        return self.message.replicas

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.phase}>"


class Event(View[api.Event]):
    """Something that happened."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """Unique; sorts by time."""
        return self.message.id

    @property
    def at(self) -> datetime.datetime | None:
        """When it happened."""
        return self.message.at

    @property
    def severity(self) -> str:
        """Normal or Warning."""
        return self.message.severity

    @property
    def reason(self) -> str:
        """One word for machines."""
        return self.message.reason

    @property
    def text(self) -> str:
        """One sentence for people."""
        return self.message.message

    @property
    def subject(self) -> str:
        """What it is about, for example ``workload/web`` or ``node/n1``."""
        return f"{self.message.kind}/{self.message.name}"

    def __repr__(self) -> str:
        return f"<Event {self.reason} {self.subject}: {self.text}>"


class Revision(View[api.Revision]):
    """One version of a workload's template."""

    __slots__ = ()

    @property
    def number(self) -> int:
        """From 1; the highest is the newest."""
        return self.message.number

    @property
    def image(self) -> str:
        """The image as it was asked for."""
        return self.message.spec.image if self.message.spec is not None else ""

    @property
    def image_digest(self) -> str:
        """What the image was resolved to; empty until a node has done so."""
        return self.message.image_digest

    def __repr__(self) -> str:
        return f"<Revision {self.number} {self.image}>"


class Info(View[api.GetInfoResponse]):
    """What the coordinator is."""

    __slots__ = ()

    @property
    def version(self) -> str:
        """Version of the coordinator."""
        return self.message.version

    @property
    def store(self) -> str:
        """embedded, etcd or memory."""
        return self.message.store


class Execs(list["Exec"]):
    """Programs that run by exec. ``failures`` (node -> why) are nodes whose programs are missing.

    ``truncated``: there are more than one answer holds; ask for one replica.
    """

    def __init__(self, answer: api.ListExecsResponse) -> None:
        super().__init__(Exec(message) for message in answer.execs)
        self.failures = {one.node: one.message for one in answer.failures}
        self.truncated = answer.truncated


class Exec(View[api.Exec]):
    """A program that runs beside a replica's own because somebody asked for it."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """What ``kill_exec`` takes."""
        return self.message.exec_id

    @property
    def namespace(self) -> str:
        """The workload's namespace."""
        return self.message.namespace

    @property
    def replica(self) -> str:
        """``workload/ordinal``."""
        return self.message.replica

    @property
    def node(self) -> str:
        """Name of the node it runs on."""
        return self.message.node

    @property
    def command(self) -> list[str]:
        """Program and arguments, the first 512 bytes of them."""
        return self.message.command

    @property
    def detached(self) -> bool:
        """Whether it runs without a caller; any other one ends when its caller goes away."""
        return self.message.detached

    @property
    def started_at(self) -> datetime.datetime | None:
        """When it was started; None when the node has no record of that."""
        return self.message.started_at

    def __repr__(self) -> str:
        return f"<Exec {self.id} in {self.replica}>"


class ExecResult(View[api.ExecCommandResponse]):
    """What a command in a replica wrote and how it ended."""

    __slots__ = ()

    @property
    def exit_code(self) -> int:
        """The program's; 128 + signal, 127 command not found, 126 not executable."""
        return self.message.exit_code

    @property
    def stdout(self) -> bytes:
        """Its standard output, up to the limit."""
        return self.message.stdout

    @property
    def stderr(self) -> bytes:
        """Its standard error, up to the limit."""
        return self.message.stderr

    @property
    def truncated(self) -> bool:
        """Whether it wrote more than was kept."""
        return self.message.stdout_truncated or self.message.stderr_truncated

    @property
    def timed_out(self) -> bool:
        """Whether it was killed because its time was up."""
        return self.message.timed_out

    @property
    def replica(self) -> str:
        """``workload/ordinal`` of the replica that it ran in."""
        return self.message.replica

    def __repr__(self) -> str:
        return f"<ExecResult {self.exit_code} in {self.replica}>"
