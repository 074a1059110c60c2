"""What the coordinator concluded about a workload; written by its control loop only.

Counts are not stored: they follow from the replicas and the time
(``planning.status``), so that they cannot be stale.
"""

from __future__ import annotations

import datetime

from cloudless.domain.model import Model
from cloudless.domain.rollout import Rollout


class Condition(Model):
    """One judgement: ``type`` Available, Progressing or Placed; ``status`` True, False or Unknown."""

    type: str
    status: str
    reason: str
    message: str = ""
    changed_at: datetime.datetime


class Refusal(Model):
    """Why a node was not taken, for example ``needs memory 256Mi, 120Mi free``."""

    node: str
    reason: str


class StatusRecord(Model):
    """What is stored of a workload's status."""

    workload_id: str
    observed_generation: int
    #: Replicas that were wanted at that generation.
    desired: int = 0
    revision: int = 0
    conditions: tuple[Condition, ...] = ()
    rollout: Rollout | None = None
    #: Replica id -> why each node was refused, for replicas without a node.
    refusals: dict[str, tuple[Refusal, ...]] = {}
    message: str = ""
