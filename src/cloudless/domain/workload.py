"""The workload: what a user asks for, and the record that keeps it."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from cloudless.domain.intent import RolloutIntent
from cloudless.domain.model import Choice, Model
from cloudless.domain.names import AbsolutePath, EnvName, Labels, Name, Text
from cloudless.domain.placement import Placement
from cloudless.domain.ports import Port as Port  # part of the specification, so found here as well
from cloudless.domain.ports import Protocol as Protocol
from cloudless.domain.ports import check_host_network_ports, check_ports
from cloudless.domain.probes import Probe
from cloudless.domain.quantity import Bytes, Duration
from cloudless.domain.resources import Resources
from cloudless.domain.secrets import PullSecret as PullSecret
from cloudless.domain.secrets import hidden
from cloudless.domain.security import SecurityContext
from cloudless.domain.strategy import RolloutStrategy

#: Most replicas of one workload.
MAX_REPLICAS = 10_000
#: Most variables, and all their bytes together.
MAX_ENV = 2_000
MAX_ENV_BYTES = 128 * 1024
#: Largest specification as JSON, in bytes; also what the store must be able to hold.
MAX_SPEC_BYTES = 256 * 1024
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?)/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_SIGNAL = re.compile(
    r"SIG(?:HUP|INT|QUIT|KILL|USR1|USR2|ALRM|TERM|WINCH|CONT|STOP|ABRT|PIPE|RTMIN(?:\+[0-9]{1,2})?)"
)
#: The kernel's own folders: a mount there would lay itself over what is hidden or read-only.
_SYSTEM = re.compile(r"/(?:proc|sys)(?:/|$)")
#: Template fields: a change of any other field makes no new revision.
NOT_TEMPLATE = frozenset({"replicas", "rollout"})


def _check_image(value: str) -> str:
    if not value:
        raise ValueError("is required, for example nginx:alpine")
    if len(value) > 512 or _IMAGE.fullmatch(value) is None:
        raise ValueError(
            f"{value[:80]!r} is not an image reference; write for example nginx:alpine or host:5000/app:1.4"
        )
    return value


def _check_signal(value: str) -> str:
    name = value.upper() if not value or value.upper().startswith("SIG") else f"SIG{value.upper()}"
    if name and _SIGNAL.fullmatch(name) is None:
        raise ValueError(f"{value[:40]!r} is not a signal; write for example SIGTERM")
    return name


class RestartPolicyName(Choice):
    """When a container that ended is started again."""

    ALWAYS = "ALWAYS"
    ON_FAILURE = "ON_FAILURE"
    NEVER = "NEVER"


class Backoff(Model):
    """Delays between restarts: base, base * 2, base * 4 ... up to the cap."""

    base: Duration = datetime.timedelta(seconds=10)
    cap: Duration = datetime.timedelta(seconds=300)
    reset_after: Duration = Field(
        default=datetime.timedelta(seconds=600), description="Running this long forgets earlier failures."
    )


class RestartPolicy(Model):
    """Whether, how often and how fast containers are restarted in place."""

    policy: RestartPolicyName = RestartPolicyName.ALWAYS
    max_retries: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = None
    backoff: Backoff = Backoff()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.policy is RestartPolicyName.NEVER and self.max_retries:
            raise ValueError("max_retries: has no meaning with policy NEVER")
        return self


class HostPathVolume(Model):
    """A folder of the node, below a path that its operator has allowed."""

    path: AbsolutePath


class EmptyDirVolume(Model):
    """A folder that lives as long as the replica."""

    size_bytes: Bytes = 0


class TmpfsVolume(Model):
    """Memory that lives as long as the container."""

    size_bytes: Bytes = 0


class Volume(Model):
    """One mount; exactly one source."""

    name: Name
    mount_path: AbsolutePath
    read_only: bool = False
    host_path: HostPathVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    tmpfs: TmpfsVolume | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [name for name in ("host_path", "empty_dir", "tmpfs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of host_path, empty_dir, tmpfs ({', '.join(given) or 'none'} given)"
            )
        if self.mount_path in ("/", "/dev") or _SYSTEM.match(self.mount_path):
            raise ValueError(f"mount_path: {self.mount_path} belongs to the container's own system")
        return self


class ImagePullPolicy(Choice):
    """When the registry is asked."""

    ALWAYS = "ALWAYS"
    IF_NOT_PRESENT = "IF_NOT_PRESENT"
    NEVER = "NEVER"


class WorkloadSpec(Model):
    """How to run a set of identical containers ("replicas")."""

    _derived: ClassVar[tuple[str, ...]] = ("template_hash",)

    image: Annotated[str, AfterValidator(_check_image), StringConstraints(strict=True)]
    command: tuple[Text, ...] = Field(
        default=(), max_length=1024, description="Replaces the image's entrypoint."
    )
    args: tuple[Text, ...] = Field(default=(), max_length=1024, description="Replaces the image's command.")
    env: dict[EnvName, Text] = Field(default={}, max_length=MAX_ENV)
    working_dir: AbsolutePath | None = None
    resources: Resources = Resources()
    replicas: Annotated[int, Field(strict=True, ge=0, le=MAX_REPLICAS)] = 1
    placement: Placement = Placement()
    restart_policy: RestartPolicy = RestartPolicy()
    rollout: RolloutStrategy = RolloutStrategy()
    volumes: tuple[Volume, ...] = Field(default=(), max_length=64)
    ports: tuple[Port, ...] = Field(default=(), max_length=256)
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    stop_grace_period: Duration = datetime.timedelta(seconds=30)
    stop_signal: Annotated[str, AfterValidator(_check_signal)] = ""
    image_pull_policy: ImagePullPolicy | None = Field(
        default=None, description="ALWAYS for the tag latest or no tag, else IF_NOT_PRESENT."
    )
    pull_secrets: tuple[PullSecret, ...] = Field(default=(), max_length=16)
    security_context: SecurityContext = SecurityContext()
    runtime_class_name: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$")] = ""
    stdin: Annotated[bool, Field(strict=True)] = Field(
        default=False,
        description="Keeps standard input open for attach; without it the program reads nothing.",
    )
    tty: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Runs the program on a terminal, standard input included."
    )

    @field_validator("ports")
    @classmethod
    def _ports_together(cls, value: tuple[Port, ...]) -> tuple[Port, ...]:
        check_ports(value)
        return value

    @field_validator("env")
    @classmethod
    def _env_size(cls, value: dict[str, str]) -> dict[str, str]:
        size = sum(len(name) + len(text.encode()) for name, text in value.items())
        if size > MAX_ENV_BYTES:
            raise ValueError(f"holds {size} bytes; at most {MAX_ENV_BYTES} are allowed")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.security_context.host_network:
            check_host_network_ports(self.ports)
        _refuse_twice("volumes", "name", [volume.name for volume in self.volumes])
        _refuse_twice("volumes", "mount_path", [volume.mount_path for volume in self.volumes])
        for name in ("liveness_probe", "startup_probe"):
            probe: Probe | None = getattr(self, name)
            if probe is not None and probe.success_threshold != 1:
                raise ValueError(f"{name}: success_threshold must be 1")
        if self.restart_policy.policy is RestartPolicyName.NEVER and self.liveness_probe is not None:
            raise ValueError("liveness_probe: restarts containers, which restart_policy NEVER forbids")
        return self

    @property
    def pull_policy(self) -> ImagePullPolicy:
        """The effective pull policy: given, or ALWAYS for ``latest`` and untagged images."""
        if self.image_pull_policy is not None:
            return self.image_pull_policy
        tag = self.image.rpartition("/")[2].partition(":")[2]
        pinned = "@" in self.image or tag not in ("", "latest")
        return ImagePullPolicy.IF_NOT_PRESENT if pinned else ImagePullPolicy.ALWAYS

    @property
    def shown(self) -> WorkloadSpec:
        """The same as answers show it: without passwords."""
        return self.replaced(pull_secrets=hidden(self.pull_secrets)) if self.pull_secrets else self

    @cached_property
    def template_hash(self) -> str:
        """Same for two specs whose replicas would be identical: what makes a revision.

        Defaults are left out and keys sorted, so that neither a field that a later version
        adds nor the order of a map replaces replicas.
        """
        template = self.model_dump(mode="json", exclude=set(NOT_TEMPLATE), exclude_defaults=True)
        return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def _refuse_twice(where: str, what: str, values: list[Any]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            shown = ":".join(str(part) for part in value) if isinstance(value, tuple) else value
            raise ValueError(f"{where}: {what} {shown} is given twice")
        seen.add(value)


class WorkloadRecord(Model):
    """What is stored of a workload: written by users' requests only."""

    id: str
    namespace: Name
    name: Name
    labels: Labels = {}
    annotations: dict[str, str] = {}
    spec: WorkloadSpec
    generation: int = 1
    created_at: datetime.datetime
    updated_at: datetime.datetime
    deleted_at: datetime.datetime | None = None
    delete_grace: Duration | None = None
    #: Bumped by "restart": part of what makes a revision.
    restart_count: int = 0
    #: The restart that made ``restart_count`` asked the registry for the image anew.
    pull: bool = False
    #: The revision that an undo made the newest again; 0 after any other change.
    restores: int = 0
    #: What was asked of the rollout that is (or was) on.
    intent: RolloutIntent = RolloutIntent()
    author: str = ""
    message: str = ""
    #: Revision of the store at which this was written last; set on reading, never stored.
    resource_version: int = Field(default=0, exclude=True)
