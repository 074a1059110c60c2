"""Pages of a list of workloads, each left as it came until somebody looks at it.

``watch.list_workloads`` asks for them. Reading 200 workloads field by field takes longer
than everything else about a list, and most callers look at a few of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import betterproto2

from cloudless import api


@dataclass(eq=False, repr=False)
class WorkloadPage(betterproto2.Message):
    """``api.ListWorkloadsResponse``, whose messages are bytes here; the same on the wire."""

    workloads: list[bytes] = betterproto2.field(1, betterproto2.TYPE_BYTES, repeated=True)  # noqa: RUF009
    next_page_token: str = betterproto2.field(2, betterproto2.TYPE_STRING)
    resource_version: str = betterproto2.field(3, betterproto2.TYPE_STRING)


async def list_page(
    stub: api.CoordinatorServiceStub, request: api.ListWorkloadsRequest, *, timeout: float | None = None
) -> WorkloadPage:
    """One call; raises ``CloudlessError``."""
    return await stub._unary_unary(
        "/cloudless.api.CoordinatorService/ListWorkloads", request, WorkloadPage, timeout=timeout
    )
