"""What a workload that a client has answered can do through that client.

The base of ``workload.Workload``: each method is the client's method of the same name, for
this workload. A workload that was only built raises ``RuntimeError``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.exec import AttachOptions, ExecOptions, ExecProcess
    from cloudless.sdk.forward import Forward, OnError
    from cloudless.sdk.journal import PastRollout
    from cloudless.sdk.logs import LogOptions, LogStream
    from cloudless.sdk.objects import Exec, Execs, Listed, Revision
    from cloudless.sdk.rollout import Rollout
    from cloudless.sdk.workload import Workload


class Bound:
    """``name`` and ``namespace`` come from the workload."""

    __slots__ = ("_client",)

    _client: Client | None

    @property
    def name(self) -> str:
        """Unique in its namespace."""
        raise NotImplementedError

    @property
    def namespace(self) -> str:
        """Empty means the client's."""
        raise NotImplementedError

    @property
    def client(self) -> Client:
        """The client that answered with this workload; raises ``RuntimeError`` when none did."""
        if self._client is None:
            raise RuntimeError("this workload is no answer of a client: apply or get it first")
        return self._client

    def rollout(self, *, timeout_s: float | None = None) -> Rollout:
        """Its newest rollout, to be used as ``async with``: leaving by an exception aborts it."""
        from cloudless.sdk.rollout import Rollout

        return Rollout(self.client, self._itself(), timeout_s=timeout_s)

    def logs(self, **options: Unpack[LogOptions]) -> LogStream:
        """What its replicas write, to be used as ``async with``."""
        return self.client.logs(self.name, namespace=self.namespace, **options)

    def exec(self, *command: str, **options: Unpack[ExecOptions]) -> ExecProcess:
        """A program (no shell) in a ready replica, to be used as ``async with``."""
        return self.client.open_exec(self.name, command, namespace=self.namespace, **options)

    async def execs(self, *, replica: str = "") -> Execs:
        """Programs that run in its replicas by exec, detached ones too."""
        return await self.client.execs(self.name, namespace=self.namespace, replica=replica)

    async def kill_exec(self, exec_id: str, *, signal: int = 0, grace_s: float | None = None) -> Exec:
        """End one of them, or send it a signal."""
        return await self.client.kill_exec(
            self.name, exec_id, namespace=self.namespace, signal=signal, grace_s=grace_s
        )

    def attach(self, **options: Unpack[AttachOptions]) -> ExecProcess:
        """A replica's own program, to be used as ``async with``."""
        return self.client.attach(self.name, namespace=self.namespace, **options)

    def forward(
        self,
        port: int,
        *,
        replica: str = "",
        host: str = "127.0.0.1",
        local_port: int = 0,
        on_error: OnError | None = None,
    ) -> Forward:
        """A local port that leads to a port of its replicas, to be used as ``async with``."""
        return self.client.forward(
            self.name,
            port,
            namespace=self.namespace,
            replica=replica,
            host=host,
            local_port=local_port,
            on_error=on_error,
        )

    def _itself(self) -> Workload:
        raise NotImplementedError

    async def pause(self) -> Workload:
        """No further step until resumed; what was begun is finished."""
        return await self.client.pause(self.name, namespace=self.namespace)

    async def resume(self) -> Workload:
        """Go on after ``pause``."""
        return await self.client.resume(self.name, namespace=self.namespace)

    async def promote(self, *, full: bool = False) -> Workload:
        """Go on from a wait for promotion; ``full`` leaves out all further canary steps."""
        return await self.client.promote(self.name, full=full, namespace=self.namespace)

    async def abort(self) -> Workload:
        """Go back to the last revision that was proved healthy."""
        return await self.client.abort(self.name, namespace=self.namespace)

    async def undo(self, to_revision: int = 0, *, message: str = "") -> Workload:
        """Make an older revision the newest; 0 is the newest earlier one that was proved healthy."""
        return await self.client.undo(self.name, to_revision, message=message, namespace=self.namespace)

    async def restart(self, *, pull: bool = False, message: str = "") -> Workload:
        """New replicas of the same specification; ``pull`` asks the registry what the tag means now."""
        return await self.client.restart(self.name, pull=pull, message=message, namespace=self.namespace)

    async def retry(self) -> Workload:
        """Try a failed, rolled back or aborted rollout again."""
        return await self.client.retry(self.name, namespace=self.namespace)

    async def history(self) -> Listed[Revision]:
        """The kept revisions with how their rollouts ended, newest first."""
        return await self.client.history(self.name, namespace=self.namespace)

    async def rollout_of(self, revision: int = 0) -> PastRollout:
        """One revision's rollout with its journal; the newest one's when 0."""
        return await self.client.rollout_of(self.name, revision, namespace=self.namespace)
