"""Where a server listens: addresses that are allowed, and what a new connection speaks.

One public port serves gRPC clients and nodes that dial in. ``SniffingProtocol`` looks at
the first bytes of a connection and hands it to the server's HTTP/2 protocol or to the
link handshake; to anything else it gives a short plain answer. It never parses further.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import cast

from cloudless.domain.errors import Fatal
from cloudless.transport.limits import LINK_LINE_BYTES, Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LINK_GREETING = b"CLOUDLESS-LINK/1 "
#: An HTTP/1.1 request line starts with one of these; the first letter is enough to differ.
_HTTP1 = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ")
_HTTP1_ANSWER_BODY = b"this port speaks gRPC (HTTP/2); the health page has a port of its own\n"
HTTP1_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n" % len(_HTTP1_ANSWER_BODY)
) + _HTTP1_ANSWER_BODY


class InsecureListen(Fatal):
    """Without TLS a server listens on loopback addresses only."""

    code = "CL-1002"


class AddressInUse(Fatal):
    """Another process (or another part of this one) listens there already."""

    code = "CL-1003"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"cannot listen on {host}:{port}: the address is in use",
            hint="stop what listens there, or choose another address",
        )
        self.host = host
        self.port = port


class CannotListen(Fatal):
    """The address is not one of this machine, or may not be used."""

    code = "CL-1004"


async def check_loopback(host: str) -> None:
    """Raise ``InsecureListen`` unless every address of ``host`` is a loopback one."""
    try:
        addresses = {host} if _is_address(host) else await _resolve(host)
    except OSError as error:
        raise CannotListen(f"cannot listen on {host}: {error}") from None
    for address in addresses:
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise InsecureListen(
                f"refusing to listen on {host} without TLS: whoever reaches it could control this machine",
                hint="listen on 127.0.0.1, or give a certificate",
            )


def listen_error(error: OSError, host: str, port: int) -> Fatal:
    """The error for a person when binding an address fails."""
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(host, port)
    if error.errno == errno.EADDRNOTAVAIL:
        return CannotListen(f"cannot listen on {host}:{port}: no such address on this machine")
    return CannotListen(f"cannot listen on {host}:{port}: {error.strerror or error}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def _resolve(host: str) -> set[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host or None, None, type=socket.SOCK_STREAM)
    return {cast(str, entry[4][0]) for entry in found}


class SniffingProtocol(asyncio.Protocol):
    """Reads until it knows who speaks; then ``to_http2`` or ``to_link`` takes over.

    Each gets the transport and the bytes read so far. ``to_link`` gets the first line
    without its greeting and newline; it is None when links are not welcome here.
    """

    def __init__(
        self,
        limits: Limits,
        to_http2: Callable[[asyncio.Transport, bytes], None],
        to_link: Callable[[asyncio.Transport, bytes], None] | None,
        gone: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._to_http2 = to_http2
        self._to_link = to_link
        self._gone = gone
        self._seen = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._handed_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._limits.handshake_s, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if self._handed_over or transport is None or transport.is_closing():
            return
        self._seen += data
        seen = bytes(self._seen)
        if seen.startswith(PREFACE):
            self._hand_over()
            self._to_http2(transport, seen)
        elif self._to_link is not None and seen.startswith(LINK_GREETING):
            line, newline, rest = seen.partition(b"\n")
            if newline and not rest:
                self._hand_over()
                self._to_link(transport, line[len(LINK_GREETING) :])
            elif newline or len(seen) > LINK_LINE_BYTES:
                transport.abort()
        elif not PREFACE.startswith(seen) and not LINK_GREETING.startswith(seen):
            if any(word.startswith(seen[: len(word)]) for word in _HTTP1):
                transport.write(HTTP1_ANSWER)
                transport.close()
            else:
                transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        if not self._handed_over:
            self._gone()

    def _hand_over(self) -> None:
        self._handed_over = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
