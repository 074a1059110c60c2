from __future__ import annotations

import asyncio

import pytest
from fake_coordinator import FakeCoordinator, copied, ready_status, replica_of

import cloudless
from cloudless import api
from cloudless.sdk import verdict

Phase = api.ReplicaPhase
RolloutPhase = api.RolloutStatusPhase


@pytest.fixture
async def slow():
    """A coordinator that leaves the status to the test."""
    coordinator = FakeCoordinator(auto=False)
    async with coordinator.serving():
        yield coordinator


@pytest.fixture
async def client(slow):
    async with cloudless.connect(slow.address, timeout_s=5.0) as connected:
        await connected.create(cloudless.Workload("web", image="web:1", replicas=2))
        yield connected


def status(slow, **fields) -> api.WorkloadStatus:
    result = ready_status(slow.workloads["default", "web"])
    for name, value in fields.items():
        setattr(result, name, value)
    return result


async def wait_while(client, steps, **options):
    """Wait for the workload while ``steps`` are taken one after the other, each after a look."""
    seen: list[str] = []
    left = list(steps)

    def on_change(_, verdict):
        if verdict.missing not in seen:
            seen.append(verdict.missing)
        if left:
            asyncio.get_running_loop().call_soon(left.pop(0))

    async with asyncio.timeout(20):
        return await client.wait("web", on_change=on_change, **options), seen


async def test_available_when_the_newest_revision_is_all_there(client, slow):
    steps = [
        lambda: slow.set_status("web", status(slow, available_replicas=0, ready_replicas=0, replicas=[])),
        lambda: slow.set_status("web", status(slow, available_replicas=1)),
        lambda: slow.set_status("web", status(slow, current_replicas=3)),
        lambda: slow.set_status("web", status(slow)),
    ]
    done, seen = await wait_while(client, steps)
    assert done.status.available_replicas == 2
    assert "the coordinator to take up generation 1" in seen[0]
    assert "0/2 available" in seen[1]
    assert "1/2 available" in seen[2]
    assert "1 to stop" in seen[3]


async def test_a_status_of_an_older_generation_does_not_count(client, slow):
    slow.set_status("web", status(slow))
    scaled = await client.scale("web", 3)
    follow = asyncio.ensure_future(client.follow(scaled, timeout_s=10))
    # The status still speaks of generation 1, which looks complete.
    slow.put(copied(slow.workloads["default", "web"]))
    slow.set_status("web", status(slow))
    assert (await follow).status.observed_generation == 2


async def test_a_replica_that_failed_for_good_ends_the_wait_with_its_last_lines(client, slow):
    ended = api.ExitStatus(code=1, reason="exit code 1", log_tail="starting\nno database")
    broken = replica_of(slow.workloads["default", "web"], 1, phase=Phase.FAILED, ready=False, last_exit=ended)
    with pytest.raises(cloudless.RolloutFailed) as caught:
        await wait_while(
            client, [lambda: slow.set_status("web", status(slow, available_replicas=1, replicas=[broken]))]
        )
    error = caught.value
    assert error.replica == "web/1"
    assert error.log_lines == ("starting", "no database")
    assert "web/1: exit code 1" in error.message


async def test_a_crash_loop_ends_the_wait_and_one_crash_does_not(client, slow):
    def crashed(restarts):
        ended = api.ExitStatus(code=137, oom_killed=True)
        replica = replica_of(
            slow.workloads["default", "web"], 0, phase=Phase.BACKING_OFF, restarts=restarts, last_exit=ended
        )
        return lambda: slow.set_status("web", status(slow, available_replicas=1, replicas=[replica]))

    with pytest.raises(cloudless.RolloutFailed, match="out of memory"):
        await wait_while(client, [crashed(1), crashed(2)])


async def test_old_replicas_that_crash_do_not_fail_a_new_revision(client, slow):
    old = replica_of(slow.workloads["default", "web"], 0, revision=0, phase=Phase.FAILED, ready=False)
    steps = [
        lambda: slow.set_status("web", status(slow, current_replicas=3, replicas=[old])),
        lambda: slow.set_status("web", status(slow)),
    ]
    await wait_while(client, steps)


async def test_a_failed_rollout_ends_the_wait_with_its_explanation(client, slow):
    failed = api.RolloutStatus(
        RolloutPhase.FAILED,
        1,
        because="no progress for 600 s; not rolled back: auto_rollback is off",
        failure=api.RolloutFailure(reason="ProgressDeadlineExceeded", message="no progress for 600 s"),
    )
    with pytest.raises(cloudless.RolloutFailed, match="no progress for 600 s") as caught:
        await wait_while(
            client, [lambda: slow.set_status("web", status(slow, available_replicas=0, rollout=failed))]
        )
    assert caught.value.explanation.outcome == "not rolled back: auto_rollback is off"
    assert caught.value.rolled_back_to == 0
    # The first revision has none before it: no undo is offered.
    assert caught.value.hint == (
        "cloudless rollout history web --revision 1\ncloudless rollout retry web, or apply what is mended"
    )


async def test_what_cannot_be_placed_ends_the_wait_after_some_patience(client, slow, monkeypatch):
    monkeypatch.setattr(verdict, "PLACEMENT_PATIENCE_S", 0.05)
    refusals = [api.NodeRefusal("n1", "needs memory 8Gi, 4Gi free")]
    pending = replica_of(
        slow.workloads["default", "web"], 0, phase=Phase.PENDING, node="", ready=False, refusals=refusals
    )
    with pytest.raises(cloudless.CannotPlace) as caught:
        await wait_while(
            client, [lambda: slow.set_status("web", status(slow, available_replicas=0, replicas=[pending]))]
        )
    assert caught.value.refusals == (("n1", "needs memory 8Gi, 4Gi free"),)


@pytest.mark.parametrize(("surge", "hinted"), [("1", True), ("0", False)])
async def test_an_update_without_room_is_told_how_to_make_some(client, slow, monkeypatch, surge, hinted):
    monkeypatch.setattr(verdict, "PLACEMENT_PATIENCE_S", 0.05)
    slow.workloads["default", "web"].spec.rollout = api.RolloutStrategy(max_surge=surge)
    refusals = [api.NodeRefusal("n1", "host port 80/tcp is taken")]
    pending = replica_of(
        slow.workloads["default", "web"], 0, phase=Phase.PENDING, node="", ready=False, refusals=refusals
    )
    rollout = api.RolloutStatus(api.RolloutStatusPhase.PROGRESSING, 2, from_revision=1)
    with pytest.raises(cloudless.CannotPlace) as caught:
        await wait_while(
            client, [lambda: slow.set_status("web", status(slow, replicas=[pending], rollout=rollout))]
        )
    assert "cloudless rollout abort web ends it now" in caught.value.hint
    room = "cloudless update web --set rollout.max_surge=0 --set rollout.max_unavailable=1"
    assert (room in caught.value.hint) is hinted


async def test_time_is_up(client, slow):
    slow.set_status("web", status(slow, available_replicas=1))
    with pytest.raises(cloudless.WaitTimeout, match="1/2 available"):
        await client.wait("web", timeout_s=0.1)


async def test_deleted_meanwhile(client, slow):
    def remove():
        workload = slow.workloads["default", "web"]
        slow.put(workload, api.WatchWorkloadsResponseType.DELETED)

    with pytest.raises(cloudless.NotFound, match="deleted meanwhile"):
        await wait_while(client, [lambda: slow.set_status("web", status(slow, available_replicas=1)), remove])


async def test_deletion_is_waited_for_until_nothing_is_left(client, slow):
    deleted = await client.delete("web")
    follow = asyncio.ensure_future(client.follow(deleted, "deleted", timeout_s=10))
    slow.set_status("web", status(slow, current_replicas=1))
    slow.put(slow.workloads["default", "web"], api.WatchWorkloadsResponseType.DELETED)
    await follow


async def test_run_to_completion(client, slow):
    done = [
        replica_of(slow.workloads["default", "web"], index, phase=Phase.SUCCEEDED, ready=False)
        for index in (0, 1)
    ]
    slow.set_status("web", status(slow, available_replicas=0, ready_replicas=0, replicas=done))
    assert (await client.wait("web", "completed", timeout_s=5)).phase == "Succeeded"
    await client.wait("web", "available", timeout_s=5)


async def test_an_unknown_goal_is_refused(client):
    with pytest.raises(cloudless.Invalid, match="for_"):
        await client.wait("web", "happy")  # type: ignore[arg-type]


def unable(slow, message):
    replica = replica_of(
        slow.workloads["default", "web"], 0, phase=Phase.BACKING_OFF, ready=False, message=message
    )
    return lambda: slow.set_status("web", status(slow, available_replicas=0, replicas=[replica]))


async def test_an_image_that_is_not_there_ends_the_wait_at_once(client, slow):
    with pytest.raises(cloudless.RolloutFailed, match="ImageNotFound: no such tag"):
        await wait_while(client, [unable(slow, "ImageNotFound: no such tag")], timeout_s=60)


async def test_a_registry_that_is_away_ends_it_after_some_patience(client, slow, monkeypatch):
    monkeypatch.setattr(verdict, "START_PATIENCE_S", 0.05)
    steps = [unable(slow, "RegistryUnavailable: a"), unable(slow, "RegistryUnavailable: b")]
    with pytest.raises(cloudless.RolloutFailed, match="RegistryUnavailable: b"):
        await wait_while(client, steps)


async def test_settling_sees_what_ends_right_after_its_start(client, slow):
    ended = api.ExitStatus(code=1, log_tail="boom")
    crashed = replica_of(
        slow.workloads["default", "web"], 0, phase=Phase.FAILED, ready=False, last_exit=ended
    )
    steps = [
        lambda: slow.set_status("web", status(slow)),
        lambda: slow.set_status("web", status(slow, available_replicas=1, replicas=[crashed])),
    ]
    with pytest.raises(cloudless.RolloutFailed, match="exit code 1"):
        await wait_while(client, steps, settle_s=10.0)
