"""Finds a replica or a container of this node by what a person or the coordinator wrote.

The dead count as well, as long as their logs are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloudless.agent.output import split_id
from cloudless.agent.replica.life import Replica
from cloudless.agent.replica.start import container_id_of
from cloudless.domain.errors import Invalid, NotFound


@dataclass(frozen=True, slots=True)
class Found:
    """A replica, and of its containers one, or with ``attempt`` None all of them."""

    replica_id: str
    attempt: int | None = None


def find(*, container_id: str, replica: str, containers: Iterable[str], replicas: Iterable[str]) -> Found:
    """What a request means; ids may be cut short as long as one thing is meant.

    Raises ``Invalid`` (nothing named, or several meant), ``NotFound``.

    >>> find(container_id="", replica="ab", containers=[], replicas=["abc", "xyz"])
    Found(replica_id='abc', attempt=None)
    >>> find(container_id="cl-abc", replica="", containers=["cl-abc-2"], replicas=[])
    Found(replica_id='abc', attempt=2)
    """
    if container_id:
        chosen = _unique("container_id", container_id, containers)
        return Found(*split_id(chosen))
    if replica:
        return Found(_unique("replica", replica, replicas))
    raise Invalid.field("container_id", "is required: the id of a container, or its first letters")


def find_living(replicas: Mapping[str, Replica], *, container_id: str, replica: str) -> Replica:
    """The same among those that live here: of a container, only the one that its replica has now."""
    containers = {one.container_id for one in replicas.values() if one.container_id}
    found = find(container_id=container_id, replica=replica, containers=containers, replicas=replicas)
    chosen = replicas[found.replica_id]
    if found.attempt is not None and chosen.container_id != container_id_of(found.replica_id, found.attempt):
        raise NotFound(f"container {container_id} does not run")
    return chosen


def _unique(field: str, text: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    if text in names:
        return text
    fitting = [name for name in names if name.startswith(text)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        what = field.removesuffix("_id")
        raise NotFound(f"no {what} {text[:80]!r} on this node")
    shown = ", ".join(fitting[:4])
    raise Invalid.field(field, f"{text[:80]!r} means several: {shown}{' ...' if len(fitting) > 4 else ''}")
