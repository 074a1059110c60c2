from __future__ import annotations

import asyncio
import datetime
import os
import socket

import pytest
from fake_coordinator import NOW, UNAVAILABLE, node

import cloudless
from cloudless import api
from cloudless.domain.errors import Unavailable
from cloudless.sdk.author import find_author


def workload(name: str = "web", **fields):
    return cloudless.Workload(name, **{"image": "web:1.4"} | fields)


async def test_create_get_and_spec(client):
    created = await client.create(workload(replicas=3, env={"A": "1"}, labels={"app": "web"}))
    assert (created.outcome, created.generation) == ("created", 1)
    web = await client.get("web")
    assert web.spec.env == {"A": "1"}
    assert web.status.available_replicas == 3
    assert [replica.name for replica in web.replicas] == ["web/0", "web/1", "web/2"]
    assert web.phase == "Available"
    assert web.created_at == NOW


async def test_names_may_carry_their_namespace(client):
    await client.create(workload(namespace="shop"))
    assert (await client.get("shop/web")).namespace == "shop"
    with pytest.raises(cloudless.NotFound):
        await client.get("web")


async def test_errors_are_those_of_the_domain(client):
    await client.create(workload())
    with pytest.raises(cloudless.AlreadyExists):
        await client.create(workload())
    with pytest.raises(cloudless.NotFound):
        await client.scale("nothing", 1)
    with pytest.raises(cloudless.Conflict):
        await client.update("web", image="web:2", resource_version="1")
    with pytest.raises(cloudless.Invalid) as caught:
        await client.scale("web", -1)
    assert caught.value.violations[0].path == "replicas"


async def test_apply_creates_updates_and_leaves_alone(client, fake):
    assert (await client.apply(workload())).outcome == "created"
    assert (await client.apply(workload())).outcome == "unchanged"
    assert (await client.apply(workload(image="web:2"))).outcome == "updated"
    assert (await client.get("web")).generation == 2
    planned = await client.apply(workload(image="web:3"), dry_run=True)
    assert [step.action for step in planned.plan] == ["stop"]
    assert (await client.get("web")).spec.image == "web:2"


async def test_apply_goes_on_when_somebody_else_was_faster(client, fake):
    fake.failures["create"] = [cloudless.AlreadyExists("made meanwhile")]
    assert (await client.apply(workload())).outcome == "created"
    assert len(fake.asked("create")) == 2


async def test_update_changes_only_what_is_named(client, fake):
    await client.create(workload(env={"A": "1"}, replicas=2))
    updated = await client.update("web", image="web:2", message="newer")
    assert updated.outcome == "updated"
    request = fake.asked("update")[-1]
    assert request.update_mask.paths == ["spec.image"]
    assert request.message == "newer"
    assert (await client.get("web")).spec.env == {"A": "1"}


async def test_edit_tries_again_after_a_conflict(client, fake):
    await client.create(workload())
    fake.failures["update"] = [cloudless.Conflict("changed"), cloudless.Conflict("changed")]
    await client.edit("web", lambda before: {"replicas": before.spec.replicas + 1})
    assert (await client.get("web")).spec.replicas == 2
    fake.failures["update"] = [cloudless.Conflict("changed")] * 10
    with pytest.raises(cloudless.Conflict):
        await client.edit("web", lambda before: {"replicas": 5})


async def test_list_reads_all_pages(client, fake):
    fake.page_limit = 3
    for index in range(8):
        await client.create(workload(f"w{index}", labels={"odd": str(index % 2)}))
    listed = await client.list()
    assert [item.name for item in listed] == [f"w{index}" for index in range(8)]
    assert listed.resource_version == str(fake.version)
    assert len(await client.list(selector="odd=1")) == 4
    assert len(await client.list("elsewhere")) == 0


async def test_delete_and_wait_until_nothing_is_left(client, fake):
    await client.create(workload())
    deleted = await client.delete("web", grace_s=0)
    assert deleted.deleted_at is not None
    assert fake.asked("delete")[0].grace_period == datetime.timedelta(0)
    await client.follow(deleted, "deleted", timeout_s=5)
    await client.wait("web", "deleted", timeout_s=5)


async def test_nodes_events_revisions_info_replicas(client, fake):
    fake.nodes["n1"] = node(labels={"disk": "ssd"})
    fake.events.append(
        api.Event(id="e1", at=NOW, reason="ReplicaPlaced", kind="workload", name="web", message="on n1")
    )
    await client.create(workload(replicas=2))
    assert (await client.node("n1")).phase == "READY"
    assert [item.name for item in await client.nodes(selector="disk=ssd")] == ["n1"]
    assert await client.nodes(selector="disk=hdd") == []
    events = await client.events("web")
    assert (events[0].subject, events[0].text, events[0].at) == ("workload/web", "on n1", NOW)
    assert [item.image for item in await client.revisions("web")] == ["web:1.4"]
    assert (await client.info()).store == "memory"
    assert [item.address for item in await client.replicas("web")] == ["10.0.0.2", "10.0.0.3"]


async def test_exec(client, fake):
    await client.create(workload())
    fake.exec_answer = api.ExecCommandResponse(exit_code=3, stdout=b"out", stderr=b"err", replica="web/0")
    result = await client.exec("web", ["ls", "/"], env={"A": "1"}, user="1000", timeout_s=5)
    assert (result.exit_code, result.stdout, result.stderr, result.replica) == (3, b"out", b"err", "web/0")
    request = fake.asked("exec")[0]
    assert (request.command, request.env, request.user) == (["ls", "/"], {"A": "1"}, "1000")
    assert request.timeout == datetime.timedelta(seconds=5)


async def test_unavailable_is_tried_again_with_the_same_request_id(client, fake):
    fake.failures["create"] = [UNAVAILABLE, UNAVAILABLE]
    await client.create(workload())
    ids = {request.request_id for request in fake.asked("create")}
    assert len(fake.asked("create")) == 3
    assert len(ids) == 1
    assert "" not in ids


async def test_exec_is_never_tried_twice(client, fake):
    await client.create(workload())
    fake.failures["exec"] = [UNAVAILABLE]
    with pytest.raises(Unavailable):
        await client.exec("web", ["true"])
    assert len(fake.asked("exec")) == 1


async def test_no_patience_means_one_try(fake):
    fake.failures["get"] = [UNAVAILABLE] * 5
    async with cloudless.connect(fake.address, patience_s=0.0) as impatient:
        with pytest.raises(Unavailable):
            await impatient.get("web")
    assert len(fake.asked("get")) == 1


async def test_nobody_there():
    async with cloudless.connect("127.0.0.1:1", patience_s=0.0) as nobody:
        with pytest.raises(Unavailable) as caught:
            await nobody.list()
    assert caught.value.code == "CL-8001"
    assert "127.0.0.1:1" in caught.value.message


async def test_a_client_is_used_as_a_context_manager():
    client = cloudless.connect("127.0.0.1:1")
    with pytest.raises(RuntimeError, match="async with"):
        await client.get("web")


async def test_cancelling_a_call_leaves_the_client_usable(client, fake):
    await client.create(workload())
    async with client.logs("web", follow=True) as lines:
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert (await client.get("web")).name == "web"


@pytest.mark.parametrize(
    ("given", "environment", "sent"),
    [
        (None, None, f"root@{socket.gethostname()}"),
        (None, "ci #5", "ci #5"),
        ("me", "ci #5", "me"),
        ("", "x", ""),
    ],
)
async def test_who_asks_goes_with_each_revision(fake, monkeypatch, given, environment, sent):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    monkeypatch.delenv("CLOUDLESS_AUTHOR", raising=False)
    if environment is not None:
        monkeypatch.setenv("CLOUDLESS_AUTHOR", environment)
    async with cloudless.connect(fake.address, author=given) as c:
        await c.apply(cloudless.Workload("web", image="web:1"), message="first")
        await c.apply(cloudless.Workload("web", image="web:2"))
        await c.update("web", image="web:3")
        await c.restart("web")
        await c.undo("web")
        await c.pause("web")
    asked = [*fake.asked("create"), *fake.asked("update"), *fake.asked("rollout")]
    assert [one.author for one in asked] == [sent] * 5 + [""]
    assert fake.asked("create")[0].message == "first"


async def test_a_user_without_a_name_has_a_number(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert find_author({}) == f"{os.getuid()}@{socket.gethostname()}"
