"""``Workload``: what a program asks for, and what the coordinator answers with.

Built by keyword (checked at once by the domain model) or from an answer of the client.
An answer costs nothing until something is read: ``spec`` becomes the domain model when
it is asked for. Nothing here calls the coordinator.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from cloudless import api
from cloudless.domain.errors import Invalid
from cloudless.sdk.bound import Bound
from cloudless.sdk.objects import Replica, enum_name
from cloudless.transport.codec import DecodeError, decode
from cloudless.transport.errors import InternalError

if TYPE_CHECKING:
    from cloudless.domain.workload import WorkloadSpec
    from cloudless.sdk.client import Client
    from cloudless.sdk.reader import Reader

Fields = Mapping[str, Any] | Any
#: What a rollout's phase is called in one word; of the others nothing is said.
_ROLLOUT_PHASES = {
    "PROGRESSING": "Progressing",
    "PAUSED": "Paused",
    "WAITING_PROMOTION": "WaitingPromotion",
    "FAILED": "Failed",
    "ROLLING_BACK": "RollingBack",
    "ROLLED_BACK": "RolledBack",
    "ABORTED": "Aborted",
}


class SpecFields(TypedDict, total=False):
    """The fields of a specification by keyword; nested ones as mappings or domain models."""

    image: str
    command: Sequence[str]
    args: Sequence[str]
    env: Mapping[str, str]
    working_dir: str
    resources: Fields
    replicas: int
    placement: Fields
    restart_policy: Fields
    rollout: Fields
    volumes: Sequence[Fields]
    ports: Sequence[Fields]
    liveness_probe: Fields | None
    readiness_probe: Fields | None
    startup_probe: Fields | None
    stop_grace_period: str | datetime.timedelta
    stop_signal: str
    image_pull_policy: str | None
    pull_secrets: Sequence[Fields]
    security_context: Fields
    runtime_class_name: str
    stdin: bool
    tty: bool


class Workload(Bound):
    """A workload, wanted or as it is; what it can do is in ``Bound``.

    >>> web = Workload("web", image="web:1.4", replicas=3)
    >>> web.name, web.spec.replicas
    ('web', 3)
    """

    __slots__ = ("_data", "_message", "_spec", "outcome", "plan")

    def __init__(
        self,
        name: str,
        *,
        namespace: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        spec: WorkloadSpec | None = None,
        **fields: Unpack[SpecFields],
    ) -> None:
        if spec is not None and fields:
            raise TypeError("give either spec or its fields, not both")
        _check_names(name, namespace)
        self._spec: WorkloadSpec | None = spec if spec is not None else build_spec(dict(fields))
        from cloudless.wire.spec import spec_to_wire

        self._client = None
        self._data = b""
        self._message: api.Workload | None = api.Workload(
            name=name,
            namespace=namespace,
            labels=dict(labels or {}),
            annotations=dict(annotations or {}),
            spec=spec_to_wire(self._spec),
        )
        #: "created", "updated" or "unchanged" in the answer of a mutation, else empty.
        self.outcome = ""
        #: The steps that a dry run would take.
        self.plan: list[api.PlannedStep] = []

    @classmethod
    def of(
        cls,
        message: api.Workload,
        outcome: str = "",
        *,
        plan: Sequence[api.PlannedStep] = (),
        client: Reader | None = None,
    ) -> Workload:
        """The view of an answer of ``client``."""
        view = cls.__new__(cls)
        view._client = cast("Client | None", client)  # every answer is a Client's
        view._spec = None
        view._data, view._message = b"", message
        view.outcome, view.plan = outcome, list(plan)
        return view

    @classmethod
    def of_bytes(cls, data: bytes, client: Reader | None = None) -> Workload:
        """The view of an encoded answer, which is decoded when something of it is read."""
        view = cls.__new__(cls)
        view._client = cast("Client | None", client)  # every answer is a Client's
        view._spec, view._data, view._message = None, data, None
        view.outcome, view.plan = "", []
        return view

    def _itself(self) -> Workload:
        return self

    @property
    def message(self) -> api.Workload:
        """The whole answer. Raises ``InternalError`` when it cannot be read."""
        if self._message is None:
            try:
                self._message = decode(self._data, api.Workload, trusted=True)
            except DecodeError as error:
                raise InternalError(f"a workload in a list cannot be read: {error}") from None
            self._data = b""
        return self._message

    @property
    def spec(self) -> WorkloadSpec:
        """The specification as the domain model, with all defaults filled in."""
        if self._spec is None:
            from cloudless.wire.spec import spec_from_wire

            self._spec = spec_from_wire(self.message.spec or api.WorkloadSpec())
        return self._spec

    def replaced(self, **fields: Unpack[SpecFields]) -> Workload:
        """A copy that asks for something else in some fields; raises ``Invalid``."""
        given = {name: getattr(self.spec, name) for name in self.spec.model_fields_set}
        message = self.message
        return Workload(
            message.name,
            namespace=message.namespace,
            labels=message.labels,
            annotations=message.annotations,
            spec=build_spec(given | dict(fields)),
        )

    @property
    def id(self) -> str:
        """Unique for ever; empty until the coordinator has made it."""
        return self.message.id

    @property
    def namespace(self) -> str:
        """Empty means the client's."""
        return self.message.namespace

    @property
    def name(self) -> str:
        """Unique in its namespace."""
        return self.message.name

    @property
    def labels(self) -> dict[str, str]:
        """What selectors select by."""
        return self.message.labels

    @property
    def annotations(self) -> dict[str, str]:
        """Free text kept with it."""
        return self.message.annotations

    @property
    def generation(self) -> int:
        """Rises when the specification changes."""
        return self.message.generation

    @property
    def resource_version(self) -> str:
        """Changes with everything a user writes; opaque."""
        return self.message.resource_version

    @property
    def created_at(self) -> datetime.datetime | None:
        """When it was made."""
        return self.message.created_at

    @property
    def deleted_at(self) -> datetime.datetime | None:
        """When its deletion was asked for; None when it was not."""
        return self.message.deleted_at

    @property
    def status(self) -> api.WorkloadStatus:
        """Counts, conditions, rollout; all zero while nothing was observed."""
        return self.message.status or api.WorkloadStatus()

    @property
    def replicas(self) -> list[Replica]:
        """The replicas there are, terminating ones too."""
        return [Replica(message) for message in self.status.replicas]

    @property
    def phase(self) -> str:
        """One word for people: Available, Progressing, Paused, Failed, RolledBack, Degraded and so on."""
        return phase_of(self.message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Workload) and bool(self.message == other.message)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        status = self.status
        counts = f"{status.available_replicas}/{status.desired_replicas}"
        return f"<Workload {self.namespace or 'default'}/{self.name} {self.phase} {counts}>"


def phase_of(message: api.Workload) -> str:
    """One word for the state of a workload."""
    status = message.status
    if message.deleted_at is not None:
        return "Deleting"
    if status is None or status.observed_generation < message.generation:
        return "Pending"
    rollout = enum_name(status.rollout.phase) if status.rollout is not None else ""
    if rollout in ("FAILED", "ROLLING_BACK"):
        return _ROLLOUT_PHASES[rollout]
    if any(condition.type == "Placed" and condition.status == "False" for condition in status.conditions):
        return "Unplaced"
    if rollout in ("PROGRESSING", "PAUSED", "WAITING_PROMOTION"):
        return _ROLLOUT_PHASES[rollout]
    if status.desired_replicas == 0:
        return "Stopped" if status.current_replicas == 0 else "Stopping"
    succeeded = sum(enum_name(replica.phase) == "SUCCEEDED" for replica in status.replicas)
    if succeeded and succeeded + status.available_replicas >= status.desired_replicas:
        return "Succeeded"
    if status.available_replicas < status.desired_replicas:
        return "Degraded"
    return _ROLLOUT_PHASES.get(rollout, "Available")


def build_spec(fields: dict[str, Any]) -> WorkloadSpec:
    """Validate fields; raises ``Invalid`` with a path for everything that is wrong."""
    from pydantic import ValidationError

    from cloudless.domain.model import violations_of
    from cloudless.domain.workload import WorkloadSpec

    try:
        return WorkloadSpec.model_validate(fields)
    except ValidationError as error:
        raise Invalid(violations=violations_of(error, "spec")) from None


def _check_names(name: str, namespace: str) -> None:
    from cloudless.domain.names import check_name

    for field, value in (("name", name), ("namespace", namespace or "default")):
        try:
            check_name(value)
        except (ValueError, TypeError) as error:
            raise Invalid.field(field, str(error)) from None


def split_name(name: str, namespace: str | None, default: str) -> tuple[str, str]:
    """(namespace, name) of "name" or "namespace/name"; an explicit namespace wins.

    >>> split_name("shop/web", None, "default"), split_name("web", None, "default")
    (('shop', 'web'), ('default', 'web'))
    """
    prefix, slash, rest = name.partition("/")
    if slash:
        return namespace or prefix, rest
    return namespace or default, name
