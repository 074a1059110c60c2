"""Errors over the wire and back: nothing lost, nothing told that is not meant to be."""

from __future__ import annotations

import asyncio

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from cloudless.domain import errors as domain
from cloudless.domain.errors import CloudlessError, FieldViolation, Invalid, NotFound, Unavailable
from cloudless.transport.errors import (
    OK,
    InternalError,
    NotSupported,
    error_of_trailers,
    percent_decode,
    percent_encode,
    status_of,
)
from cloudless.transport.limits import STATUS_MESSAGE_BYTES, STATUS_VIOLATIONS
from cloudless.transport.rpcstatus import Details, decode_details, encode_status

ERRORS = [
    Invalid(
        violations=(FieldViolation("spec.image", "is missing"), FieldViolation("name", "too long")), hint="h"
    ),
    Invalid("no"),
    NotFound("gone", hint="look elsewhere", code="CL-4041"),
    domain.AlreadyExists("there"),
    domain.Conflict("changed"),
    domain.PreconditionFailed("not paused"),
    domain.Exhausted("full"),
    domain.Denied("no"),
    domain.OutOfRange("too old"),
    Unavailable("no leader", retry_after_s=2.5),
    domain.DeadlineExceeded("late"),
    NotSupported("old"),
]


def over_the_wire(error: BaseException) -> CloudlessError:
    back = error_of_trailers(dict(status_of(error).trailers()))
    assert back is not None
    return back


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_domain_errors_come_back_whole(error: CloudlessError) -> None:
    back = over_the_wire(error)
    assert type(back) is type(error)
    assert (back.message, back.hint, back.code) == (error.message, error.hint, error.code)
    assert getattr(back, "violations", None) == getattr(error, "violations", None)
    assert getattr(back, "retry_after_s", None) == getattr(error, "retry_after_s", None)


def test_every_error_of_the_domain_has_a_status() -> None:
    for kind in vars(domain).values():
        if isinstance(kind, type) and issubclass(kind, CloudlessError) and kind is not CloudlessError:
            status = status_of(kind("text"))
            assert status.status is not Status.UNKNOWN
            assert (status.status is Status.INTERNAL) == (kind is domain.Fatal)


@pytest.mark.parametrize(
    "error", [KeyError("secret"), TimeoutError(), GRPCError(Status.UNKNOWN, "secret"), asyncio.QueueFull()]
)
def test_anything_else_is_a_bug_and_tells_nothing(error: Exception) -> None:
    status = status_of(error)
    assert status.unexpected
    assert status.status is Status.INTERNAL
    assert "secret" not in status.message
    assert isinstance(over_the_wire(error), InternalError)


def test_statuses_that_a_handler_names_are_kept() -> None:
    assert status_of(GRPCError(Status.UNIMPLEMENTED)).status is Status.UNIMPLEMENTED
    assert isinstance(over_the_wire(GRPCError(Status.NOT_FOUND, "x")), NotFound)
    assert error_of_trailers(dict(OK.trailers())) is None


def test_trailers_stay_small_whatever_the_error_says() -> None:
    violations = tuple(FieldViolation(f"spec.env[{n}]", "\u20ac" * 100) for n in range(10_000))
    trailers = status_of(Invalid(violations=violations, hint="h" * 10_000)).trailers()
    assert sum(len(name) + len(value) + 32 for name, value in trailers) < 16 * 1024
    back = error_of_trailers(dict(trailers))
    assert isinstance(back, Invalid)
    assert 0 < len(back.violations) <= STATUS_VIOLATIONS
    assert len(back.message.encode()) <= STATUS_MESSAGE_BYTES


@pytest.mark.parametrize("text", ["", "plain", "50 % \u00fc \U0001f40d", "line\nbreak\0", "%41"])
def test_messages_survive_the_header_encoding(text: str) -> None:
    encoded = percent_encode(text)
    assert encoded.isascii()
    assert encoded.isprintable() or not encoded
    assert percent_decode(encoded) == text


def test_details_are_what_google_rpc_says() -> None:
    details = Details("CL-1", "cloudless", {"hint": "h"}, (("a.b", "bad"),), 1.25)
    data = encode_status(3, "text", details)
    assert decode_details(data) == details
    assert b"type.googleapis.com/google.rpc.BadRequest" in data
    for size in range(len(data)):
        assert isinstance(decode_details(data[:size]), Details)
    assert decode_details(b"\xff" * 50) == Details()
