"""From an assignment to a running container: image, network, files, record, process.

The image and the network are made at the same time; everything that must be cleaned up
later carries the replica's id, so that a start cut short anywhere leaves nothing that
cannot be found.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudless.agent.limits import MIB, PROGRESS_INTERVAL_S
from cloudless.agent.network import files as name_files
from cloudless.agent.network.port import Attachment, HostPort
from cloudless.agent.replica import process, volumes
from cloudless.agent.replica.permission import refusals
from cloudless.agent.replica.tools import Tools
from cloudless.agent.runtime.errors import DiskFull, NotEnforced, StartFailed
from cloudless.agent.runtime.port import (
    ContainerMount,
    ContainerWish,
    LocalImage,
    PullProgress,
)
from cloudless.domain.event import Severity
from cloudless.domain.replica import Assignment
from cloudless.domain.security import SeccompType


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a replica keeps over restarts of its container."""

    image: LocalImage
    attachment: Attachment


async def surround(
    assignment: Assignment, tools: Tools, image: LocalImage | None, digest: str, say: Callable[[str], None]
) -> Surroundings:
    """Make image and network present; ``image`` is the one of an earlier container.

    Raises ``CloudlessError``; a cancelled pull stops, a network that is being made is made.
    """
    if image is None:
        attached, found = await asyncio.gather(
            attach(assignment, tools),
            tools.images.ensure(
                assignment.spec,
                digest,
                _teller(tools, assignment, say),
                pull=assignment.pull,
                tell=lambda text: tools.report(Severity.WARNING, "ImageNotPulled", text, assignment),
            ),
            return_exceptions=True,
        )
    else:
        attached, found = await attach(assignment, tools), image
    for outcome in (found, attached):
        if isinstance(outcome, BaseException):
            raise outcome
    assert isinstance(attached, Attachment)
    assert isinstance(found, LocalImage)
    return Surroundings(found, attached)


async def attach(assignment: Assignment, tools: Tools) -> Attachment:
    """The replica's place in the network; again gives the same."""
    spec = assignment.spec
    ports = tuple(
        HostPort(
            port.host_port, port.container_port, "udp" if port.protocol == "UDP" else "tcp", port.host_address
        )
        for port in spec.ports
        if port.host_port
    )
    return await tools.network.attach(
        assignment.replica_id,
        hostname=process.hostname(assignment),
        host_ports=ports,
        host_network=spec.security_context.host_network,
    )


async def start_container(
    assignment: Assignment, tools: Tools, around: Surroundings, *, attempt: int, restarts: int
) -> str:
    """Make and start container number ``attempt``; returns its id. Raises ``CloudlessError``.

    The caller has told ``tools.ends`` to expect it, and discards it when this raises.
    """
    container_id = container_id_of(assignment.replica_id, attempt)
    spec = assignment.spec
    hostname = process.hostname(assignment)
    log_uri = tools.logs.log_uri(assignment.replica_id, container_id, assignment)
    mounts, seccomp = await asyncio.to_thread(_prepare, assignment, tools, around.attachment)
    wish = ContainerWish(
        id=container_id,
        replica_id=assignment.replica_id,
        workload_id=assignment.workload_id,
        attempt=attempt,
        restarts=restarts,
        image=around.image,
        spec=spec,
        argv=process.argv(spec, around.image),
        env=process.environment(
            spec, around.image, hostname, process.own_environment(assignment, tools.node_name)
        ),
        cwd=process.working_dir(spec, around.image),
        hostname=hostname,
        netns_path=around.attachment.netns_path,
        mounts=mounts,
        log_uri=log_uri,
        seccomp=seccomp,
    )
    async with tools.slots:
        await tools.runtime.create(wish)
        await tools.runtime.start(container_id)
    return container_id


def check_permitted(assignment: Assignment, tools: Tools) -> None:
    """Raise ``NotEnforced`` when this node may not or cannot run it."""
    found = refusals(assignment.spec, tools.capabilities())
    if found:
        raise NotEnforced("; ".join(found))


def container_id_of(replica_id: str, attempt: int) -> str:
    """The id of a replica's container number ``attempt``.

    >>> container_id_of("abc", 2)
    'cl-abc-2'
    """
    return f"cl-{replica_id}-{attempt}"


def replica_folder(tools: Tools, replica_id: str) -> Path:
    """Where the files of one replica lie."""
    return tools.folder / replica_id


def _prepare(
    assignment: Assignment, tools: Tools, attachment: Attachment
) -> tuple[tuple[ContainerMount, ...], dict[str, Any] | None]:
    """Files and volumes, on a worker thread."""
    spec = assignment.spec
    folder = replica_folder(tools, assignment.replica_id)
    try:
        names = name_files.write(
            folder,
            hostname=process.hostname(assignment),
            address=attachment.address,
            host_network=attachment.netns_path is None,
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space for the files of a replica: {error.strerror}") from error
        raise StartFailed(f"cannot write the files of a replica: {error}") from error
    seccomp = _seccomp(assignment, tools.seccomp_folder)
    mounts = volumes.prepare(folder, spec.volumes, tools.capabilities().host_paths, tools.private)
    taken = {mount.destination for mount in mounts}
    for path in (names.resolv_conf, names.hosts, names.hostname):
        destination = f"/etc/{path.name}"
        if destination not in taken:
            mounts.append(ContainerMount(destination, str(path)))
    return tuple(mounts), seccomp


def _seccomp(assignment: Assignment, folder: Path) -> dict[str, Any] | None:
    profile = assignment.spec.security_context.seccomp_profile
    if profile.type is not SeccompType.LOCALHOST:
        return None
    path = folder / profile.localhost_profile
    try:
        loaded = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NotEnforced(f"seccomp_profile {profile.localhost_profile} cannot be read: {error}") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("defaultAction"), str):
        raise NotEnforced(f"seccomp_profile {profile.localhost_profile} is not a profile")
    return loaded


def _teller(
    tools: Tools, assignment: Assignment, say: Callable[[str], None]
) -> Callable[[PullProgress], None]:
    """Turns progress into a message, not more often than anybody reads it."""
    told_at = -PROGRESS_INTERVAL_S

    def tell(progress: PullProgress) -> None:
        nonlocal told_at
        now = tools.clock.monotonic()
        if now - told_at < PROGRESS_INTERVAL_S:
            return
        told_at = now
        done, total = progress.offset_bytes, progress.total_bytes
        size = f"{total / MIB:.0f} MiB" if total >= MIB else f"{total} bytes"
        share = f" ({done * 100 // total} % of {size})" if total else ""
        verb = "pulling" if progress.stage == "downloading" else progress.stage
        say(f"{verb} {assignment.spec.image}{share}")

    return tell
