"""The verbs that steer rollouts, and what is kept of them: calls by a workload's name.

Part of ``client.Client``, between its questions (``Reader``) and its other changes. Each
verb returns when it is recorded; ``wait`` and ``Rollout`` see its effect. A verb that does
not fit raises ``PreconditionFailed`` with the reason.
"""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from cloudless import api
from cloudless.sdk.journal import PastRollout
from cloudless.sdk.objects import Listed, Revision
from cloudless.sdk.reader import Reader
from cloudless.sdk.workload import Workload

Verb = api.RolloutRequestVerb


class Options(TypedDict, total=False):
    """What every verb takes: a version that must be the stored one (else ``Conflict``), a rehearsal."""

    namespace: str | None
    resource_version: str
    dry_run: bool


class Steering(Reader):
    """Each call is one request with an id of its own, which the coordinator carries out once."""

    async def pause(self, name: str, **options: Unpack[Options]) -> Workload:
        """No further step until resumed; what was begun is finished."""
        return await self._steer(Verb.PAUSE, "paused", name, options)

    async def resume(self, name: str, **options: Unpack[Options]) -> Workload:
        """Go on after ``pause``."""
        return await self._steer(Verb.RESUME, "resumed", name, options)

    async def promote(self, name: str, *, full: bool = False, **options: Unpack[Options]) -> Workload:
        """Go on from a wait for promotion; ``full`` leaves out all further canary steps."""
        return await self._steer(Verb.PROMOTE, "promoted", name, options, full=full)

    async def abort(self, name: str, **options: Unpack[Options]) -> Workload:
        """Go back to the last revision that was proved healthy."""
        return await self._steer(Verb.ABORT, "aborted", name, options)

    async def undo(
        self,
        name: str,
        to_revision: int = 0,
        *,
        message: str = "",
        **options: Unpack[Options],
    ) -> Workload:
        """Make an older revision the newest; 0 is the newest earlier one that was proved healthy."""
        return await self._steer(
            Verb.UNDO, "undone", name, options, to_revision=to_revision, message=message, author=self.author
        )

    async def restart(
        self,
        name: str,
        *,
        pull: bool = False,
        message: str = "",
        **options: Unpack[Options],
    ) -> Workload:
        """New replicas of the same specification; ``pull`` asks the registry what the tag means now."""
        return await self._steer(
            Verb.RESTART, "restarted", name, options, pull=pull, message=message, author=self.author
        )

    async def retry(self, name: str, **options: Unpack[Options]) -> Workload:
        """Try a failed, rolled back or aborted rollout again."""
        return await self._steer(Verb.RETRY, "retried", name, options)

    async def history(self, name: str, *, namespace: str | None = None) -> Listed[Revision]:
        """The kept revisions with how their rollouts ended, newest first."""
        return await self.revisions(name, namespace=namespace)

    async def rollout_of(self, name: str, revision: int = 0, *, namespace: str | None = None) -> PastRollout:
        """One revision's rollout with its journal; the newest one's when 0."""
        space, short = self._split(name, namespace)
        request = api.GetRolloutRequest(namespace=space, name=short, revision=revision)
        return PastRollout(await self._call.unary(self._stub.get_rollout, request))

    async def _steer(self, verb: Verb, outcome: str, name: str, options: Options, **fields: Any) -> Workload:
        space, short = self._split(name, options.get("namespace"))
        request = api.RolloutRequest(
            namespace=space,
            name=short,
            verb=verb,
            request_id=self._new_id(),
            resource_version=options.get("resource_version", ""),
            dry_run=options.get("dry_run", False),
            **fields,
        )
        answer = await self._call.unary(self._stub.rollout, request)
        return Workload.of(answer.workload, outcome, plan=answer.plan, client=self)
