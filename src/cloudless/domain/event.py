"""An event: something that happened, for people and for audits."""

from __future__ import annotations

import datetime
import enum

from cloudless.domain.model import Model


class Severity(enum.StrEnum):
    """Whether someone should look."""

    NORMAL = "Normal"
    WARNING = "Warning"


class Event(Model):
    """``reason`` is one word for machines, ``message`` one sentence for people."""

    id: str = ""
    at: datetime.datetime
    severity: Severity = Severity.NORMAL
    reason: str
    message: str
    #: "workload", "replica" or "node".
    kind: str
    namespace: str = ""
    #: Name of the workload or node.
    name: str = ""
    replica_id: str = ""
    node: str = ""
