"""From the agent's words to containerd's: plans, labels, errors. Pure but for the host's devices.

Security fields become exactly what they say, or ``NotEnforced`` is raised.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from cloudless.agent.limits import MAX_PIDS
from cloudless.agent.runtime.errors import (
    BadImage,
    CannotExecute,
    ContainerGone,
    DiskFull,
    ImageNotFound,
    NotEnforced,
    RegistryAway,
    RegistryDenied,
    RuntimeAway,
    StartFailed,
)
from cloudless.agent.runtime.oom import group_of
from cloudless.agent.runtime.port import ContainerMount, ContainerWish, LocalImage
from cloudless.containerd import capabilities, errors, plan
from cloudless.containerd.containers import Container
from cloudless.containerd.host import HostFacts, host_devices
from cloudless.containerd.images import Image
from cloudless.containerd.tasks import Task, TaskStatus
from cloudless.domain.errors import CloudlessError, Invalid
from cloudless.domain.resources import Resources
from cloudless.domain.security import SeccompType, SecurityContext
from cloudless.planning.node import ContainerFact, ContainerState

#: Labels of our container records; nothing of an image is ever copied into them.
PREFIX = "cloudless.io/"
#: How ids of our containers begin, whichever node they belong to.
CONTAINER_PREFIX = "cl-"
NODE_LABEL = f"{PREFIX}node"
REPLICA_LABEL = f"{PREFIX}replica"
WORKLOAD_LABEL = f"{PREFIX}workload"
ATTEMPT_LABEL = f"{PREFIX}attempt"
RESTARTS_LABEL = f"{PREFIX}restarts"
SPEC_LABEL = f"{PREFIX}spec-hash"
DIGEST_LABEL = f"{PREFIX}image-digest"
LOG_LABEL = f"{PREFIX}log"

#: Killed before the agent when the node runs out of memory.
OOM_SCORE_ADJ = 500

_STATES = {
    TaskStatus.CREATED: ContainerState.CREATED,
    TaskStatus.RUNNING: ContainerState.RUNNING,
    TaskStatus.PAUSED: ContainerState.RUNNING,
    TaskStatus.PAUSING: ContainerState.RUNNING,
    TaskStatus.STOPPED: ContainerState.STOPPED,
}


def labels(wish: ContainerWish, node_id: str) -> dict[str, str]:
    """What the record says about whose it is; read back by ``fact``."""
    return {
        NODE_LABEL: node_id,
        REPLICA_LABEL: wish.replica_id,
        WORKLOAD_LABEL: wish.workload_id,
        ATTEMPT_LABEL: str(wish.attempt),
        RESTARTS_LABEL: str(wish.restarts),
        SPEC_LABEL: wish.spec.template_hash,
        DIGEST_LABEL: wish.image.digest,
        LOG_LABEL: wish.log_uri,
    }


def fact(container: Container, task: Task | None) -> ContainerFact | None:
    """A record with its task; None when it is not a record that we wrote."""
    said = container.labels
    if not {REPLICA_LABEL, ATTEMPT_LABEL} <= said.keys() or not said[ATTEMPT_LABEL].isdigit():
        return None
    state = ContainerState.RECORDED
    if task is not None:
        state = _STATES.get(task.status, ContainerState.RUNNING)
    restarts = said.get(RESTARTS_LABEL, "")
    stopped = state is ContainerState.STOPPED and task is not None
    return ContainerFact(
        id=container.id,
        replica_id=said[REPLICA_LABEL],
        workload_id=said.get(WORKLOAD_LABEL, ""),
        attempt=int(said[ATTEMPT_LABEL]),
        state=state,
        pid=task.pid if task is not None else 0,
        restarts=int(restarts) if restarts.isdigit() else 0,
        spec_hash=said.get(SPEC_LABEL, ""),
        image_digest=said.get(DIGEST_LABEL, ""),
        exit_code=task.exit_code if stopped and task is not None else None,
        finished_at=task.exited_at if stopped and task is not None else None,
        started_at=container.created_at,
    )


def local_image(image: Image) -> LocalImage:
    """An image as the agent knows it."""
    config = image.config
    return LocalImage(
        name=image.name,
        digest=image.digest,
        size_bytes=image.size_bytes,
        entrypoint=config.entrypoint,
        command=config.command,
        env=config.env,
        user=config.user,
        working_dir=config.working_dir,
        stop_signal=config.stop_signal,
        imported=image.imported,
    )


def container_plan(wish: ContainerWish, user: plan.User, host: HostFacts, node_id: str) -> plan.ContainerPlan:
    """The plan for a container. Raises ``NotEnforced``."""
    security = wish.spec.security_context
    try:
        bounding = capabilities.choose(
            security.capabilities_add,
            security.capabilities_drop,
            privileged=security.privileged,
            available=host.capabilities,
        )
    except errors.InvalidRequest as error:
        raise NotEnforced(error.message) from None
    return plan.ContainerPlan(
        args=wish.argv,
        env=wish.env,
        cwd=wish.cwd,
        user=user,
        terminal=wish.spec.tty,
        hostname=wish.hostname,
        cgroup_path=group_of(node_id, wish.id),
        network_namespace=wish.netns_path,
        host_pid=security.host_pid,
        host_ipc=security.host_ipc,
        mounts=tuple(mount(one) for one in wish.mounts),
        limits=limits(wish.spec.resources, host, privileged=security.privileged),
        rlimits=host.default_rlimits(),
        oom_score_adj=OOM_SCORE_ADJ,
        read_only_root=security.read_only_root_filesystem,
        capabilities=bounding,
        privileged=security.privileged,
        devices=host_devices() if security.privileged else (),
        no_new_privileges=security.no_new_privileges,
        seccomp=seccomp(security, wish.seccomp),
        apparmor_profile=security.apparmor_profile,
        sysctls=security.sysctls,
    )


def identity(security: SecurityContext, user: plan.User) -> plan.User:
    """Ids as the security context changes them. Raises ``NotEnforced`` for root where none may be."""
    gid = user.gid if security.run_as_group is None else security.run_as_group
    groups = tuple(dict.fromkeys((*user.groups, *security.supplemental_groups)))
    if security.run_as_non_root and user.uid == 0:
        raise NotEnforced(
            "run_as_non_root: the container would run as root",
            hint="set run_as_user, or use an image whose USER is not root",
        )
    return replace(user, gid=gid, groups=groups)


def mount(wanted: ContainerMount) -> plan.MountPlan:
    """A mount in containerd's words."""
    if wanted.source is None:
        return plan.tmpfs_mount(
            wanted.destination, size_bytes=wanted.size_bytes or None, read_only=wanted.read_only
        )
    return plan.bind_mount(wanted.source, wanted.destination, read_only=wanted.read_only)


def limits(resources: Resources, host: HostFacts, *, privileged: bool) -> plan.Limits:
    """Limits in containerd's words; what is not limited stays so."""
    return plan.Limits(
        cpu_millicores=resources.limits.cpu_millicores or None,
        cpu_request_millicores=resources.requests.cpu_millicores or None,
        memory_bytes=resources.limits.memory_bytes or None,
        pids=None if privileged else MAX_PIDS,
        swap_limited=host.swap_limited,
    )


def seccomp(
    security: SecurityContext, profile: Mapping[str, object] | None
) -> plan.Seccomp | Mapping[str, object]:
    """The filter; a LOCALHOST profile must have been read by now."""
    kind = security.seccomp_profile.type
    if kind is SeccompType.UNCONFINED:
        return plan.Seccomp.UNCONFINED
    if kind is SeccompType.LOCALHOST:
        if profile is None:
            raise NotEnforced(f"seccomp_profile {security.seccomp_profile.localhost_profile} is missing")
        return profile
    return plan.Seccomp.DEFAULT


@contextmanager
def translated() -> Iterator[None]:
    """Turn containerd's errors in the block into the agent's."""
    try:
        yield
    except errors.ContainerdError as error:
        raise translate(error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space is left on the node's disk: {error}") from error
        raise


def translate(error: errors.ContainerdError) -> CloudlessError:
    """The agent's error for one of containerd's.

    >>> type(translate(errors.RegistryUnavailable("dial tcp"))).__name__
    'RegistryAway'
    """
    if isinstance(error, errors.CommandNotFound | errors.CommandNotExecutable):
        return CannotExecute(error.message, error.exit_code or 127)
    known: tuple[tuple[type[errors.ContainerdError], type[CloudlessError]], ...] = (
        (errors.Unavailable, RuntimeAway),
        (errors.NotFound, ContainerGone),
        (errors.NoSpace, DiskFull),
        (errors.ImageNotFound, ImageNotFound),
        (errors.RegistryUnauthorized, RegistryDenied),
        (errors.RegistryUnavailable, RegistryAway),
        (errors.InvalidImage, BadImage),
        (errors.InvalidRequest, Invalid),
    )
    for kind, ours in known:
        if isinstance(error, kind):
            return ours(error.message)
    return StartFailed(error.message)
