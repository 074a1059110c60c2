"""One grpc.health.v1 check of a replica, on the project's guarded HTTP/2 channel.

The two messages have one field each, so they are written and read here: protobuf's
own classes would cost 10 MiB.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import Self

from grpclib.const import Cardinality

from cloudless.agent.probing.limits import GRPC_ANSWER_BYTES
from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.domain.errors import CloudlessError, Unavailable
from cloudless.domain.probes import GrpcProbe
from cloudless.transport.channel import ClientHandler, GuardedChannel
from cloudless.transport.limits import CLIENT
from cloudless.transport.protocol import GuardedProtocol

_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = 1
_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_LIMITS = dataclasses.replace(CLIENT, message_bytes=GRPC_ANSWER_BYTES)


@dataclasses.dataclass(frozen=True)
class Question:
    """``HealthCheckRequest``: field 1 is the service's name."""

    service: str

    def SerializeToString(self) -> bytes:  # noqa: N802 - the codec's word for it
        """The message on the wire; names are at most 256 characters.

        >>> Question("web").SerializeToString()
        b'\\n\\x03web'
        """
        name = self.service.encode()
        length = len(name)
        size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        return b"\n" + size + name if name else b""


@dataclasses.dataclass(frozen=True)
class Answer:
    """``HealthCheckResponse``: field 1 is the status, absent when it is 0."""

    status: int

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802
        """Read the message; what is none counts as UNKNOWN.

        >>> Answer.FromString(b"\\x08\\x01").status, Answer.FromString(b"").status
        (1, 0)
        """
        return cls(data[1] if len(data) >= 2 and data[0] == 8 and data[1] < 128 else 0)


class _Channel(GuardedChannel):
    """A channel over one socket that is connected already."""

    def __init__(self, address: str, connected: socket.socket) -> None:
        super().__init__(address, authority=address, limits=_LIMITS)
        self._connected_socket = connected
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Let go of the connection at once, also of one that was never answered."""
        self.close()
        if self._transport is not None:
            self._transport.abort()

    async def _create_connection(self) -> GuardedProtocol:
        self._transport, protocol = await asyncio.get_running_loop().create_connection(
            lambda: GuardedProtocol(ClientHandler(), self.limits, server=False), sock=self._connected_socket
        )
        if not await protocol.opened():
            raise Unavailable("it closed the connection")
        return protocol


async def probe_grpc(
    probe: GrpcProbe, address: str, connected: socket.socket, timeout_s: float
) -> ProbeOutcome:
    """Ask over ``connected``, which the call takes over."""
    channel = _Channel(f"{address}:{probe.port}", connected)
    try:
        call = channel.request(_METHOD, Cardinality.UNARY_UNARY, Question, Answer, timeout=timeout_s)
        async with call:
            await call.send_message(Question(probe.service), end=True)
            answer: Answer | None = await call.recv_message()
    except CloudlessError as error:
        return ProbeOutcome(False, f"no health answer ({type(error).__name__})")
    finally:
        channel.abort()
    status = answer.status if answer is not None else 0
    return ProbeOutcome(status == _SERVING, _NAMES.get(status, f"status {status}"))
