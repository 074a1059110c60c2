from __future__ import annotations

import asyncio
import datetime

import pytest

from cloudless.agent.reports import Report, Reports, ReportStream
from cloudless.domain.errors import Unavailable
from cloudless.domain.event import Event
from cloudless.domain.node import NodeFacts
from cloudless.domain.replica import Observation, ReplicaPhase

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def seen(name: str, version: int = 1) -> Observation:
    return Observation(replica_id=name, workload_id="w", phase=ReplicaPhase.RUNNING, version=version)


@pytest.fixture
def settled() -> list[str]:
    return []


@pytest.fixture
def reports(settled: list[str]) -> Reports:
    return Reports(NodeFacts(id="n1", name="node-1"), settled.append)


async def following(stream: ReportStream) -> Report:
    async with asyncio.timeout(5):
        report = await stream.next()
    assert report is not None
    return report


async def nothing(stream: ReportStream) -> bool:
    asking = asyncio.get_running_loop().create_task(stream.next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    quiet = not asking.done()
    asking.cancel()
    return quiet


async def test_facts_come_first_and_the_whole_when_it_is_known(reports: Reports) -> None:
    reports.observe(seen("a"))
    stream = reports.open()
    first = await following(stream)
    assert (first.sequence, first.facts, first.whole, first.observations) == (1, reports.facts, False, ())
    assert await nothing(stream)
    reports.observe(seen("b"))
    assert await nothing(stream)
    reports.know_whole()
    second = await following(stream)
    assert (second.sequence, second.facts, second.whole) == (2, None, True)
    assert [one.replica_id for one in second.observations] == ["a", "b"]
    assert await nothing(stream)


async def test_afterwards_only_what_changed_and_the_newest_of_it(reports: Reports) -> None:
    reports.know_whole()
    stream = reports.open()
    await following(stream)
    for version in (2, 3, 4):
        reports.observe(seen("a", version))
    report = await following(stream)
    assert (report.whole, report.observations) == (False, (seen("a", 4),))


async def test_every_connection_hears_everything(reports: Reports) -> None:
    reports.know_whole()
    reports.observe(seen("a"))
    for _ in range(2):
        stream = reports.open()
        report = await following(stream)
        assert (report.whole, report.observations) == (True, (seen("a"),))
        reports.close(stream)


async def test_the_gone_are_said_again_until_stored(reports: Reports, settled: list[str]) -> None:
    reports.know_whole()
    reports.observe(seen("a"))
    reports.remove("a")
    first = reports.open()
    assert (await following(first)).removed == ("a",)
    reports.close(first)
    second = reports.open()
    report = await following(second)
    assert (report.observations, report.removed) == ((), ("a",))
    second.acknowledged(report.sequence - 1)
    assert settled == []
    second.acknowledged(report.sequence)
    assert settled == ["a"]
    assert await nothing(second)
    assert (await following(reports.open())).removed == ()


async def test_events_are_said_until_stored_and_the_oldest_give_way(reports: Reports) -> None:
    reports.know_whole()
    event = Event(id="e1", at=NOW, reason="Started", message="m", kind="replica")
    reports.tell(event)
    first = reports.open()
    assert (await following(first)).events == (event,)
    reports.close(first)
    second = reports.open()
    report = await following(second)
    assert report.events == (event,)
    second.acknowledged(report.sequence)
    assert list(reports.events) == []
    for number in range(3000):
        reports.tell(event.replaced(id=f"x{number}"))
    assert len(reports.events) == 1000
    assert reports.events[-1].id == "x2999"
    found = [one.id for _ in range(5) for one in (await following(second)).events]
    assert found == [f"x{number}" for number in range(2000, 3000)]


async def test_an_ended_stream_says_so(reports: Reports) -> None:
    stream = reports.open()
    await following(stream)
    waiting = asyncio.get_running_loop().create_task(stream.next())
    await asyncio.sleep(0)
    stream.end(None)
    assert await waiting is None
    other = reports.open()
    other.end(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await other.next()


async def test_changed_facts_are_told(reports: Reports) -> None:
    stream = reports.open()
    await following(stream)
    reports.describe(reports.facts)
    assert await nothing(stream)
    reports.describe(reports.facts.replaced(not_ready="disk"))
    report = await following(stream)
    assert report.facts is not None
    assert report.facts.not_ready == "disk"
