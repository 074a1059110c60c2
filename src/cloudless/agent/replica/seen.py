"""What the node says about a replica: one observation that changes along the table.

The replica's steps call ``say``; the coordinator gets the newest, and the journal what
must survive the agent. A step to a phase that may not follow is a bug and ends loudly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloudless.agent.journal import Progress
from cloudless.domain.replica import TRANSITIONS, Observation, ReplicaPhase
from cloudless.planning.restart import RestartHistory


class Seen:
    """``publish`` gets each changed observation, ``note`` each changed progress."""

    def __init__(
        self,
        workload_id: str,
        progress: Progress,
        publish: Callable[[Observation], None],
        note: Callable[[Progress], None],
    ) -> None:
        self._publish = publish
        self._note = note
        self.progress = progress
        self.observation = Observation(
            replica_id=progress.replica_id,
            workload_id=workload_id,
            # A replica of an earlier life of the agent may be anywhere by now.
            phase=ReplicaPhase.UNKNOWN if progress.attempt else ReplicaPhase.PENDING,
            restarts=progress.restarts,
            last_exit=progress.last_exit,
            image_digest=progress.image_digest,
            message=progress.message,
        )

    @property
    def phase(self) -> ReplicaPhase:
        """Where the replica is."""
        return self.observation.phase

    @property
    def history(self) -> RestartHistory:
        """What the restart policy counts."""
        progress = self.progress
        return RestartHistory(progress.restarts, progress.failures, progress.failed_starts)

    def say(self, phase: ReplicaPhase, message: str = "", **changes: Any) -> None:
        """Publish a step; what is not named stays as it was. A phase but RUNNING is never ready.

        The last lines of the log are there only while a replica runs and is not ready.
        """
        old = self.observation
        if phase is not old.phase and phase not in TRANSITIONS[old.phase]:
            raise AssertionError(f"replica {old.replica_id}: {old.phase} -> {phase} is not in the table")
        if phase is not ReplicaPhase.RUNNING:
            changes |= {"ready": False, "ready_since": None}
        if phase is not ReplicaPhase.RUNNING or changes.get("ready"):
            changes["log_tail"] = ""
        failed_starts = 0 if phase is ReplicaPhase.RUNNING else self.progress.failed_starts
        new = old.replaced(phase=phase, message=message, failed_starts=failed_starts, **changes)
        if new != old:
            self.observation = new
            self._publish(new)

    def note_tag(self, digest: str) -> None:
        """What the image's tag means now, where that is another image than runs; else empty."""
        if digest != self.observation.tag_digest:
            self.observation = self.observation.replaced(tag_digest=digest)
            self._publish(self.observation)

    def note(self, **changes: Any) -> None:
        """Remember progress in the journal."""
        self.progress = self.progress.replaced(**changes)
        self._note(self.progress)

    def note_history(self, history: RestartHistory, **changes: Any) -> None:
        """Remember what the restart policy counts."""
        self.note(
            restarts=history.restarts,
            failures=history.failures,
            failed_starts=history.failed_starts,
            **changes,
        )
