"""Asking the kernel after a peer: whether its machine is there, not whether its process answers.

HTTP/2's own keepalive also ends a process that was only stopped; this does not, and is quicker.
``protocol`` calls it for connections whose calls asked to be watched.
"""

from __future__ import annotations

import socket

from cloudless.transport.limits import PEER_GONE_MS, PEER_IDLE_S, PEER_INTERVAL_S, PEER_TRIES


def watch(raw: socket.socket | None) -> None:
    """Have the kernel cut the connection when the peer's machine is gone; for TCP only."""
    if raw is None or raw.family not in (socket.AF_INET, socket.AF_INET6):
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, PEER_IDLE_S),
        (socket.TCP_KEEPINTVL, PEER_INTERVAL_S),
        (socket.TCP_KEEPCNT, PEER_TRIES),
        (socket.TCP_USER_TIMEOUT, PEER_GONE_MS),
    ):
        raw.setsockopt(socket.IPPROTO_TCP, option, value)
