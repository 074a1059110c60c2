"""Following a rollout as a program does, and what leaving it early does."""

from __future__ import annotations

import asyncio

import pytest
from fake_coordinator import FakeCoordinator, copied, ready_status

import cloudless
from cloudless import api
from cloudless.sdk import rollout as rollout_module

Phase = api.RolloutStatusPhase
Verb = api.RolloutRequestVerb


@pytest.fixture
async def slow():
    coordinator = FakeCoordinator(auto=False)
    async with coordinator.serving():
        yield coordinator


@pytest.fixture
async def client(slow):
    async with cloudless.connect(slow.address, timeout_s=5.0, patience_s=0.5) as connected:
        yield connected


@pytest.fixture
async def web(client, slow):
    """Revision 1 on its way."""
    created = await client.create(cloudless.Workload("web", image="web:1", replicas=2))
    show(slow, Phase.PROGRESSING, because="waiting for web/0 to be ready")
    return created


def show(slow, phase, *, pending=False, **fields):
    status = ready_status(slow.workloads["default", "web"])
    status.rollout = api.RolloutStatus(
        phase=phase, revision=status.revision, target_revision=status.revision, pending=pending, **fields
    )
    slow.set_status("web", status)


async def followed(rollout, *changes):
    """The sentences of a rollout; after each one the next of ``changes`` is made."""
    left, told = list(changes), []
    async with asyncio.timeout(10), rollout as r:
        async for step in r:
            told.append(step.because)
            if left:
                left.pop(0)()
    return told


async def test_each_step_is_told_once_until_it_is_rolled_out(web, slow):
    def twice():
        show(slow, Phase.PROGRESSING, because="waiting for web/1 to be ready", new_available=1)
        show(slow, Phase.PROGRESSING, because="waiting for web/1 to be ready", new_available=1)
        show(slow, Phase.COMPLETED)

    told = await followed(
        web.rollout(), lambda: show(slow, Phase.PROGRESSING, because="waiting for web/0 to be ready"), twice
    )
    assert told == [
        "waiting for the coordinator to take up generation 1",
        "waiting for web/0 to be ready",
        "waiting for web/1 to be ready",
        "revision 1 is rolled out",
    ]
    assert slow.asked("rollout") == []


async def test_a_step_says_what_a_program_needs(web, slow):
    share = [api.TrafficShare(1, 20), api.TrafficShare(2, 80)]
    show(slow, Phase.WAITING_PROMOTION, because="waiting to be promoted", traffic=share, new_available=1)
    async with asyncio.timeout(10), web.rollout() as r:
        async for step in r:
            if step.phase == "WAITING_PROMOTION":
                assert (step.revision, step.available, step.traffic) == (1, 1, {1: 20, 2: 80})
                await r.promote(full=True)
                show(slow, Phase.COMPLETED)
    (asked,) = slow.asked("rollout")
    assert (asked.verb, asked.full, asked.name) == (Verb.PROMOTE, True, "web")


async def test_a_failure_is_raised_with_its_explanation_and_nothing_is_aborted(web, slow):
    failure = api.RolloutFailure(reason="CannotStart", message="web/0 cannot start", log_tail="a\nb")

    def fail():
        show(slow, Phase.ROLLING_BACK, failure=failure, because="waiting for web/0 of revision 3")
        show(slow, Phase.ROLLED_BACK, failure=failure)

    with pytest.raises(cloudless.RolloutFailed, match="web/0 cannot start") as caught:
        await followed(web.rollout(), fail)
    assert caught.value.log_lines == ("a", "b")
    assert slow.asked("rollout") == []


async def test_leaving_by_an_exception_aborts(web, slow):
    async def leave():
        async with web.rollout() as r:
            async for step in r:
                if step.phase == "PROGRESSING":
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await asyncio.wait_for(leave(), 10)
    (asked,) = slow.asked("rollout")
    assert asked.verb is Verb.ABORT
    assert asked.resource_version
    assert caught.value.__notes__ == ["the rollout of web was aborted"]


async def test_cancelling_the_task_aborts(web, slow):
    seen = asyncio.Event()

    async def follow():
        async with web.rollout() as r:
            async for step in r:
                if step.phase == "PROGRESSING":
                    seen.set()

    async with asyncio.timeout(10):
        task = asyncio.ensure_future(follow())
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [asked.verb for asked in slow.asked("rollout")] == [Verb.ABORT]


async def test_waiting_too_long_is_leaving_by_an_exception(web, slow):
    with pytest.raises(cloudless.WaitTimeout):
        await followed(web.rollout(timeout_s=0.2))
    assert [asked.verb for asked in slow.asked("rollout")] == [Verb.ABORT]


@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.FAILED, Phase.ROLLING_BACK, Phase.ABORTED])
async def test_what_is_over_is_not_aborted(web, slow, phase):
    show(slow, phase)

    async def leave():
        async with web.rollout():
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(leave(), 10)
    assert slow.asked("rollout") == []


async def test_somebody_elses_newer_change_is_not_aborted(web, slow):
    async def leave():
        async with web.rollout():
            newer = copied(slow.workloads["default", "web"])
            newer.generation += 1
            slow.put(newer)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(leave(), 10)
    assert slow.asked("rollout") == []


@pytest.mark.parametrize("seen", [False, True])
async def test_somebody_elses_restart_is_not_aborted(web, slow, seen):
    """It leaves the generation as it is."""

    async def leave():
        async with web.rollout() as r:
            if seen:
                async for step in r:
                    if step.phase == "PROGRESSING":
                        break
            newer = copied(slow.workloads["default", "web"])
            newer.restarts += 1
            newer.status.revision += 1
            newer.status.rollout.revision += 1
            slow.put(newer)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(leave(), 10)
    assert slow.asked("rollout") == []


async def test_ours_is_aborted_when_it_was_only_scaled_meanwhile(web, slow):
    async def leave():
        async with web.rollout() as r:
            async for step in r:
                if step.phase == "PROGRESSING":
                    newer = copied(slow.workloads["default", "web"])
                    newer.generation += 1
                    newer.spec.replicas = 5
                    newer.status.observed_generation += 1
                    slow.put(newer)
                    raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(leave(), 10)
    assert [one.verb for one in slow.asked("rollout")] == [Verb.ABORT]


async def test_a_refused_abort_does_not_hide_the_exception(web, slow):
    slow.failures["rollout"] = [cloudless.PreconditionFailed("nothing to go back to")]

    async def leave():
        async with web.rollout():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await asyncio.wait_for(leave(), 10)
    assert caught.value.__notes__ == ["the rollout was not aborted: nothing to go back to"]


async def test_an_abort_takes_no_longer_than_its_limit(web, slow, monkeypatch):
    monkeypatch.setattr(rollout_module, "ABORT_TIMEOUT_S", 0.1)
    asked = asyncio.Event()

    async def never(self, message):
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeCoordinator, "rollout", never)

    async def leave():
        async with web.rollout():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        await asyncio.wait_for(leave(), 10)
    assert asked.is_set()
    assert caught.value.__notes__ == ["the rollout may go on: it could not be aborted within 0.1 s"]


async def test_leaving_without_an_exception_lets_it_go_on(web, slow):
    async with asyncio.timeout(10), web.rollout() as r:
        async for _ in r:
            break
    assert slow.asked("rollout") == []


async def test_every_verb_from_the_workload_itself(web, slow):
    await web.pause()
    await web.resume()
    await web.promote(full=True)
    await web.abort()
    await web.undo(3, message="why")
    await web.restart(pull=True)
    await web.retry()
    asked = slow.asked("rollout")
    assert [one.verb.name for one in asked] == [
        *("PAUSE", "RESUME", "PROMOTE", "ABORT"),
        *("UNDO", "RESTART", "RETRY"),
    ]
    assert (asked[4].to_revision, asked[4].message, asked[5].pull) == (3, "why", True)
    assert len({one.request_id for one in asked}) == 7
    assert all((one.namespace, one.name) == ("default", "web") for one in asked)


async def test_the_journal(web, slow):
    entry = api.JournalEntry(1, verb="begin", seen="revision 1", decided="replace 2", because="asked")
    slow.rollouts["web", 1] = api.GetRolloutResponse(revision=api.Revision(number=1), journal=[entry])
    past = await web.rollout_of(1)
    assert past.revision.number == 1
    assert [(one.verb, one.seen, one.decided, one.because) for one in past.journal] == [
        ("begin", "revision 1", "replace 2", "asked")
    ]
    assert [one.number for one in await web.history()] == [1]


async def test_a_workload_that_nobody_answered_with_can_do_nothing():
    with pytest.raises(RuntimeError, match="apply or get it first"):
        cloudless.Workload("web", image="web:1").rollout()


async def test_apply_if_version(client, slow, web):
    now = await client.get("web")
    wanted = cloudless.Workload("web", image="web:2", replicas=2)
    done = await client.apply(wanted, if_version=now.resource_version)
    assert done.outcome == "updated"
    with pytest.raises(cloudless.Conflict):
        await client.apply(wanted.replaced(image="web:3"), if_version=now.resource_version)
    with pytest.raises(cloudless.Conflict, match="does not exist"):
        await client.apply(cloudless.Workload("other", image="x"), if_version="1")
