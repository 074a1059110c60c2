"""Revisions of a workload: when a new one is made, what pins its image, which are kept."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping

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
    over its image digest, so that these replicas are as good as new ones; so does one
    that restores an older one, and a restart that does not ask the registry.
    """
    newest, key = cluster.newest_revision(workload.id), template_key(workload)
    if newest is not None and newest.template_hash == key:
        return newest
    known = cluster.revisions.get(workload.id, {})
    restart = newest is not None and newest.spec.template_hash == workload.spec.template_hash
    pull = restart and workload.pull
    restored = known.get(workload.restores)
    if restored is not None and restored.spec.template_hash != workload.spec.template_hash:
        restored = None
    return Revision(
        workload_id=workload.id,
        number=newest.number + 1 if newest else 1,
        template_hash=key,
        spec=workload.spec,
        generation=workload.generation,
        image_digest="" if pull else _known_digest(cluster, workload, key, restored, restart=restart),
        created_at=now,
        author=workload.author,
        message=workload.message,
        pull=pull,
        restores=restored.number if restored is not None else 0,
    )


def _known_digest(
    cluster: Cluster, workload: WorkloadRecord, key: str, restored: Revision | None, *, restart: bool
) -> str:
    """The digest that a new revision runs because an older one with the same image does."""
    known = cluster.revisions.get(workload.id, {})
    if restored is not None:
        return restored.image_digest
    if restart:
        return known[max(known)].image_digest
    used = {replica.revision for replica in cluster.replicas_of(workload.id) if replica.run}
    twins = [number for number in sorted(used) if number in known and known[number].template_hash == key]
    return known[twins[-1]].image_digest if twins else ""


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
        revision = known.get(replica.revision)
        if revision is None or revision.image_digest:
            continue
        seen = cluster.observations.get(replica.id)
        if seen is None or not seen.image_digest:
            continue
        claim = (seen.started_at or replica.created_at, replica.id, seen.image_digest)
        first[replica.revision] = min(first.get(replica.revision, claim), claim)
    for number, (_, _, digest) in first.items():
        known[number] = known[number].replaced(image_digest=digest)
    return known


def proved_healthy(revisions: Mapping[int, Revision], failed: int) -> Revision | None:
    """The revision that was proved healthy last, other than ``failed``; None when none was."""
    bad = revisions.get(failed)
    proved = [
        one
        for one in revisions.values()
        if one.healthy_at is not None
        and one.number != failed
        and (bad is None or one.template_hash != bad.template_hash)
    ]
    return max(proved, key=lambda one: (one.healthy_at, one.number), default=None)


def surplus_revisions(numbers: Collection[int], used: Collection[int]) -> list[int]:
    """The oldest of ``numbers`` beyond those kept, but none of ``used``: replicas are made from these.

    The used ones are among those kept; more than so many only when more are in use.

    >>> surplus_revisions(range(1, 13), {2})
    [1, 3]
    """
    unused = [number for number in sorted(numbers)[:-1] if number not in used]
    return unused[: max(len(numbers) - KEPT_REVISIONS, 0)]


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
    if after.restores:
        return f"revision {after.number}: revision {after.restores} again"
    if not changed:
        pull = ", the image asked for anew" if after.pull else ""
        return f"revision {after.number}: restart with the same specification{pull}"
    if "image" in changed:
        image = f"image {before.spec.image} -> {after.spec.image}"
        changed = [image, *(name for name in changed if name != "image")]
    return f"revision {after.number}: {', '.join(changed)}"
