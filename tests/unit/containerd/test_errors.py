"""Texts as containerd 1.6 with runc and crun really says them."""

from __future__ import annotations

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from cloudless.containerd import causes, errors

RUNC = (
    "failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)
EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "
CWD = 'chdir to cwd ("/nope") set in config.json failed: '
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
        (Status.UNKNOWN, EXEC + CWD + "no such file or directory: unknown", errors.CommandNotExecutable),
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
    if found.exit_code is None:
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RUNC + 'exec: "/x": stat /x: no such file or directory: unknown', "command not found: /x"),
        (EXEC + 'exec: "x": executable file not found in $PATH: unknown', "command not found: x"),
        ("crun: executable file `x` not found in $PATH: No such file: unknown", "command not found: x"),
        (RUNC + 'exec: "/etc": is a directory: unknown', "cannot execute /etc: is a directory"),
        (EXEC + CWD + "no such file or directory: unknown", "working directory /nope does not exist"),
        (EXEC + CWD + "not a directory: unknown", "working directory /nope is no folder"),
        (
            EXEC + CWD + "permission denied: unknown",
            "working directory /nope may not be entered (permission denied)",
        ),
        ("crun: chdir to `/nope`: No such file or directory", "working directory /nope does not exist"),
        (
            RUNC + 'exec: "/x": exec format error: unknown',
            "cannot execute /x: it is no program of this machine's kind (exec format error)",
        ),
    ],
)
def test_commands_that_cannot_be_executed_are_named(text: str, said: str) -> None:
    found = errors.sort_answer(Status.UNKNOWN, text, "create task c1")
    assert (found.message, found.exit_code is None) == (said, False)


RESOLVE = PULL + 'failed to resolve reference "h/x:v1": '


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            RESOLVE
            + 'failed to do request: Head "https://h/v2/x/manifests/v1": dial tcp: lookup h: no such host',
            "no such host h",
        ),
        (
            RESOLVE + 'failed to do request: Head "https://h/": dial tcp 1.2.3.4:443: i/o timeout',
            "1.2.3.4:443: i/o timeout",
        ),
        (RESOLVE + "h/x:v1: not found", "the registry does not have it"),
        (
            RESOLVE + "unexpected status from HEAD request to http://h/v2/x/manifests/v1: 401 Unauthorized",
            "the registry answers 401 Unauthorized",
        ),
        ("rpc error: code = Unknown desc = " + PULL + "something new: unknown", "something new"),
    ],
)
def test_pulls_that_fail_say_the_cause_once(text: str, cause: str) -> None:
    assert causes.pull_cause(text) == cause
