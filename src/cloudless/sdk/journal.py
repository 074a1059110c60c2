"""What is kept of a rollout: its journal, and how it stands or ended, as thin views."""

from __future__ import annotations

import datetime

from cloudless import api
from cloudless.sdk.objects import Revision, View, enum_name


class JournalEntry(View[api.JournalEntry]):
    """One decision about a rollout: what was seen, what was decided, why, when."""

    __slots__ = ()

    @property
    def at(self) -> datetime.datetime | None:
        """When it was decided."""
        return self.message.at

    @property
    def verb(self) -> str:
        """begin, surge, retire, switch, weigh, wait_ready, pause, promote, bake, judge, end and so on."""
        return self.message.verb

    @property
    def seen(self) -> str:
        """What was seen."""
        return self.message.seen

    @property
    def decided(self) -> str:
        """What was decided."""
        return self.message.decided

    @property
    def because(self) -> str:
        """Why."""
        return self.message.because

    @property
    def phase(self) -> str:
        """The rollout's phase after it."""
        return enum_name(self.message.phase)

    def __repr__(self) -> str:
        return f"<JournalEntry {self.verb}: {self.decided}>"


class PastRollout(View[api.GetRolloutResponse]):
    """One revision with its journal; ``status`` only while it is the newest."""

    __slots__ = ()

    @property
    def revision(self) -> Revision:
        """What was rolled out."""
        return Revision(self.message.revision or api.Revision())

    @property
    def status(self) -> api.RolloutStatus | None:
        """How it stands; None for a revision that is not the newest."""
        return self.message.rollout

    @property
    def journal(self) -> list[JournalEntry]:
        """Every decision, oldest first."""
        return [JournalEntry(message) for message in self.message.journal]

    def __repr__(self) -> str:
        return f"<PastRollout of revision {self.revision.number}, {len(self.message.journal)} entries>"
