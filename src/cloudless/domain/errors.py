"""Errors, sorted by what the caller must do.

Raised everywhere, turned into gRPC statuses by ``transport.errors`` and into a text
with exit code by the CLI. Each class carries a stable code (``CL-....``) that docs
explain. Anything that is not a ``CloudlessError`` is a bug.
"""

from __future__ import annotations

from typing import NamedTuple


class FieldViolation(NamedTuple):
    """One thing that is wrong with a request: where, and what would be right."""

    path: str
    description: str


class CloudlessError(Exception):
    """An error that a person can act on.

    ``message`` says what happened and why, ``hint`` what to try; ``code`` is stable.
    """

    code = "CL-1000"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class Invalid(CloudlessError):
    """The request can never succeed as it stands (INVALID_ARGUMENT)."""

    code = "CL-4000"

    def __init__(
        self,
        message: str = "",
        *,
        violations: tuple[FieldViolation, ...] = (),
        hint: str = "",
        code: str | None = None,
    ) -> None:
        text = message or "; ".join(f"{where}: {what}" for where, what in violations)
        super().__init__(text, hint=hint, code=code)
        self.violations = violations

    @classmethod
    def field(cls, path: str, description: str, *, hint: str = "") -> Invalid:
        """One violation of one field."""
        return cls(violations=(FieldViolation(path, description),), hint=hint)


class NotFound(CloudlessError):
    """The object does not exist (NOT_FOUND)."""

    code = "CL-4040"


class AlreadyExists(CloudlessError):
    """An object with this name exists (ALREADY_EXISTS)."""

    code = "CL-4090"


class Conflict(CloudlessError):
    """The object changed in the meantime: read it again and retry (ABORTED)."""

    code = "CL-4091"


class PreconditionFailed(CloudlessError):
    """The object is not in a state that allows this (FAILED_PRECONDITION)."""

    code = "CL-4120"


class Exhausted(CloudlessError):
    """A limit is reached (RESOURCE_EXHAUSTED)."""

    code = "CL-4290"


class Denied(CloudlessError):
    """The caller may not do this (PERMISSION_DENIED)."""

    code = "CL-4030"


class OutOfRange(CloudlessError):
    """A version to continue from is no longer kept: list again (OUT_OF_RANGE)."""

    code = "CL-4160"


class Unavailable(CloudlessError):
    """Something that is needed does not answer now: retry later (UNAVAILABLE)."""

    code = "CL-5030"

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(CloudlessError):
    """The caller's time was up (DEADLINE_EXCEEDED)."""

    code = "CL-5040"


class Fatal(CloudlessError):
    """This process cannot go on: wrong start-up, broken disk (INTERNAL)."""

    code = "CL-5000"
