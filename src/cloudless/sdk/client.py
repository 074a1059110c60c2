"""The front door: ``async with cloudless.connect() as c``.

A ``Client`` belongs to one event loop. Every call has a deadline, raises
``CloudlessError`` only, and may be cancelled; streams are context managers. Names may be
written as "name" or "namespace/name"; a namespace given apart wins.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

from cloudless import api
from cloudless.domain.errors import AlreadyExists, Conflict, Invalid, NotFound
from cloudless.sdk.inside import Inside
from cloudless.sdk.limits import CALL_TIMEOUT_S, CONFLICT_TRIES, PATIENCE_S
from cloudless.sdk.steering import Steering
from cloudless.sdk.targets import find_target
from cloudless.sdk.verdict import GOALS, Goal
from cloudless.sdk.waiting import OnChange, wait_for
from cloudless.sdk.workload import SpecFields, Workload, build_spec


def connect(
    address: str | None = None,
    *,
    context: str | None = None,
    namespace: str | None = None,
    timeout_s: float = CALL_TIMEOUT_S,
    patience_s: float = PATIENCE_S,
    author: str | None = None,
) -> Client:
    """A client of the coordinator at ``address``, to be used as ``async with``.

    Without an address: CLOUDLESS_ADDRESS, else a context of the configuration file, else
    127.0.0.1:8080. ``timeout_s`` is the deadline of each call, ``patience_s`` how long an
    unavailable coordinator is asked again within it. ``author`` is kept with the revisions that
    this client makes: CLOUDLESS_AUTHOR, or user@host of this process, unless given. Nothing is
    dialled before the first call. Raises ``Invalid`` for an address or a context that cannot be.
    """
    target = find_target(address, context)
    if namespace:
        target = target._replace(namespace=namespace)
    return Client(target, timeout_s=timeout_s, patience_s=patience_s, author=author)


class Client(Inside, Steering):
    """See ``connect``. ``namespace`` is where names without one are looked for."""

    # Workloads: changes.

    async def create(self, workload: Workload, *, message: str = "", dry_run: bool = False) -> Workload:
        """Make a new workload; raises ``AlreadyExists``, ``Invalid``."""
        wanted = workload.message
        answer = await self._call.unary(
            self._stub.create_workload,
            api.CreateWorkloadRequest(
                namespace=wanted.namespace or self.namespace,
                name=wanted.name,
                spec=wanted.spec,
                labels=wanted.labels,
                annotations=wanted.annotations,
                request_id=self._new_id(),
                dry_run=dry_run,
                message=message,
                author=self.author,
            ),
        )
        return self._answered(answer, "created", answer.plan)

    async def apply(
        self, workload: Workload, *, if_version: str = "", message: str = "", dry_run: bool = False
    ) -> Workload:
        """Create it or make it so; ``outcome`` says created, updated or unchanged.

        Labels and annotations are replaced when any are given, and left alone otherwise. With
        ``if_version`` (a ``resource_version``) only what is still at that version is changed;
        raises ``Conflict`` otherwise.
        """
        for _ in range(CONFLICT_TRIES):
            try:
                before = await self.get(workload.name, workload.namespace or None)
            except NotFound:
                before = None
            try:
                if before is None or before.name != workload.name:
                    if if_version:
                        raise Conflict(
                            f"workload {workload.name} does not exist, so it is not at version {if_version}"
                        )
                    return await self.create(workload, message=message, dry_run=dry_run)
                return await self._replace(
                    workload, before, version=if_version, message=message, dry_run=dry_run
                )
            except (AlreadyExists, NotFound):
                continue  # somebody else made or removed it meanwhile
        raise Conflict(f"workload {workload.name} is made and removed by somebody else all the time")

    async def _replace(
        self, workload: Workload, before: Workload, *, version: str, message: str, dry_run: bool
    ) -> Workload:
        wanted = workload.message
        answer = await self._call.unary(
            self._stub.update_workload,
            api.UpdateWorkloadRequest(
                namespace=before.namespace,
                name=wanted.name,
                spec=wanted.spec,
                labels=wanted.labels,
                annotations=wanted.annotations,
                resource_version=version,
                request_id=self._new_id(),
                dry_run=dry_run,
                message=message,
                author=self.author,
            ),
        )
        changed = any(
            getattr(answer.workload, field) != getattr(before.message, field)
            for field in ("generation", "labels", "annotations", "spec")
        )
        return self._answered(answer, "updated" if changed else "unchanged", answer.plan)

    async def update(
        self,
        name: str,
        *,
        namespace: str | None = None,
        resource_version: str = "",
        message: str = "",
        dry_run: bool = False,
        **fields: Unpack[SpecFields],
    ) -> Workload:
        """Change the given fields of the specification and leave the others alone.

        Raises ``NotFound``, ``Invalid``, and ``Conflict`` when ``resource_version`` is given
        and the workload is newer.
        """
        before = await self.get(name, namespace)
        changed = before.replaced(**fields)
        return await self.update_fields(
            changed,
            tuple(fields),
            before,
            resource_version=resource_version,
            message=message,
            dry_run=dry_run,
        )

    async def edit(
        self,
        name: str,
        change: Callable[[Workload], dict[str, Any]],
        *,
        namespace: str | None = None,
        message: str = "",
        dry_run: bool = False,
    ) -> Workload:
        """Read, compute changed fields with ``change``, write; again when somebody else was faster."""
        for tries in range(CONFLICT_TRIES):
            before = await self.get(name, namespace)
            fields = change(before)
            given = {field: getattr(before.spec, field) for field in before.spec.model_fields_set}
            wanted = Workload(before.name, namespace=before.namespace, spec=build_spec(given | fields))
            try:
                return await self.update_fields(
                    wanted,
                    tuple(fields),
                    before,
                    resource_version=before.resource_version,
                    message=message,
                    dry_run=dry_run,
                )
            except Conflict:
                if tries == CONFLICT_TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def update_fields(
        self,
        workload: Workload,
        fields: Iterable[str],
        before: Workload,
        *,
        resource_version: str = "",
        message: str = "",
        dry_run: bool = False,
    ) -> Workload:
        """Write the named top-level fields of ``workload``'s specification."""
        paths = [f"spec.{field}" for field in fields]
        if not paths:
            raise Invalid("no field is given to change")
        answer = await self._call.unary(
            self._stub.update_workload,
            api.UpdateWorkloadRequest(
                namespace=before.namespace,
                name=before.name,
                spec=workload.message.spec,
                update_mask=_field_mask(paths),
                resource_version=resource_version,
                request_id=self._new_id(),
                dry_run=dry_run,
                message=message,
                author=self.author,
            ),
        )
        same = answer.workload.spec == before.message.spec
        return self._answered(answer, "unchanged" if same else "updated", answer.plan)

    async def scale(
        self,
        name: str,
        replicas: int,
        *,
        namespace: str | None = None,
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Workload:
        """Change the number of replicas; not a new revision."""
        space, short = self._split(name, namespace)
        answer = await self._call.unary(
            self._stub.scale_workload,
            api.ScaleWorkloadRequest(
                namespace=space,
                name=short,
                replicas=replicas,
                resource_version=resource_version,
                request_id=self._new_id(),
                dry_run=dry_run,
            ),
        )
        return self._answered(answer, "updated", answer.plan)

    async def delete(
        self,
        name: str,
        *,
        namespace: str | None = None,
        grace_s: float | None = None,
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Workload:
        """Ask for its removal; returns when that is recorded (``wait(for_="deleted")`` for the rest).

        ``grace_s`` replaces the workload's own grace; 0 is immediate.
        """
        space, short = self._split(name, namespace)
        answer = await self._call.unary(
            self._stub.delete_workload,
            api.DeleteWorkloadRequest(
                namespace=space,
                name=short,
                grace_period=None if grace_s is None else datetime.timedelta(seconds=grace_s),
                resource_version=resource_version,
                request_id=self._new_id(),
                dry_run=dry_run,
            ),
        )
        return self._answered(answer, "deleted", [])

    async def wait(
        self,
        name: str,
        for_: Goal = "available",
        *,
        namespace: str | None = None,
        generation: int = 0,
        timeout_s: float | None = None,
        settle_s: float = 0.0,
        on_change: OnChange | None = None,
    ) -> Workload:
        """Wait until the workload is ``available``, ``placed``, ``completed`` or ``deleted``.

        Available: every replica of the newest revision is available and no other is left.
        Only a status of ``generation`` (or of the present one) counts. Raises
        ``RolloutFailed`` or ``CannotPlace`` as soon as it is clear that it cannot get there,
        ``Superseded`` when somebody asks for something else, ``WorkloadDeleted`` when it is
        removed meanwhile, ``WaitTimeout`` after ``timeout_s``. Without that a rollout's own
        deadline ends the wait; where none is on, 600 s do.
        """
        if for_ not in GOALS:
            raise Invalid.field("for_", f"must be one of {', '.join(GOALS)}")
        try:
            workload = await self.get(name, namespace)
        except NotFound:
            if for_ != "deleted":
                raise
            space, short = self._split(name, namespace)
            return Workload.of(api.Workload(namespace=space, name=short), "deleted", client=self)
        return await self.follow(
            workload, for_, generation=generation, timeout_s=timeout_s, settle_s=settle_s, on_change=on_change
        )

    async def follow(
        self,
        workload: Workload,
        for_: Goal = "available",
        *,
        generation: int = 0,
        timeout_s: float | None = None,
        settle_s: float = 0.0,
        since: str = "",
        on_change: OnChange | None = None,
    ) -> Workload:
        """``wait`` for a workload that was just answered: no further question is needed.

        ``since``, its resource version, makes sure that nothing older than the answer is looked
        at; needed after verbs that leave the generation as it is.
        """
        since = since or (workload.resource_version if for_ == "deleted" else "")
        watch = self.watch(namespace=workload.namespace, name=workload.name, since=since)
        async with watch as changes:
            return await wait_for(
                changes,
                workload,
                for_,
                generation=max(generation, workload.generation),
                timeout_s=timeout_s,
                settle_s=settle_s,
                on_change=on_change,
            )

    def _answered(self, answer: Any, outcome: str, plan: Sequence[api.PlannedStep]) -> Workload:
        return Workload.of(answer.workload, outcome, plan=plan, client=self)


def _field_mask(paths: list[str]) -> Any:
    from cloudless.api.google.protobuf import FieldMask

    return FieldMask(paths=paths)
