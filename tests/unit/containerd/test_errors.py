"""Texts as containerd 1.6 with runc and crun really says them."""

from __future__ import annotations

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from cloudless.containerd import errors

RUNC = (
    "failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)
EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "
PULL = 'failed to pull and unpack image "h/x:v1": '


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (
            Status.UNKNOWN,
            RUNC + 'exec: "x": executable file not found in $PATH: unknown',
            errors.CommandNotFound,
        ),
        (
            Status.UNKNOWN,
            RUNC + 'exec: "/x": stat /x: no such file or directory: unknown',
            errors.CommandNotFound,
        ),
        (Status.UNKNOWN, EXEC + 'exec: "/x": permission denied: unknown', errors.CommandNotExecutable),
        (Status.UNKNOWN, EXEC + 'exec: "/etc": is a directory: unknown', errors.CommandNotExecutable),
        (
            Status.UNKNOWN,
            "crun: executable file `x` not found in $PATH: No such file or directory: unknown",
            errors.CommandNotFound,
        ),
        (Status.UNKNOWN, "ttrpc: closed: unknown", errors.ShimLost),
        (Status.UNKNOWN, "write /x: no space left on device: unknown", errors.NoSpace),
        (Status.NOT_FOUND, "no running task found: task x not found: not found", errors.NotFound),
        (Status.ALREADY_EXISTS, 'container "x": already exists', errors.AlreadyExists),
        (Status.UNKNOWN, "cannot delete a running process: unknown", errors.PreconditionFailed),
        (Status.UNKNOWN, "cannot exec in a stopped state: unknown", errors.PreconditionFailed),
        (Status.FAILED_PRECONDITION, "task must be stopped before deletion", errors.PreconditionFailed),
        (Status.UNAVAILABLE, "closing transport", errors.Unavailable),
        (Status.DEADLINE_EXCEEDED, "context deadline exceeded", errors.Unavailable),
        (Status.INVALID_ARGUMENT, "identifier must match", errors.InvalidRequest),
        (Status.UNKNOWN, "something new", errors.Failed),
    ],
)
def test_answers_are_sorted(status: Status, text: str, error: type[errors.ContainerdError]) -> None:
    found = errors.sort_answer(status, text, "start task c1")
    assert type(found) is error
    assert found.message == f"start task c1: {text}"


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (Status.NOT_FOUND, PULL + "h/x:v1: not found", errors.ImageNotFound),
        (
            Status.UNKNOWN,
            PULL + "pull access denied, repository does not exist or may require authorization",
            errors.RegistryUnauthorized,
        ),
        (
            Status.UNKNOWN,
            PULL + "unexpected status code [...]: 401 Unauthorized",
            errors.RegistryUnauthorized,
        ),
        (
            Status.UNKNOWN,
            PULL + "dial tcp 127.0.0.1:1: connect: connection refused",
            errors.RegistryUnavailable,
        ),
        (
            Status.UNKNOWN,
            PULL + "unexpected status code x: 503 Service Unavailable",
            errors.RegistryUnavailable,
        ),
        (Status.UNKNOWN, PULL + "unexpected status: 429 Too Many Requests", errors.RegistryUnavailable),
        (Status.UNKNOWN, PULL + "x509: certificate signed by unknown authority", errors.RegistryUnavailable),
        (Status.UNKNOWN, PULL + "no match for platform in manifest: not found", errors.ImageNotFound),
        (Status.UNKNOWN, PULL + "write: no space left on device", errors.NoSpace),
        (Status.UNAVAILABLE, "error reading from server: EOF", errors.Unavailable),
        (Status.UNKNOWN, "server is not initialized yet", errors.Unavailable),
    ],
)
def test_pulls_are_sorted(status: Status, text: str, error: type[errors.ContainerdError]) -> None:
    assert type(errors.sort_answer(status, text, "pull", errors.PULL_RULES)) is error


def test_what_a_call_raises() -> None:
    assert isinstance(errors.sort_exception(ConnectionRefusedError(), "x"), errors.Unavailable)
    assert isinstance(errors.sort_exception(FileNotFoundError(), "x"), errors.Unavailable)
    assert isinstance(errors.sort_exception(StreamTerminatedError("lost"), "x"), errors.Unavailable)
    assert isinstance(errors.sort_exception(TimeoutError(), "x"), errors.Unavailable)
    assert isinstance(errors.sort_exception(GRPCError(Status.NOT_FOUND, None), "x"), errors.NotFound)
    assert errors.sort_exception(ValueError("a bug"), "x") is None


def test_exit_codes_of_a_shell() -> None:
    assert errors.CommandNotFound("x").exit_code == 127
    assert errors.CommandNotExecutable("x").exit_code == 126
    assert errors.Failed("x").exit_code is None
