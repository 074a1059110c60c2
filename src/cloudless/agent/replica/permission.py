"""Whether this node may and can run what a specification demands. Pure.

The coordinator asks the same before it places a replica; the node asks again, because
it is the node that would be harmed. What cannot be enforced is refused, never weakened.
"""

from __future__ import annotations

from cloudless.domain.node import NodeCapabilities
from cloudless.domain.security import SeccompType
from cloudless.domain.workload import WorkloadSpec

_NAMESPACES = ("host_network", "host_pid", "host_ipc")


def refusals(spec: WorkloadSpec, node: NodeCapabilities) -> tuple[str, ...]:
    """Every reason not to run it here, as sentences; empty when it may run.

    >>> from cloudless.domain.security import SecurityContext
    >>> spec = WorkloadSpec(image="app", security_context=SecurityContext(privileged=True))
    >>> refusals(spec, NodeCapabilities())
    ('privileged is not allowed on this node',)
    """
    security, found = spec.security_context, []
    for name in security.needs_permission:
        allowed = node.allow_host_namespaces if name in _NAMESPACES else node.allow_privileged
        if not allowed:
            found.append(f"{name} is not allowed on this node")
    if security.apparmor_profile and not node.apparmor:
        found.append("apparmor_profile cannot be enforced: this node has no AppArmor")
    profile = security.seccomp_profile
    if profile.type is not SeccompType.UNCONFINED and not security.privileged and not node.seccomp:
        found.append("seccomp_profile cannot be enforced: this node's kernel has no seccomp")
    if profile.type is SeccompType.LOCALHOST and profile.localhost_profile not in node.seccomp_profiles:
        found.append(f"seccomp_profile {profile.localhost_profile} is not in this node's seccomp folder")
    if spec.runtime_class_name and spec.runtime_class_name not in node.runtime_classes:
        found.append(f"runtime_class_name {spec.runtime_class_name} is not installed on this node")
    for volume in spec.volumes:
        if volume.host_path is not None and allowed_prefix(volume.host_path.path, node.host_paths) is None:
            found.append(
                f"volume {volume.name}: host path {volume.host_path.path} is not allowed on this node"
            )
    return tuple(found)


def allowed_prefix(path: str, prefixes: tuple[str, ...]) -> str | None:
    """The longest allowed path that ``path`` is or lies below.

    >>> allowed_prefix("/srv/data/a", ("/srv", "/srv/data")), allowed_prefix("/srvx", ("/srv",))
    ('/srv/data', None)
    """
    fitting = [prefix for prefix in prefixes if path == prefix or path.startswith(prefix.rstrip("/") + "/")]
    return max(fitting, key=len, default=None)
