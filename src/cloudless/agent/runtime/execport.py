"""Programs beside a container's first process, in the words of the runtime's port (see ``port``)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A command to run in a container. ``output_limit_bytes`` is for each of stdout and stderr."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    stdin: bytes = b""
    timeout_s: float = 60.0
    output_limit_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How it ended: 127 and 126 as a shell says; 128 + n for signal n."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class ExecWish:
    """A program to run in a container with its input and output connected.

    ``size`` is (rows, columns) of a terminal. A detached one has no input and no output.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    stdin: bool = False
    tty: bool = False
    size: tuple[int, int] | None = None
    detach: bool = False


@dataclass(frozen=True, slots=True)
class ExecEnd:
    """How a program ended; ``out_of_memory``: it was killed while memory was wanting.

    ``with_container``: it was killed because its container ended.
    """

    exit_code: int
    out_of_memory: bool = False
    with_container: bool = False


@dataclass(frozen=True, slots=True)
class ExecFact:
    """What is known of a program beside a container's first process.

    ``pid`` is its number on the node, 0 when nobody knows it; ``argv`` is empty and ``started_at`` None
    for one whose record cannot be read.
    """

    exec_id: str
    container_id: str
    argv: tuple[str, ...] = ()
    user: str = ""
    tty: bool = False
    detached: bool = False
    started_at: datetime.datetime | None = None
    pid: int = 0


class Output(Protocol):
    """One output of a program that runs; what is not read holds the program back."""

    async def read(self) -> bytes:
        """What has come, empty at the end; waits while there is nothing."""
        ...


class RunningExec(Protocol):
    """A program that runs in a container; see ``Runtime.open_exec``.

    With a terminal there is no ``stderr``; a detached one has neither.
    """

    @property
    def exec_id(self) -> str:
        """Unique on this node."""
        ...

    @property
    def fact(self) -> ExecFact:
        """What it is; the same for as long as it runs."""
        ...

    @property
    def stdout(self) -> Output | None: ...

    @property
    def stderr(self) -> Output | None: ...

    async def write_stdin(self, data: bytes) -> None:
        """Waits while the program does not read. What it does not want any more is thrown away."""
        ...

    async def close_stdin(self) -> None:
        """No more input comes; again is no error."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size; without a terminal, or when it has ended, nothing happens."""
        ...

    async def signal(self, number: int) -> None:
        """Signal the program itself; nothing happens when it has ended."""
        ...

    async def end(self, grace_s: float | None = None) -> bool:
        """End it and all that it started: SIGTERM, a grace, SIGKILL. ``wait`` tells how it ended.

        Without ``grace_s`` the grace is 5 s. False when something of it lives all the same.
        """
        ...

    async def wait(self) -> ExecEnd:
        """Return when it has ended and its output was read. Raises ``RuntimeAway``, ``ContainerGone``."""
        ...


class Room(Protocol):
    """Where there may be no more room for what a command writes."""

    def take(self, wanted_bytes: int) -> int:
        """How many of these are to be kept."""
        ...


class AttachedInput(Protocol):
    """A container's own standard input, joined; see ``Runtime.attach``."""

    async def write(self, data: bytes) -> None:
        """Waits while the container does not read; what it does not want any more is thrown away."""
        ...

    async def end(self) -> None:
        """The container reads the end of its input, once nobody else is attached."""
        ...

    async def resize(self, rows: int, columns: int) -> None:
        """The terminal has another size; nothing happens when the container has ended."""
        ...
