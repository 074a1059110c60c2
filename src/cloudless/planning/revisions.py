"""Revisions of a workload: when a new one is made, what pins its image, which are kept."""

from __future__ import annotations

import datetime
from collections.abc import Collection

from cloudless.domain.cluster import Cluster
from cloudless.domain.revision import KEPT_REVISIONS, Revision
from cloudless.domain.workload import NOT_TEMPLATE, WorkloadRecord, WorkloadSpec


def template_key(workload: WorkloadRecord) -> str:
    """Same for two states of a workload between which no replica needs to be replaced.

    The template's hash, and how often a restart was asked for.
    """
    key = workload.spec.template_hash
    return f"{key}-{workload.restart_count}" if workload.restart_count else key


def wanted_revision(cluster: Cluster, workload: WorkloadRecord, now: datetime.datetime) -> Revision:
    """The newest revision if it is what the workload asks for, else a new one.

    A new revision with the template of an older one of which replicas still run takes
    over its image digest, so that these replicas are as good as new ones.
    """
    newest, key = cluster.newest_revision(workload.id), template_key(workload)
    if newest is not None and newest.template_hash == key:
        return newest
    used = {replica.revision for replica in cluster.replicas_of(workload.id) if replica.run}
    known = cluster.revisions.get(workload.id, {})
    twins = [n for n in sorted(used) if n in known and known[n].template_hash == key]
    return Revision(
        workload_id=workload.id,
        number=newest.number + 1 if newest else 1,
        template_hash=key,
        spec=workload.spec,
        generation=workload.generation,
        image_digest=known[twins[-1]].image_digest if twins else "",
        created_at=now,
        author=workload.author,
        message=workload.message,
    )


def settled_revisions(
    cluster: Cluster, workload: WorkloadRecord, now: datetime.datetime
) -> dict[int, Revision]:
    """All revisions as they should be: the wanted one is there, digests that are known are set.

    The digest of a revision is the one that its first replica runs, so that later ones
    run the same, whatever the image's tag has come to mean.
    """
    wanted = wanted_revision(cluster, workload, now)
    known = {**cluster.revisions.get(workload.id, {}), wanted.number: wanted}
    if all(revision.image_digest for revision in known.values()):
        return known
    first: dict[int, tuple[datetime.datetime, str, str]] = {}
    for replica in cluster.replicas_of(workload.id):
        seen = cluster.observations.get(replica.id)
        revision = known.get(replica.revision)
        if seen is None or not seen.image_digest or revision is None or revision.image_digest:
            continue
        claim = (seen.started_at or replica.created_at, replica.id, seen.image_digest)
        first[replica.revision] = min(first.get(replica.revision, claim), claim)
    for number, (_, _, digest) in first.items():
        known[number] = known[number].replaced(image_digest=digest)
    return known


def surplus_revisions(numbers: Collection[int], used: Collection[int]) -> list[int]:
    """The oldest of ``numbers`` beyond those kept, but none of ``used``: replicas are made from these.

    >>> surplus_revisions(range(1, 13), {2})
    [1]
    """
    return [number for number in sorted(numbers)[:-KEPT_REVISIONS] if number not in used]


def changed_fields(before: WorkloadSpec, after: WorkloadSpec) -> list[str]:
    """Names of the template's fields that differ, for people."""
    return [
        name
        for name in WorkloadSpec.model_fields
        if name not in NOT_TEMPLATE and getattr(before, name) != getattr(after, name)
    ]


def describe_change(before: Revision | None, after: Revision) -> str:
    """One sentence about what a revision changes."""
    if before is None:
        return f"revision {after.number}: image {after.spec.image}"
    changed = changed_fields(before.spec, after.spec)
    if not changed:
        return f"revision {after.number}: restart with the same specification"
    if "image" in changed:
        image = f"image {before.spec.image} -> {after.spec.image}"
        changed = [image, *(name for name in changed if name != "image")]
    return f"revision {after.number}: {', '.join(changed)}"
