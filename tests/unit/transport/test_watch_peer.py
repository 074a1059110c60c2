"""A peer whose machine is gone is noticed within seconds, when a call asks for that."""

from __future__ import annotations

import socket
from typing import Any

from cloudless.transport import limits
from cloudless.transport.context import watch_peer


def test_outside_of_a_call_nothing_happens() -> None:
    watch_peer()


class Transport:
    """A socket's transport, as far as watching needs one."""

    def __init__(self, raw: socket.socket | None) -> None:
        self.raw = raw

    def get_extra_info(self, name: str) -> Any:
        return self.raw


def connection(raw: socket.socket | None) -> Any:
    from cloudless.transport.protocol import GuardedConnection

    made = GuardedConnection.__new__(GuardedConnection)
    made._socket = Transport(raw)  # type: ignore[assignment]
    made._watched = False
    return made


def test_the_kernel_asks_after_the_peer() -> None:
    with socket.socket() as raw:
        connection(raw).watch_peer()

        def option(number: int) -> int:
            return raw.getsockopt(socket.IPPROTO_TCP, number)

        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked_s = option(socket.TCP_KEEPIDLE) + option(socket.TCP_KEEPINTVL) * option(socket.TCP_KEEPCNT)
        assert asked_s <= 4
        assert option(socket.TCP_USER_TIMEOUT) == limits.PEER_GONE_MS <= 4000


def test_a_unix_socket_needs_no_watching() -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        connection(raw).watch_peer()
        assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    connection(None).watch_peer()
