"""What users asked of a rollout: kept with the workload, written by their requests only.

The control loop compares the counters with those of ``domain.rollout.Rollout``, which say
how many it has taken up.
"""

from __future__ import annotations

from cloudless.domain.model import Model


class RolloutIntent(Model):
    """What users asked of the rollout of one revision; another revision's rollout ignores it.

    Counters rise with each request; the rollout's own say how many it has taken up.
    """

    revision: int = 0
    paused: bool = False
    promotions: int = 0
    #: Promoted past all further steps.
    full: bool = False
    aborts: int = 0
    retries: int = 0
