"""What the headers of a request say, checked before anything runs.

``call`` asks for each new stream. A header block that no gRPC client sends is refused
with the HTTP status and the gRPC status that fit; nothing here touches a socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from grpclib.const import Handler as Method
from grpclib.const import Status

from cloudless.transport.errors import WireStatus, decode_bin
from cloudless.transport.stream import Headers

#: grpc-timeout: at most eight digits and a unit, as the gRPC protocol says.
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CONTENT_TYPES = frozenset({"application/grpc", "application/grpc+proto"})
#: Header fields that belong to the protocol, not to the caller.
_RESERVED = frozenset({"te", "content-type", "user-agent"})
#: Longest ``x-request-id`` that is taken over, in characters.
REQUEST_ID_CHARS = 128


class Refused(Exception):
    """A request that is answered at once; ``http_status`` is 200 but for broken HTTP."""

    def __init__(self, http_status: int, status: Status, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.status = WireStatus(status, message)


@dataclass(frozen=True)
class Request:
    """The checked head of a call; ``timeout_s`` is what the caller asked for, or None."""

    path: str
    method: Method
    timeout_s: float | None
    metadata: Mapping[str, str | bytes]
    user_agent: str


def read_request(headers: Headers, methods: Mapping[str, Method]) -> Request:
    """Check a header block; raises ``Refused``."""
    fields = dict(headers)
    if fields.get(":method") != "POST":
        raise Refused(405, Status.INVALID_ARGUMENT, "gRPC calls are POST requests")
    content_type = fields.get("content-type", "").partition(";")[0].strip()
    if content_type not in _CONTENT_TYPES:
        raise Refused(415, Status.INVALID_ARGUMENT, "content-type must be application/grpc or +proto")
    if fields.get("te") != "trailers":
        raise Refused(400, Status.INVALID_ARGUMENT, 'the header "te: trailers" is missing')
    path = fields.get(":path", "")
    method = methods.get(path)
    if method is None:
        raise Refused(200, Status.UNIMPLEMENTED, f"there is no method {path[:200]}")
    timeout_s = None
    if "grpc-timeout" in fields:
        timeout_s = read_timeout(fields["grpc-timeout"])
    return Request(path, method, timeout_s, _metadata(headers), fields.get("user-agent", ""))


def read_timeout(text: str) -> float:
    """Seconds of a ``grpc-timeout``; raises ``Refused``.

    >>> read_timeout("250m")
    0.25
    """
    match = _TIMEOUT.match(text)
    if match is None:
        raise Refused(200, Status.INVALID_ARGUMENT, "grpc-timeout must be up to 8 digits and a unit")
    return int(match[1]) * _UNIT_S[match[2]]


def _metadata(headers: Headers) -> dict[str, str | bytes]:
    """The caller's own fields; of a repeated one the last counts."""
    metadata: dict[str, str | bytes] = {}
    for name, value in headers:
        if name.startswith((":", "grpc-")) or name in _RESERVED:
            continue
        if not value.isascii():
            raise Refused(200, Status.INVALID_ARGUMENT, f"metadata {name[:64]!r} is not ASCII")
        if name.endswith("-bin"):
            try:
                metadata[name] = decode_bin(value)
            except ValueError:
                raise Refused(200, Status.INVALID_ARGUMENT, f"metadata {name[:64]!r} is not base64") from None
        else:
            metadata[name] = value
    return metadata


def request_id_of(metadata: Mapping[str, str | bytes], otherwise: str) -> str:
    """The caller's ``x-request-id``, if it sent a decent one."""
    given = metadata.get("x-request-id")
    if isinstance(given, str) and 0 < len(given) <= REQUEST_ID_CHARS and given.isprintable():
        return given
    return otherwise
