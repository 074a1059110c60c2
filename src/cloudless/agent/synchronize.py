"""The life line: orders in, observations out, on one bidirectional call.

The coordinator calls; a newer call of an equal or higher epoch takes the place of an
older one. What the node cannot understand of an order is reported, and the rest obeyed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator

from cloudless import api
from cloudless.agent.node import Desired, Node
from cloudless.agent.reports import Report, Reports, ReportStream
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import Invalid
from cloudless.domain.event import Severity
from cloudless.wire import link

log = logging.getLogger(__name__)


class LifeLine:
    """``serve`` is one call; its reading half is a child of its own supervisor."""

    def __init__(self, node: Node, reports: Reports) -> None:
        self._node = node
        self._reports = reports
        self._current: ReportStream | None = None
        self._numbers = 0

    async def serve(
        self, requests: AsyncIterator[api.SynchronizeRequest]
    ) -> AsyncGenerator[api.SynchronizeResponse, None]:
        """Answers for as long as the coordinator listens. Raises ``StaleEpoch``."""
        self._numbers += 1
        stream = self._reports.open()
        try:
            async with Supervisor(f"life line {self._numbers}") as tasks:
                tasks.start("orders", self._listen(requests, stream))
                while (report := await stream.next()) is not None:
                    yield message(report)
        finally:
            self._reports.close(stream)
            if self._current is stream:
                self._current = None

    async def _listen(self, requests: AsyncIterator[api.SynchronizeRequest], stream: ReportStream) -> None:
        """Obey until the coordinator has said its last word; failures end the whole call."""
        try:
            async for request in requests:
                if request.acknowledged:
                    stream.acknowledged(request.acknowledged)
                if request.whole or request.assignments or request.removed or request.traffic:
                    await self._node.apply(self._read(request))
                    self._take_over(stream)
        except Exception as error:
            stream.end(error)
        else:
            stream.end(None)

    def _take_over(self, stream: ReportStream) -> None:
        """An accepted order makes this call the one that counts; an older one ends."""
        if self._current is not None and self._current is not stream:
            log.info("a newer connection takes over")
            self._current.end(None)
        self._current = stream

    def _read(self, request: api.SynchronizeRequest) -> Desired:
        assignments = []
        for wanted in request.assignments:
            try:
                assignments.append(link.assignment_from_wire(wanted))
            except Invalid as error:
                # A newer coordinator may know fields that this node does not: say so, run the rest.
                log.warning("an assignment is not understood", extra={"why": error.message})
                self._node.report(
                    Severity.WARNING,
                    "AssignmentInvalid",
                    f"replica {wanted.replica_id}: {error.message}",
                )
        traffic = {}
        for split in request.traffic:
            try:
                traffic[split.workload_id] = link.shares_from_wire(split)
            except Invalid as error:
                log.warning("shares are not understood", extra={"why": error.message})
                self._node.report(Severity.WARNING, "SharesInvalid", error.message)
        return Desired(request.epoch, request.whole, tuple(assignments), tuple(request.removed), traffic)


def message(report: Report) -> api.SynchronizeResponse:
    """A report on the wire."""
    return api.SynchronizeResponse(
        sequence=report.sequence,
        node=link.facts_to_wire(report.facts) if report.facts is not None else None,
        whole=report.whole,
        replicas=[link.observation_to_wire(seen) for seen in report.observations],
        removed=list(report.removed),
        events=[link.event_to_wire(event) for event in report.events],
    )
