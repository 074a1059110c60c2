"""The client's ways into replicas: what they write, programs run in them, their ports.

``client.Client`` builds on it.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from cloudless import api
from cloudless.sdk.logs import LogOptions, LogStream, logs_request
from cloudless.sdk.objects import Exec, ExecResult, Execs
from cloudless.sdk.reader import Reader

if TYPE_CHECKING:
    from cloudless.sdk.copying.copier import Copied, Copier, OnProgress
    from cloudless.sdk.exec import ExecProcess
    from cloudless.sdk.forward import Forward, OnError


class Inside(Reader):
    """Logs, exec and forwarded ports of workloads by name."""

    def logs(
        self,
        name: str = "",
        *,
        namespace: str | None = None,
        selector: str = "",
        **options: Unpack[LogOptions],
    ) -> LogStream:
        """What a workload's replicas write, or all workloads' that ``selector`` fits; use as ``async with``.

        ``options`` are those of ``LogOptions``. Without ``follow`` the stream ends when all is read.
        """
        space, short = (
            self._split(name, namespace) if name else (self.namespace if namespace is None else namespace, "")
        )
        request = logs_request(space, short, selector, options)
        return LogStream(self._call, request, options.get("on_connection"))

    async def exec(
        self,
        name: str,
        command: Sequence[str],
        *,
        namespace: str | None = None,
        replica: str = "",
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        output_limit_bytes: int = 0,
    ) -> ExecResult:
        """Run a program (no shell) in a ready replica and wait for its end.

        A program that ends badly is an answer, not an error. Never tried twice.
        """
        space, short = self._split(name, namespace)
        request = api.ExecCommandRequest(
            namespace=space,
            name=short,
            replica=replica,
            command=_words(command),
            env=dict(env or {}),
            working_dir=working_dir,
            user=user,
            timeout=datetime.timedelta(seconds=timeout_s),
            output_limit_bytes=output_limit_bytes,
            stdin=stdin,
        )
        with self._call.streams.lease() as channel:
            method = api.CoordinatorServiceStub(channel).exec_command
            return ExecResult(
                await self._call.unary(
                    method, request, timeout_s=timeout_s + self._timeout_s, repeatable=False
                )
            )

    def open_exec(
        self,
        name: str,
        command: Sequence[str],
        *,
        namespace: str | None = None,
        replica: str = "",
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
        stdin: bool = True,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        timeout_s: float | None = None,
    ) -> ExecProcess:
        """A program (no shell) in a ready replica, with its input and output; use it as ``async with``.

        Leaving the block ends the program and all that it started. ``size`` is (rows,
        columns) of a ``tty``; ``stdin`` False: it reads nothing.
        """
        from cloudless.sdk.exec import ExecProcess  # what a plain read need not pay for

        space, short = self._split(name, namespace)
        start = api.ExecStart(
            namespace=space,
            name=short,
            replica=replica,
            command=_words(command),
            env=dict(env or {}),
            working_dir=working_dir,
            user=user,
            stdin=stdin,
            tty=tty,
            size=None if size is None else api.TerminalSize(rows=size[0], columns=size[1]),
            timeout=None if timeout_s is None else datetime.timedelta(seconds=timeout_s),
        )
        return ExecProcess(self._call, "Exec", api.ExecRequest(start=start))

    def attach(
        self,
        name: str,
        *,
        namespace: str | None = None,
        replica: str = "",
        stdin: bool = True,
        size: tuple[int, int] | None = None,
        tail: int = 0,
    ) -> ExecProcess:
        """A replica's own program, whose specification asks for stdin or tty; use it as ``async with``.

        Output comes from its log: the last ``tail`` lines, and what it writes from now on.
        Leaving the block leaves the program as it is; ``stdin.close()`` ends its input for good.
        """
        from cloudless.sdk.exec import ExecProcess

        space, short = self._split(name, namespace)
        attach = api.AttachStart(
            namespace=space,
            name=short,
            replica=replica,
            stdin=stdin,
            size=None if size is None else api.TerminalSize(rows=size[0], columns=size[1]),
            tail_lines=tail,
        )
        return ExecProcess(self._call, "Attach", api.ExecRequest(attach=attach))

    async def exec_detached(
        self,
        name: str,
        command: Sequence[str],
        *,
        namespace: str | None = None,
        replica: str = "",
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
    ) -> api.ExecStarted:
        """Run a program without input and output, and leave it running until it ends by itself.

        Returns which replica it runs in, and its id. Raises ``CannotExecute`` when it cannot be run.
        """
        from cloudless.sdk.exec import CannotExecute, ExecProcess

        space, short = self._split(name, namespace)
        start = api.ExecStart(
            namespace=space,
            name=short,
            replica=replica,
            command=_words(command),
            env=dict(env or {}),
            working_dir=working_dir,
            user=user,
            detach=True,
        )
        async with ExecProcess(self._call, "Exec", api.ExecRequest(start=start)) as process:
            if process.started is None:
                end = await process.wait()
                raise CannotExecute(end.message, end.exit_code)
            return process.started

    async def execs(self, name: str = "", *, namespace: str | None = None, replica: str = "") -> Execs:
        """Programs that run by exec, detached ones too: of one workload, or of a namespace (``""``: of all).

        A node that cannot be asked is in ``failures`` of the answer.
        """
        space = self.namespace if namespace is None else namespace
        if name:
            space, name = self._split(name, namespace)
        request = api.ListExecsRequest(namespace=space, name=name, replica=replica)
        return Execs(await self._call.unary(self._stub.list_execs, request))

    async def kill_exec(
        self,
        name: str,
        exec_id: str,
        *,
        namespace: str | None = None,
        replica: str = "",
        signal: int = 0,
        grace_s: float | None = None,
    ) -> Exec:
        """End a program that runs by exec with all that it started: SIGTERM, ``grace_s`` (5), SIGKILL.

        ``exec_id`` may be the first letters of its id. With ``signal`` the program itself gets that,
        and nothing else happens. Raises ``NotFound``, ``Unavailable`` when its node is away.
        """
        space, short = self._split(name, namespace)
        request = api.KillExecRequest(
            namespace=space,
            name=short,
            replica=replica,
            exec_id=exec_id,
            signal=signal,
            grace_period=None if grace_s is None else datetime.timedelta(seconds=grace_s),
        )
        answer = await self._call.unary(
            self._stub.kill_exec, request, timeout_s=(grace_s or 0.0) + self._timeout_s, repeatable=False
        )
        return Exec(answer.exec)

    def forward(
        self,
        name: str,
        port: int,
        *,
        namespace: str | None = None,
        replica: str = "",
        host: str = "127.0.0.1",
        local_port: int = 0,
        on_error: OnError | None = None,
    ) -> Forward:
        """A local port that leads to ``port`` of a replica; use it as ``async with``.

        A ready replica is chosen for each connection, or ``replica`` (its ordinal or id).
        ``local_port`` 0 is any that is free: the block's ``address`` says which. Failed
        connections are cut; ``on_error(peer, error)`` hears why. Entering raises
        ``AddressInUse`` or ``CannotListen``.
        """
        from cloudless.sdk.forward import Forward  # what a plain read need not pay for

        space, short = self._split(name, namespace)
        target = api.ForwardTarget(namespace=space, name=short, replica=replica, port=port)
        return Forward(
            self._call,
            self._new_channel,
            target,
            host=host,
            port=local_port,
            on_error=on_error,
        )

    async def copy_from(
        self,
        name: str,
        path: str,
        local: str,
        *,
        namespace: str | None = None,
        replica: str = "",
        max_bytes: int | None = None,
        all_links: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Copied:
        """Copy a file or a folder out of a ready replica, whose image has to have ``tar``.

        Nothing is ever written outside of where ``local`` says, whatever the replica sends:
        what would be (and what is no file, folder or link) is in ``left_out`` of the answer.
        Links that lead out are made with ``all_links`` only. Raises ``Exhausted`` beyond
        ``max_bytes`` (10 GiB), ``NotFound``, ``NoTar``, ``CopyFailed``, ``OSError``.
        """
        from cloudless.sdk.copying.limits import MAX_BYTES

        copier = self._copier(name, namespace, replica, on_progress)
        limit = MAX_BYTES if max_bytes is None else max_bytes
        return await copier.download(path, local, max_bytes=limit, all_links=all_links)

    async def copy_to(
        self,
        name: str,
        local: str,
        path: str,
        *,
        namespace: str | None = None,
        replica: str = "",
        on_progress: OnProgress | None = None,
    ) -> Copied:
        """Copy a local file or folder into a ready replica; whole under its name, or not at all.

        A folder that is there already is filled file by file. Raises as ``copy_from``.
        """
        return await self._copier(name, namespace, replica, on_progress).upload(local, path)

    async def read_archive(
        self, name: str, path: str, *, namespace: str | None = None, replica: str = ""
    ) -> AsyncGenerator[bytes, None]:
        """The tar archive of a path in a ready replica, unchecked; close it with ``aclosing``."""
        from contextlib import aclosing

        async with aclosing(self._copier(name, namespace, replica, None).export(path)) as pieces:
            async for piece in pieces:
                yield piece

    async def write_archive(
        self,
        name: str,
        pieces: AsyncIterator[bytes],
        path: str,
        *,
        namespace: str | None = None,
        replica: str = "",
        on_progress: OnProgress | None = None,
    ) -> None:
        """Unpack a tar archive in a folder of a ready replica; uncompressed, or as its tar takes it."""
        await self._copier(name, namespace, replica, on_progress).restore(pieces, path)

    def _copier(
        self, name: str, namespace: str | None, replica: str, on_progress: OnProgress | None
    ) -> Copier:
        from cloudless.sdk.copying.copier import Copier  # what a plain read need not pay for

        return Copier(self, name, namespace=namespace, replica=replica, on_progress=on_progress)


def _words(command: Sequence[str]) -> list[str]:
    """A program and its arguments; raises ``TypeError`` for a text, which no shell takes apart."""
    if isinstance(command, str) or not all(isinstance(word, str) for word in command):
        raise TypeError(f"a command is a list of words, each a str, and this is {command!r}")
    return list(command)
