"""What can go wrong between the agent and its container runtime, sorted by what follows.

Every implementation of the port raises these and nothing else on purpose. ``reason`` is
one word for machines (``ImageNotFound``); the message is for people.
"""

from __future__ import annotations

from cloudless.domain.errors import (
    CloudlessError,
    Denied,
    Fatal,
    Invalid,
    NotFound,
    PreconditionFailed,
    Unavailable,
)


class RuntimeAway(Unavailable):
    """The runtime does not answer: everything waits until it is back."""

    code = "CL-5032"


class ContainerGone(NotFound):
    """No such container, or nothing of it runs."""

    code = "CL-4041"


class ImageNotFound(NotFound):
    """The image is not on this node, or the registry does not have it."""

    code = "CL-4042"


class RegistryDenied(Denied):
    """The registry wants credentials, or refuses these."""

    code = "CL-4032"


class RegistryAway(Unavailable):
    """The registry cannot be reached, or fails."""

    code = "CL-5033"


class BadImage(Invalid):
    """The image or archive is malformed, or beyond a limit."""

    code = "CL-4006"


class CannotExecute(PreconditionFailed):
    """The command cannot be executed: ``exit_code`` is 127 (not found) or 126."""

    code = "CL-4122"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NotEnforced(Denied):
    """This node cannot or may not give what the specification demands; it runs nothing weaker."""

    code = "CL-4033"


class DiskFull(Unavailable):
    """No space is left for what was asked."""

    code = "CL-5034"


class StartFailed(Fatal):
    """The runtime could not start the container, for a reason of its own."""

    code = "CL-5004"


#: Error -> the word that status and events show; the first that fits wins.
REASONS: tuple[tuple[type[CloudlessError], str], ...] = (
    (ImageNotFound, "ImageNotFound"),
    (RegistryDenied, "ImagePullDenied"),
    (RegistryAway, "RegistryUnavailable"),
    (BadImage, "ImageInvalid"),
    (CannotExecute, "CannotExecute"),
    (NotEnforced, "NotPermitted"),
    (DiskFull, "DiskFull"),
    (RuntimeAway, "RuntimeUnavailable"),
    (PreconditionFailed, "PortTaken"),
    (Denied, "NotPermitted"),
    (Invalid, "InvalidSpec"),
)


def reason_of(error: CloudlessError) -> str:
    """One word for a failed start.

    >>> reason_of(ImageNotFound("no such image"))
    'ImageNotFound'
    """
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), "StartFailed")
