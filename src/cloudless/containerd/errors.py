"""Errors of this room, sorted by what the caller can do about them.

containerd answers most failures with status UNKNOWN and a text that grew through
several programs (daemon, shim, OCI runtime, registry client). ``RULES`` is the one
table that sorts those texts; the first rule that matches wins. Everything that this
room raises on purpose is a ``ContainerdError``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from cloudless.containerd import causes


class ContainerdError(Exception):
    """Base of all; ``message`` is for people, ``exit_code`` is what a shell would say (or None)."""

    exit_code: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFound(ContainerdError):
    """No such container, task, process, snapshot, image record or blob."""


class AlreadyExists(ContainerdError):
    """The id or name is taken."""


class Unavailable(ContainerdError):
    """The daemon does not answer: it is down, starting, or hangs. Try again later."""


class InvalidRequest(ContainerdError):
    """The daemon or this room refuses the request as it is; trying again is no use."""


class PreconditionFailed(ContainerdError):
    """Not in this state: deleting what still runs, starting what has started."""


class CommandNotFound(ContainerdError):
    """The command does not exist in the image."""

    exit_code = 127


class CommandNotExecutable(ContainerdError):
    """The command exists, but cannot be executed, or not where it was to be."""

    exit_code = 126


class ShimLost(ContainerdError):
    """The shim died; containerd kills its container. The exit code is not known."""


class NoSpace(ContainerdError):
    """A disk is full."""


class ImageNotFound(ContainerdError):
    """The registry does not have this image, or not for this platform."""


class RegistryUnauthorized(ContainerdError):
    """The registry refuses these credentials, or wants some."""


class RegistryUnavailable(ContainerdError):
    """The registry cannot be reached, or fails. Try again later."""


class InvalidImage(ContainerdError):
    """An image or archive is malformed, or exceeds a limit."""


class Failed(ContainerdError):
    """Anything else; the text is all that is known."""


@dataclass(frozen=True)
class Rule:
    """Statuses (empty: all) and a pattern in the text (empty: any) that mean ``error``."""

    error: type[ContainerdError]
    statuses: tuple[Status, ...] = ()
    pattern: str = ""

    def matches(self, status: Status, text: str) -> bool:
        """Whether this rule speaks of such an answer."""
        return (not self.statuses or status in self.statuses) and bool(re.search(self.pattern, text))


#: Of every call: first the texts, then what the status alone says.
RULES: tuple[Rule, ...] = (
    Rule(NoSpace, pattern=r"no space left on device|disk quota exceeded"),
    Rule(ShimLost, pattern=r"ttrpc: closed|ttrpc: server closed|shim .*(?:exited|not running)"),
    Rule(
        CommandNotFound,
        pattern=r"executable file .*not found in \$PATH"
        r"|exec: \"[^\"]*\": (?:stat [^:]*: )?no such file or directory",
    ),
    Rule(CommandNotExecutable, pattern=causes.NO_WORKING_DIR),
    Rule(
        CommandNotExecutable,
        pattern=r"exec: \"[^\"]*\": (?:permission denied|is a directory)|exec format error"
        r"|open executable: (?:Permission denied|Is a directory)|the path .* exists but it is not executable",
    ),
    Rule(
        PreconditionFailed,
        pattern=r"cannot delete a running process|must be stopped"
        r"|cannot \w+ (?:a|in a) \w+ (?:state|process)",
    ),
    Rule(NotFound, (Status.NOT_FOUND,)),
    Rule(NotFound, (Status.UNKNOWN,), r"process (?:already finished|not found)|no such process"),
    Rule(AlreadyExists, (Status.ALREADY_EXISTS,)),
    Rule(Unavailable, (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)),
    Rule(Unavailable, pattern=r"server is not initialized yet|context deadline exceeded"),
    Rule(InvalidRequest, (Status.INVALID_ARGUMENT, Status.OUT_OF_RANGE, Status.UNIMPLEMENTED)),
    Rule(PreconditionFailed, (Status.FAILED_PRECONDITION, Status.ABORTED)),
)

#: Of pulls, before the rules above: the texts come from the registry's client.
PULL_RULES: tuple[Rule, ...] = (
    Rule(
        RegistryUnauthorized,
        pattern=r"\b401 Unauthorized|\b403 Forbidden|authorization failed|insufficient_scope|no basic auth"
        r"|pull access denied|failed to fetch (?:anonymous|oauth) token",
    ),
    Rule(
        RegistryUnavailable,
        pattern=r"dial tcp|connection re(?:fused|set)|no such host|i/o timeout|TLS handshake|x509:"
        r"|server gave HTTP response|\b(?:429|500|502|503|504) [A-Z]|unexpected EOF|network is unreachable",
    ),
    Rule(
        InvalidImage,
        pattern=r"failed size validation|digest mismatch|unexpected commit digest|failed commit on ref",
    ),
    Rule(ImageNotFound, (Status.NOT_FOUND,)),
    Rule(ImageNotFound, pattern=r": not found|no match for platform|manifest unknown"),
    Rule(
        InvalidImage,
        pattern=r"unexpected media type|cannot unmarshal|invalid character|failed to parse reference",
    ),
)


def sort_answer(status: Status, text: str, about: str, first: tuple[Rule, ...] = ()) -> ContainerdError:
    """The error that an answer of the daemon means; ``about`` says what was tried.

    >>> error = sort_answer(Status.UNKNOWN, 'exec: "nope": executable file not found in $PATH', "start c1")
    >>> type(error).__name__, error.exit_code
    ('CommandNotFound', 127)
    """
    for rule in (*first, *RULES):
        if rule.matches(status, text):
            if issubclass(rule.error, CommandNotFound | CommandNotExecutable):
                return rule.error(causes.command_cause(text))
            return rule.error(f"{about}: {text}")
    return Failed(f"{about}: {causes.unwrapped(text)}")


def sort_exception(error: BaseException, about: str, first: tuple[Rule, ...] = ()) -> ContainerdError | None:
    """Like ``sort_answer`` for what a call raised; ``None`` when it is none of our business."""
    if isinstance(error, GRPCError):
        return sort_answer(error.status, error.message or error.status.name, about, first)
    if isinstance(error, TimeoutError):
        return Unavailable(f"{about}: containerd did not answer in time")
    if isinstance(error, StreamTerminatedError | ProtocolError | OSError):
        return Unavailable(f"{about}: containerd is not reachable ({error})")
    return None
