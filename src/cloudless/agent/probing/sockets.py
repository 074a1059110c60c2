"""Sockets inside replicas' network namespaces, made by one thread that steps in and out.

Whoever gets such a socket uses it on the event loop like any other: it stays in the
namespace where it was made.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future, ThreadPoolExecutor

from cloudless.agent.network import namespace
from cloudless.agent.probing.outcome import ProbeTarget


class ReplicaSockets:
    """Makes TCP sockets for probes and forwards; ``close`` ends its thread."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="probe-sockets")

    async def open(self, target: ProbeTarget, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """A non-blocking TCP socket where ``target`` is; raises ``OSError`` when its namespace is gone."""
        if target.netns_path is None:
            made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        else:
            kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
            work = self._worker.submit(namespace.open_socket, target.netns_path, family, kind)
            try:
                made = await asyncio.wrap_future(work)
            except asyncio.CancelledError:
                # The thread may be done with it all the same: then nobody else would close it.
                work.add_done_callback(_discard)
                raise
        made.setblocking(False)
        return made

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(wait=False)


def _discard(work: Future[socket.socket]) -> None:
    """Close a socket that nobody waits for any more."""
    if not work.cancelled() and work.exception() is None:
        work.result().close()
