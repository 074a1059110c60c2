"""A revision: one version of a workload's template that replicas are made from."""

from __future__ import annotations

import datetime

from cloudless.domain.model import Model
from cloudless.domain.rollout import RolloutPhase
from cloudless.domain.workload import WorkloadSpec

#: Revisions kept of a workload, the newest one included.
KEPT_REVISIONS = 10


class Revision(Model):
    """Numbered from 1. What it says of the template never changes after it was made, but for
    the digest found by the first node; how its rollout stands is kept with it."""

    workload_id: str
    number: int
    template_hash: str
    spec: WorkloadSpec
    generation: int
    image_digest: str = ""
    created_at: datetime.datetime
    author: str = ""
    message: str = ""
    #: The registry is asked for the image even where it is, until the digest is known.
    pull: bool = False
    #: The revision that this one restores, 0 for none.
    restores: int = 0
    #: When it was proved healthy last; None again when its replicas crash (``planning.proof``).
    healthy_at: datetime.datetime | None = None
    #: How its last rollout ended; None while it is on.
    phase: RolloutPhase | None = None
    ended_at: datetime.datetime | None = None
