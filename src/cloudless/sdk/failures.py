"""Why waiting ended badly: raised by ``wait``, shown by the CLI with its own exit codes."""

from __future__ import annotations

from typing import NamedTuple

from cloudless.domain.errors import CloudlessError, DeadlineExceeded


class NodeReason(NamedTuple):
    """Why one node was refused."""

    node: str
    reason: str


class RolloutFailed(CloudlessError):
    """The newest revision cannot become available as it stands.

    ``replica`` ("name/ordinal") is the one that shows why, ``log_lines`` its last lines;
    both may be empty when the rollout as a whole stalled.
    """

    code = "CL-6001"

    def __init__(
        self, message: str, *, replica: str = "", log_lines: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.replica = replica
        self.log_lines = log_lines


class CannotPlace(CloudlessError):
    """No node can take a replica; ``refusals`` says why, per node."""

    code = "CL-6002"

    def __init__(self, message: str, *, refusals: tuple[NodeReason, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.refusals = refusals


class WaitTimeout(DeadlineExceeded):
    """Time was up before the workload got there; the message says what was missing."""

    code = "CL-6003"
