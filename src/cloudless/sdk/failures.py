"""Why waiting ended badly: raised by ``wait``, shown by the CLI with its own exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudless.domain.errors import CloudlessError, Conflict, DeadlineExceeded, NotFound
from cloudless.sdk.explaining import Explanation

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload


class NodeReason(NamedTuple):
    """Why one node was refused."""

    node: str
    reason: str


class RolloutFailed(CloudlessError):
    """The newest revision cannot become available as it stands.

    ``explanation`` has all that is known: the tree of reasons, the replica, its exit code or
    probe answer, its last log lines, what changed, and whether it was rolled back.
    """

    code = "CL-6001"

    def __init__(self, message: str, *, explanation: Explanation | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.explanation = explanation or Explanation()

    @property
    def replica(self) -> str:
        """ "name/ordinal" of the replica that shows why; empty when it is the rollout as a whole."""
        return self.explanation.replica

    @property
    def log_lines(self) -> tuple[str, ...]:
        """That replica's last lines."""
        return self.explanation.log_lines

    @property
    def rolled_back_to(self) -> int:
        """The revision that runs again; 0 when nothing was rolled back."""
        return self.explanation.rolled_back_to


class CannotPlace(CloudlessError):
    """No node can take a replica; ``refusals`` says why, per node."""

    code = "CL-6002"

    def __init__(self, message: str, *, refusals: tuple[NodeReason, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.refusals = refusals


class Superseded(Conflict):
    """A newer change took the place of the one that was waited for; no failure of either.

    ``workload`` is as it was seen then, ``revision`` the one that is on its way or runs.
    """

    code = "CL-6006"

    def __init__(self, message: str, *, workload: Workload, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.workload = workload

    @property
    def revision(self) -> int:
        """The revision that took its place."""
        return self.workload.status.revision


class WorkloadDeleted(NotFound):
    """Somebody deleted the workload meanwhile: what was waited for will not be, and nothing failed."""

    code = "CL-6005"


class WaitTimeout(DeadlineExceeded):
    """Time was up before the workload got there; the message says what was missing."""

    code = "CL-6003"
