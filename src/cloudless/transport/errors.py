"""Domain errors <-> gRPC statuses, both ways, with google.rpc details.

Servers call ``status_of`` on whatever a handler raised, clients ``error_of`` on whatever
came back, so that services, SDK and roles only ever meet ``CloudlessError``. What is not
a known error is a bug: it becomes INTERNAL with no word of its insides, never UNKNOWN.
"""

from __future__ import annotations

import binascii
import errno
from base64 import b64decode, b64encode
from dataclasses import dataclass

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from cloudless.domain import errors as domain
from cloudless.domain.errors import CloudlessError, FieldViolation, Unavailable
from cloudless.transport.limits import (
    STATUS_DETAIL_BYTES,
    STATUS_HINT_BYTES,
    STATUS_MESSAGE_BYTES,
    STATUS_VIOLATIONS,
)
from cloudless.transport.rpcstatus import Details, decode_details, encode_status

#: The ``domain`` of our ErrorInfo details.
ERROR_DOMAIN = "cloudless"
#: Key of ErrorInfo's metadata under which the hint travels.
HINT_KEY = "hint"

_STATUS_OF: tuple[tuple[type[CloudlessError], Status], ...] = (
    (domain.Invalid, Status.INVALID_ARGUMENT),
    (domain.NotFound, Status.NOT_FOUND),
    (domain.AlreadyExists, Status.ALREADY_EXISTS),
    (domain.Conflict, Status.ABORTED),
    (domain.PreconditionFailed, Status.FAILED_PRECONDITION),
    (domain.Exhausted, Status.RESOURCE_EXHAUSTED),
    (domain.Denied, Status.PERMISSION_DENIED),
    (domain.OutOfRange, Status.OUT_OF_RANGE),
    (domain.Unavailable, Status.UNAVAILABLE),
    (domain.DeadlineExceeded, Status.DEADLINE_EXCEEDED),
    (domain.Fatal, Status.INTERNAL),
)
_CLASS_OF: dict[Status, type[CloudlessError]] = {status: kind for kind, status in _STATUS_OF}
_CLASS_OF[Status.UNIMPLEMENTED] = domain.Invalid
_CLASS_OF[Status.UNAUTHENTICATED] = domain.Denied
_CLASS_OF[Status.CANCELLED] = domain.Unavailable


class NotSupported(domain.Invalid):
    """The peer does not have this method (UNIMPLEMENTED): usually an older version."""

    code = "CL-4005"


class InternalError(CloudlessError):
    """The peer met a bug of its own (INTERNAL); its log says more."""

    code = "CL-5001"


@dataclass(frozen=True)
class WireStatus:
    """How a call ends: code, message for a person, serialized google.rpc.Status or nothing.

    ``unexpected`` marks a bug, which the server logs with its traceback.
    """

    status: Status
    message: str = ""
    details: bytes = b""
    unexpected: bool = False

    def trailers(self) -> list[tuple[str, str]]:
        """The trailer fields of this status."""
        fields = [("grpc-status", str(self.status.value))]
        if self.message:
            fields.append(("grpc-message", percent_encode(self.message)))
        if self.details:
            fields.append(("grpc-status-details-bin", b64encode(self.details).rstrip(b"=").decode()))
        return fields


OK = WireStatus(Status.OK)
INTERNAL = WireStatus(Status.INTERNAL, "internal error; the server's log says more", unexpected=True)


def status_of(error: BaseException) -> WireStatus:
    """The status for what a handler raised.

    >>> status_of(domain.NotFound("workload default/web does not exist")).status
    <Status.NOT_FOUND: 5>
    >>> status_of(KeyError("secret")).message
    "internal error; the server's log says more"
    >>> status_of(OSError(errno.ENOSPC, "No space left on device")).status
    <Status.RESOURCE_EXHAUSTED: 8>
    """
    if isinstance(error, CloudlessError):
        return _status_of_domain(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _status_of_domain(domain.Exhausted("no space is left on the disk of this machine"))
    if isinstance(error, GRPCError) and error.status is not Status.UNKNOWN:
        text = error.message or error.status.name.lower().replace("_", " ")
        return WireStatus(error.status, _cut(text))
    return INTERNAL


def _status_of_domain(error: CloudlessError) -> WireStatus:
    status = Status.UNIMPLEMENTED if isinstance(error, NotSupported) else Status.INTERNAL
    if status is Status.INTERNAL:
        status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), Status.INTERNAL)
    violations: list[tuple[str, str]] = []
    room = STATUS_DETAIL_BYTES
    for path, description in getattr(error, "violations", ())[:STATUS_VIOLATIONS]:
        room -= len(path.encode("utf-8", "replace")) + len(description.encode("utf-8", "replace")) + 16
        if room < 0:
            break
        violations.append((path, description))
    details = Details(
        reason=error.code,
        domain=ERROR_DOMAIN,
        metadata={HINT_KEY: _cut(error.hint, STATUS_HINT_BYTES)} if error.hint else {},
        violations=tuple(violations),
        retry_after_s=error.retry_after_s if isinstance(error, Unavailable) else None,
    )
    message = _cut(error.message)
    return WireStatus(status, message, encode_status(status.value, message, details))


def error_of(status: Status, message: str, details: Details | None = None) -> CloudlessError:
    """The domain error for a status that a peer sent; never OK.

    >>> error_of(Status.ABORTED, "changed meanwhile")
    Conflict('changed meanwhile')
    """
    details = details or Details()
    kind = _CLASS_OF.get(status, InternalError)
    text = message or status.name.lower().replace("_", " ")
    hint = details.metadata.get(HINT_KEY, "")
    code = details.reason if details.domain == ERROR_DOMAIN else None
    if status is Status.UNIMPLEMENTED:
        return NotSupported(text, hint=hint, code=code)
    if kind is domain.Invalid:
        violations = tuple(FieldViolation(path, what) for path, what in details.violations)
        return domain.Invalid(text, violations=violations, hint=hint, code=code)
    if kind is Unavailable:
        after_s = details.retry_after_s if details.retry_after_s is not None else 1.0
        return Unavailable(text, hint=hint, code=code, retry_after_s=after_s)
    if kind is domain.Fatal:
        kind = InternalError
    return kind(text, hint=hint, code=code)


def error_of_trailers(trailers: dict[str, str]) -> CloudlessError | None:
    """The error in a call's last header block, or None when it says OK."""
    try:
        status = Status(int(trailers.get("grpc-status", "")))
    except ValueError:
        return InternalError("the peer answered without a valid gRPC status")
    if status is Status.OK:
        return None
    details = Details()
    packed = trailers.get("grpc-status-details-bin")
    if packed:
        try:
            details = decode_details(decode_bin(packed))
        except ValueError:
            details = Details()
    return error_of(status, percent_decode(trailers.get("grpc-message", "")), details)


def decode_bin(value: str) -> bytes:
    """The bytes of a ``-bin`` header, padded or not; ``ValueError`` when it is not base64.

    >>> decode_bin("YWI")
    b'ab'
    """
    text = value.encode("ascii")
    if not text:
        return b""
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}


def percent_encode(text: str) -> str:
    """``grpc-message`` on the wire: printable ASCII, all else as %XX of its UTF-8 bytes.

    >>> percent_encode("50 % ü")
    '50 %25 %C3%BC'
    """
    return "".join(
        chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "replace")
    )


def percent_decode(text: str) -> str:
    """The text of a ``grpc-message``; bytes that are not UTF-8 are replaced.

    >>> percent_decode("50 %25 %C3%BC")
    '50 % ü'
    """
    from urllib.parse import unquote

    return unquote(text, errors="replace")


def _cut(text: str, limit: int = STATUS_MESSAGE_BYTES) -> str:
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "..."
