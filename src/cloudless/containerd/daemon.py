"""A containerd of our own: for nodes that run none, or where ours shall stand apart.

It outlives us: it runs in its own session, and after our crash the next ``start``
adopts it, with everything that runs under it. It ends only when ``stop`` is called.
Everything it writes lies in one folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pathlib
import shutil
import signal
import socket
import struct
from collections.abc import Callable

from cloudless.aio.clock import Clock
from cloudless.containerd import limits
from cloudless.containerd.client import DEFAULT_NAMESPACE, ask_version
from cloudless.containerd.daemonconfig import (
    MAX_SOCKET_PATH,
    DaemonLayout,
    daemon_environment,
    render_config,
)
from cloudless.containerd.errors import Failed, InvalidRequest, Unavailable
from cloudless.containerd.rpc import Connection

log = logging.getLogger(__name__)

SHOWN_LOG_BYTES = 2048


class PrivateDaemon:
    """One private containerd in ``folder``; ``oom_score`` as in /proc/PID/oom_score_adj."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        clock: Clock,
        oom_score: int | None = None,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self.layout = DaemonLayout(folder.absolute())
        self._clock = clock
        self._oom_score = oom_score
        self._which = which
        self._pid: int | None = None

    @property
    def socket(self) -> pathlib.Path:
        """Where it listens."""
        return self.layout.socket

    @property
    def pid(self) -> int | None:
        """The daemon's process, once started or adopted."""
        return self._pid

    async def start(self, *, timeout_s: float = limits.DAEMON_START_TIMEOUT_S) -> bool:
        """Return when it answers; ``True`` when it was running already and is adopted.

        One that runs but does not answer is ended first; its containers go on. Raises
        ``InvalidRequest`` (no binary, path too long), ``Failed`` with the end of its log.
        """
        if len(str(self.socket)) > MAX_SOCKET_PATH:
            raise InvalidRequest(
                f"{self.socket} is longer than {MAX_SOCKET_PATH} bytes: too long for a socket"
            )
        binary = self._which("containerd")
        if binary is None:
            raise InvalidRequest("containerd is not installed")
        self._pid = self._running()
        if self._pid is not None:
            if await self._answers(timeout_s):
                log.info("adopted the private containerd", extra={"pid": self._pid})
                return True
            log.warning("the private containerd does not answer, ending it", extra={"pid": self._pid})
            await self._end(signal.SIGKILL)
        self._spawn(binary)
        if not await self._answers(timeout_s):
            ended = self._pid is None or not _alive(self._pid)
            what = "ended" if ended else f"did not answer within {timeout_s:g} s"
            await self._end(signal.SIGKILL)
            raise Failed(f"containerd {what}; its log ends with: {self._log_end()}")
        log.info("started a private containerd", extra={"pid": self._pid})
        return False

    async def wait(self) -> None:
        """Return when the daemon has ended, whoever ended it."""
        if self._pid is not None:
            await _wait_gone(self._pid)

    async def stop(self, *, timeout_s: float = limits.DAEMON_STOP_TIMEOUT_S) -> None:
        """End it: SIGTERM, and SIGKILL after the deadline. Containers that run go on."""
        if self._pid is None:
            self._pid = self._running()
        try:
            async with asyncio.timeout(timeout_s):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            await self._end(signal.SIGKILL)
        for path in (self.layout.pid, self.socket, pathlib.Path(f"{self.socket}.ttrpc")):
            path.unlink(missing_ok=True)

    def rotate_log(self) -> None:
        """Keep one old log once the present one is over its limit. Cheap: call it now and then."""
        with contextlib.suppress(FileNotFoundError):
            if self.layout.log.stat().st_size > limits.DAEMON_LOG_BYTES:
                # The daemon keeps the file open (for appending), so it is copied and emptied.
                shutil.copyfile(self.layout.log, self.layout.log.with_suffix(".log.1"))
                os.truncate(self.layout.log, 0)

    def _spawn(self, binary: str) -> None:
        layout = self.layout
        for folder in (layout.folder, layout.folder / "cni", layout.registries):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout.config.write_text(render_config(layout, oom_score=self._oom_score))
        layout.socket.unlink(missing_ok=True)
        self.rotate_log()
        append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._pid = os.posix_spawn(
            binary,
            [binary, "--config", str(layout.config)],
            daemon_environment(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(layout.log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        layout.pid.write_text(f"{self._pid}\n")

    def _running(self) -> int | None:
        """The pid of our daemon if one runs: whoever listens, or whom the pid file names."""
        listener = _listener(self.socket)
        candidates = [listener] if listener is not None else []
        with contextlib.suppress(FileNotFoundError, ValueError):
            candidates.append(int(self.layout.pid.read_text()))
        wanted = os.fsencode(self.layout.config)
        for pid in candidates:
            with contextlib.suppress(OSError):
                if wanted in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        return None

    async def _answers(self, timeout_s: float) -> bool:
        deadline_s = self._clock.monotonic() + timeout_s
        connection = Connection(str(self.socket), namespace=DEFAULT_NAMESPACE, codec=None)
        try:
            while (left_s := deadline_s - self._clock.monotonic()) > 0:
                if self._pid is None or not _alive(self._pid):
                    return False
                try:
                    await ask_version(connection, timeout_s=left_s)
                except Unavailable:
                    await self._clock.sleep(limits.DAEMON_POLL_S)
                else:
                    return True
        finally:
            connection.close()
        return False

    async def _end(self, number: int) -> None:
        if self._pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
        await _wait_gone(self._pid)
        self._pid = None

    def _log_end(self) -> str:
        try:
            text = self.layout.log.read_bytes()[-SHOWN_LOG_BYTES:]
        except OSError:
            return "(no log)"
        return text.decode(errors="replace").strip() or "(nothing)"


def _listener(path: pathlib.Path) -> int | None:
    """The process that listens on a unix socket, if any does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _alive(pid: int) -> bool:
    """Whether a process runs; one that is our child and has ended is buried."""
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return pathlib.Path(f"/proc/{pid}").exists()
    return ended == 0


async def _wait_gone(pid: int) -> None:
    """Return when a process, child or not, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    _alive(pid)
