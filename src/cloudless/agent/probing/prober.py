"""``Prober``: one attempt of any kind of probe, in bounded time, never raising.

Called by the replica's life when ``planning.probes`` says so. The answer tells what was
seen in words of ours; nothing that the replica sent is repeated to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from socket import socket

from cloudless.agent.probing.grpc_probe import probe_grpc
from cloudless.agent.probing.http_probe import probe_http
from cloudless.agent.probing.outcome import ProbeOutcome, ProbeTarget, RunCommand
from cloudless.agent.probing.sockets import ReplicaSockets
from cloudless.domain.errors import CloudlessError
from cloudless.domain.probes import Probe

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to the replica",
    errno.ENETUNREACH: "no route to the replica",
    errno.ENOENT: "the replica's network is gone",
}


class Prober:
    """Probes the replicas of one node; belongs to one running loop. ``close`` it."""

    def __init__(self) -> None:
        self._sockets = ReplicaSockets()

    async def attempt(self, probe: Probe, target: ProbeTarget, run: RunCommand) -> ProbeOutcome:
        """Carry out ``probe`` once, within its timeout; only cancelling raises.

        ``run`` executes a command in the replica; it is cancelled when the time is up, and
        must end the command then.
        """
        timeout_s = probe.timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout_s) as clock:
                return await self._attempt(probe, target, run, timeout_s)
        except TimeoutError:
            if clock.expired():
                return ProbeOutcome(False, f"timed out after {timeout_s:g}s")
            return ProbeOutcome(False, "timed out")
        except OSError as error:
            words = _WORDS.get(error.errno or 0) or os.strerror(error.errno or errno.EIO).lower()
            return ProbeOutcome(False, words)
        except CloudlessError as error:
            return ProbeOutcome(False, error.message)

    def close(self) -> None:
        """End the thread that makes sockets."""
        self._sockets.close()

    async def _attempt(
        self, probe: Probe, target: ProbeTarget, run: RunCommand, timeout_s: float
    ) -> ProbeOutcome:
        if probe.exec is not None:
            code = await run(probe.exec.command)
            return ProbeOutcome(code == 0, f"exit code {code}")
        if probe.http is not None:
            async with self._connected(target, probe.http.port) as connected:
                return await probe_http(probe.http, target.address, connected)
        if probe.tcp is not None:
            async with self._connected(target, probe.tcp.port):
                return ProbeOutcome(True, "connected")
        assert probe.grpc is not None, "a probe has one action"
        async with self._connected(target, probe.grpc.port) as connected:
            return await probe_grpc(probe.grpc, target.address, connected, timeout_s)

    @contextlib.asynccontextmanager
    async def _connected(self, target: ProbeTarget, port: int) -> AsyncIterator[socket]:
        with await self._sockets.open(target) as made:
            await asyncio.get_running_loop().sock_connect(made, (target.address, port))
            yield made
