"""Where everything lives in the store: the whole layout on one page.

    /cloudless/v1/cluster                             ClusterRecord
    /cloudless/v1/leader                              the election's
    /cloudless/v1/workloads/<namespace>/<name>        WorkloadRecord, written by users' requests
    /cloudless/v1/status/<workload>                   StatusRecord, written by the control loop
    /cloudless/v1/revisions/<workload>/<number>       Revision, written by the control loop
    /cloudless/v1/replicas/<workload>/<replica>       ReplicaRecord, written by the control loop
    /cloudless/v1/observed/<workload>/<replica>       Observation, written from the node's reports
    /cloudless/v1/nodes/<node>                        NodeRecord
    /cloudless/v1/events/<time and id>                Event
    /cloudless/v1/requests/<request>                  RequestRecord, the answer to an idempotency key
    /cloudless/v1/journal/<workload>/<revision>/<number>  JournalEntry, written by the control loop

Names hold no '/', and every prefix that is listed ends with one, so that "web" never
finds "web-2". Whoever makes a key from a request has checked its parts before.
"""

from __future__ import annotations

import datetime
import enum
from typing import Final, NamedTuple

ROOT: Final = "/cloudless/v1/"
CLUSTER: Final = ROOT + "cluster"
LEADER: Final = ROOT + "leader"
EVENTS: Final = ROOT + "events/"
REQUESTS: Final = ROOT + "requests/"


class Kind(enum.Enum):
    """What a key holds; the value is its first part below the root."""

    CLUSTER = "cluster"
    LEADER = "leader"
    WORKLOAD = "workloads"
    STATUS = "status"
    REVISION = "revisions"
    REPLICA = "replicas"
    OBSERVATION = "observed"
    NODE = "nodes"
    EVENT = "events"
    REQUEST = "requests"
    JOURNAL = "journal"


_PARTS = {
    Kind.CLUSTER: 0,
    Kind.LEADER: 0,
    Kind.WORKLOAD: 2,
    Kind.STATUS: 1,
    Kind.REVISION: 2,
    Kind.REPLICA: 2,
    Kind.OBSERVATION: 2,
    Kind.NODE: 1,
    Kind.EVENT: 1,
    Kind.REQUEST: 1,
    Kind.JOURNAL: 3,
}
_KINDS = {kind.value: kind for kind in Kind}
_START = len(ROOT)
#: What the watch cache keeps in memory; the rest is read when it is needed.
CACHED: Final = tuple(
    f"{ROOT}{kind.value}/"
    for kind in (
        Kind.WORKLOAD,
        Kind.STATUS,
        Kind.REVISION,
        Kind.REPLICA,
        Kind.OBSERVATION,
        Kind.NODE,
        Kind.EVENT,
    )
)


class Parsed(NamedTuple):
    """A key taken apart: what it holds, and the parts after the kind."""

    kind: Kind
    parts: tuple[str, ...]


def workload(namespace: str, name: str) -> str:
    """Key of a workload."""
    return f"{ROOT}workloads/{namespace}/{name}"


def status(workload_id: str) -> str:
    """Key of what was concluded about a workload."""
    return f"{ROOT}status/{workload_id}"


def revision(workload_id: str, number: int) -> str:
    """Key of one revision; keys sort by number.

    >>> revision("w", 7)
    '/cloudless/v1/revisions/w/0000000007'
    """
    return f"{ROOT}revisions/{workload_id}/{number:010d}"


def revisions(workload_id: str) -> str:
    """Prefix of all revisions of a workload."""
    return f"{ROOT}revisions/{workload_id}/"


def replica(workload_id: str, replica_id: str) -> str:
    """Key of what is wanted of a replica."""
    return f"{ROOT}replicas/{workload_id}/{replica_id}"


def replicas(workload_id: str) -> str:
    """Prefix of all replicas of a workload."""
    return f"{ROOT}replicas/{workload_id}/"


def observation(workload_id: str, replica_id: str) -> str:
    """Key of what was seen of a replica."""
    return f"{ROOT}observed/{workload_id}/{replica_id}"


def observations(workload_id: str) -> str:
    """Prefix of everything seen of a workload's replicas."""
    return f"{ROOT}observed/{workload_id}/"


def node(node_id: str) -> str:
    """Key of a node."""
    return f"{ROOT}nodes/{node_id}"


def event(event_id: str) -> str:
    """Key of an event."""
    return f"{EVENTS}{event_id}"


def request(request_id: str) -> str:
    """Key of the answer to a request with an idempotency key."""
    return f"{REQUESTS}{request_id}"


def journal_entry(workload_id: str, revision: int, sequence: int) -> str:
    """Key of one entry in the journal of a revision's rollout; keys sort by number.

    >>> journal_entry("w", 7, 12)
    '/cloudless/v1/journal/w/0000000007/000012'
    """
    return f"{journal(workload_id, revision)}{sequence:06d}"


def journal(workload_id: str, revision: int) -> str:
    """Prefix of the journal of one revision's rollout."""
    return f"{journals(workload_id)}{revision:010d}/"


def journals(workload_id: str) -> str:
    """Prefix of all journals of a workload."""
    return f"{ROOT}journal/{workload_id}/"


def event_id(micros: int, suffix: str) -> str:
    """An id that sorts by time: microseconds since 1970, then something unique.

    >>> event_id(micros_since_epoch(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)), "abc")
    '0001767225600000000-abc'
    """
    return f"{max(micros, 0):019d}-{suffix}"


def micros_since_epoch(at: datetime.datetime) -> int:
    """Microseconds since 1970, exact."""
    return (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)


def parse(key: str) -> Parsed | None:
    """What a key holds; None for a key that is not of this layout.

    >>> parse("/cloudless/v1/workloads/default/web")
    Parsed(kind=<Kind.WORKLOAD: 'workloads'>, parts=('default', 'web'))
    """
    if not key.startswith(ROOT):
        return None
    first, *parts = key[_START:].split("/")
    kind = _KINDS.get(first)
    if kind is None or len(parts) != _PARTS[kind] or not all(parts):
        return None
    return Parsed(kind, tuple(parts))
