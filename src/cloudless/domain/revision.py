"""A revision: one version of a workload's template that replicas are made from."""

from __future__ import annotations

import datetime

from cloudless.domain.model import Model
from cloudless.domain.workload import WorkloadSpec

#: Revisions kept of a workload, the newest one included.
KEPT_REVISIONS = 10


class Revision(Model):
    """Numbered from 1, never changed after it was made, but for the digest found by the first node."""

    workload_id: str
    number: int
    template_hash: str
    spec: WorkloadSpec
    generation: int
    image_digest: str = ""
    created_at: datetime.datetime
    author: str = ""
    message: str = ""
