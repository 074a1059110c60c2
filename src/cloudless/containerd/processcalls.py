"""The calls about one executed process: thin, typed, with sorted errors; see ``process``."""

from __future__ import annotations

from cloudless.api.containerd.services.tasks.v1 import (
    CloseIoRequest,
    DeleteProcessRequest,
    ExecProcessRequest,
    GetRequest,
    KillRequest,
    ResizePtyRequest,
    StartRequest,
    TasksStub,
    WaitRequest,
)
from cloudless.api.google.protobuf import Any as AnyMessage
from cloudless.containerd import limits
from cloudless.containerd.rpc import Connection
from cloudless.containerd.tasks import Exit, known_time

PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"


class ProcessCalls:
    """All take the container's id and the process' own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = connection.stub(TasksStub)

    async def add(
        self,
        container_id: str,
        exec_id: str,
        spec: bytes,
        *,
        stdin: str,
        stdout: str,
        stderr: str,
        terminal: bool,
    ) -> None:
        """Prepare a process from an OCI process in JSON; empty paths mean no such stream.

        Raises ``NotFound``, ``AlreadyExists``, ``PreconditionFailed`` (the container ended).
        """
        await self._connection.call(
            self._stub.exec,
            ExecProcessRequest(
                container_id=container_id,
                exec_id=exec_id,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                terminal=terminal,
                spec=AnyMessage(type_url=PROCESS_TYPE, value=spec),
            ),
            about=f"exec {container_id}/{exec_id}",
        )

    async def start(self, container_id: str, exec_id: str) -> int:
        """Run it; returns its pid on the node. Raises ``CommandNotFound``, ``CommandNotExecutable``."""
        answer = await self._connection.call(
            self._stub.start,
            StartRequest(container_id=container_id, exec_id=exec_id),
            about=f"exec {container_id}/{exec_id}",
            timeout_s=limits.TASK_CREATE_TIMEOUT_S,
        )
        return answer.pid

    async def wait_exit(self, container_id: str, exec_id: str) -> Exit:
        """Return when the process has ended; its output may still be on its way."""
        answer = await self._connection.call(
            self._stub.wait,
            WaitRequest(container_id=container_id, exec_id=exec_id),
            about=f"wait for {container_id}/{exec_id}",
            timeout_s=None,
        )
        return Exit(answer.exit_status, known_time(answer.exited_at))

    async def delete(self, container_id: str, exec_id: str) -> None:
        """Forget an ended process. Raises ``NotFound``, ``PreconditionFailed`` (it runs)."""
        await self._connection.call(
            self._stub.delete_process,
            DeleteProcessRequest(container_id=container_id, exec_id=exec_id),
            about=f"delete {container_id}/{exec_id}",
            timeout_s=limits.TASK_DELETE_TIMEOUT_S,
        )

    async def kill(self, container_id: str, exec_id: str, number: int) -> None:
        """Signal the process alone. Raises ``NotFound``."""
        await self._connection.call(
            self._stub.kill,
            KillRequest(container_id=container_id, exec_id=exec_id, signal=number),
            about=f"kill {container_id}/{exec_id}",
        )

    async def resize(self, container_id: str, exec_id: str, *, rows: int, columns: int) -> None:
        """Set its terminal's size; has an effect only once it runs. Raises ``NotFound``."""
        await self._connection.call(
            self._stub.resize_pty,
            ResizePtyRequest(container_id=container_id, exec_id=exec_id, width=columns, height=rows),
            about=f"resize {container_id}/{exec_id}",
        )

    async def close_io(self, container_id: str, exec_id: str) -> None:
        """Close the shim's hold on the input. Raises ``NotFound``."""
        await self._connection.call(
            self._stub.close_io,
            CloseIoRequest(container_id=container_id, exec_id=exec_id, stdin=True),
            about=f"close input of {container_id}/{exec_id}",
        )

    async def pid(self, container_id: str, exec_id: str) -> int | None:
        """Its number on the node, once it was started. Raises ``NotFound``."""
        answer = await self._connection.call(
            self._stub.get,
            GetRequest(container_id=container_id, exec_id=exec_id),
            about=f"get {container_id}/{exec_id}",
        )
        return answer.process.pid or None if answer.process is not None else None
