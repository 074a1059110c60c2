"""``Dialler``: a TCP connection to a port of a replica, made in the replica's own network.

What listens on the replica's 127.0.0.1 alone is reached as well as what listens on its
address or on ``::1``. Nothing else ever is: no name is looked up, and no address but these
three is dialled. A replica in the host's network is reached at the node's address.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterator

from cloudless.agent.forwarding.limits import CONNECT_TIMEOUT_S, RECEIVE_BUFFER_BYTES
from cloudless.agent.probing.outcome import ProbeTarget
from cloudless.agent.probing.sockets import ReplicaSockets
from cloudless.domain.errors import PreconditionFailed, Unavailable

_LOOPBACK, _LOOPBACK_6 = "127.0.0.1", "::1"
#: Nobody listens there, or the replica lacks that kind of address.
_NOT_THERE = frozenset({errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH})
#: ``SO_LINGER`` on, for no time: closing resets the connection.
_NO_LINGER = struct.pack("ii", 1, 0)


class ConnectionRefused(PreconditionFailed):
    """Nothing in the replica listens on the port."""

    code = "CL-6201"


class Dialler:
    """Makes sockets in replicas' networks; ``close`` ends its thread."""

    def __init__(self) -> None:
        self._sockets = ReplicaSockets()

    async def dial(self, target: ProbeTarget, port: int, replica: str) -> socket.socket:
        """A connected, non-blocking socket; ``replica`` is its name in errors.

        Raises ``ConnectionRefused``, and ``Unavailable`` when the replica does not accept in
        time or its network is gone.
        """
        refused = ConnectionRefused(
            f"connection refused: nothing listens on port {port} in replica {replica}",
            hint="look at the ports that its program listens on",
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                for family, address in _places(target):
                    made = await self._connect(target, family, (address, port))
                    if made is not None:
                        return made
        except TimeoutError:
            raise Unavailable(
                f"replica {replica} did not accept a connection to port {port} "
                f"within {CONNECT_TIMEOUT_S:g} s",
                hint="its program may be busy or stuck: look at its logs",
            ) from None
        except OSError as error:
            why = (error.strerror or os.strerror(error.errno or errno.EIO)).lower()
            raise Unavailable(f"cannot reach port {port} of replica {replica}: {why}") from None
        raise refused

    def close(self) -> None:
        """End the thread that makes sockets."""
        self._sockets.close()

    async def _connect(
        self, target: ProbeTarget, family: socket.AddressFamily, where: tuple[str, int]
    ) -> socket.socket | None:
        """None when nothing is there; raises ``OSError``."""
        made: socket.socket | None = None
        try:
            made = await self._sockets.open(target, family)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            await asyncio.get_running_loop().sock_connect(made, where)
        except OSError as error:
            if made is not None:
                made.close()
            if error.errno in _NOT_THERE:
                return None
            raise
        except BaseException:
            if made is not None:
                made.close()
            raise
        return made


def reset(connection: socket.socket) -> None:
    """Close a connection so that the other end learns that it was cut, not ended."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    except OSError:
        connection.close()  # it is dead already
        return
    connection.close()


def _places(target: ProbeTarget) -> Iterator[tuple[socket.AddressFamily, str]]:
    """Where a program of the replica may listen, the most likely first.

    >>> [address for _, address in _places(ProbeTarget("10.1.0.2", "/run/netns/a"))]
    ['127.0.0.1', '10.1.0.2', '::1']
    """
    if target.netns_path is not None:
        yield socket.AF_INET, _LOOPBACK
    yield socket.AF_INET, target.address
    if target.netns_path is not None:
        yield socket.AF_INET6, _LOOPBACK_6
