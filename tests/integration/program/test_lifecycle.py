"""One workload from its making to its end, by the command line and by the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, alive, until

import cloudless
from cloudless import Workload

#: Ends when told to, unlike a bare ``sleep``: the first process of a container ignores SIGTERM.
SLEEP = ("--", "sh", "-c", "trap exit TERM; sleep 1000 & wait")


def manifest(**fields: Any) -> str:
    return json.dumps(
        {
            "kind": "Workload",
            "image": IMAGE,
            "command": ["sleep", "1000"],
            "stop_grace_period": "0s",
            **fields,
        }
    )


def test_by_command_line(tidy: Served) -> None:
    made = tidy.cli("run", "web", IMAGE, "--replicas", "2", "-l", "app=web", *SLEEP)
    assert made.out.splitlines() == ["workload/web created", "workload/web 2/2 available, revision 1"]
    first = tidy.running("web")
    assert len(first) == 2
    assert all(alive(one.pid) for one in first)

    described = tidy.cli("describe", "workload", "web").out
    assert "2 wanted, 2 there, 2 updated, 2 ready, 2 available" in described
    tidy.cli("scale", "web", "3")
    assert {one.pid for one in first} < {one.pid for one in tidy.running("web")}

    written = tidy.cli("get", "workload", "web", "-o", "yaml").out
    assert tidy.cli("apply", "-f", "-", stdin=written).out.splitlines()[0] == "workload/web unchanged"
    assert tidy.cli("diff", "-f", "-", stdin=written).code == 0
    tidy.cli("diff", "-f", "-", stdin=written.replace("1000", "999"), code=1)

    tidy.cli("update", "web", "-e", "A=1")
    second = tidy.running("web")
    assert len(second) == 3
    assert not {one.replica_id for one in second} & {one.replica_id for one in first}
    assert tidy.cli("exec", "web", "--", "sh", "-c", "echo $A").out == "1\n"

    tidy.cli("scale", "web", "0")
    assert until(lambda: not tidy.running("web"), "nothing of it runs")
    assert tidy.cli("get", "web").out.splitlines()[1].split()[:3] == ["web", "0/0", "Stopped"]
    tidy.cli("scale", "web", "1")
    assert len(tidy.running("web")) == 1
    tidy.cli("delete", "web", "--wait")
    assert not tidy.running()
    assert "does not exist" in tidy.cli("get", "web", code=5).err
    reasons = [line.split()[2] for line in tidy.cli("events").out.splitlines()[1:] if "web" in line]
    assert {"RevisionCreated", "Started", "RolloutCompleted", "WorkloadDeleted"} <= set(reasons)


async def test_by_sdk(tidy: Served) -> None:
    async with tidy.client() as client:
        made = await client.create(
            Workload("web", image=IMAGE, command=["sleep", "1000"], replicas=2, stop_grace_period="0s")
        )
        assert made.outcome == "created"
        with pytest.raises(cloudless.AlreadyExists):
            await client.create(Workload("web", image=IMAGE))
        done = await client.wait("web", timeout_s=20)
        assert done.status.available_replicas == 2
        seen: list[str] = []
        async with client.watch(name="web") as changes:
            await client.update("web", env={"A": "1"})
            async for change in changes:
                seen.append(change.workload.phase)
                status = change.workload.status
                if status.revision == 2 and change.workload.phase == "Available":
                    break
        assert "Progressing" in seen
        stale = done.resource_version
        with pytest.raises(cloudless.Conflict):
            await client.scale("web", 3, resource_version=stale)
        rehearsed = await client.scale("web", 3, dry_run=True)
        assert rehearsed.plan
        assert (await client.get("web")).message.spec.replicas == 2
        await client.delete("web")
        await client.wait("web", "deleted", timeout_s=20)
        with pytest.raises(cloudless.NotFound):
            await client.get("web")


def test_namespaces_and_selectors(tidy: Served) -> None:
    for space, tier in (("default", "front"), ("shop", "back")):
        text = manifest(name="web", namespace=space, labels={"tier": tier})
        tidy.cli("apply", "-f", "-", stdin=text)

    def names(*words: str) -> list[str]:
        items = tidy.cli("get", "workloads", "-o", "json", *words).json["items"]
        return sorted(f"{one['namespace']}/{one['name']}" for one in items)

    assert names() == ["default/web"]
    assert names("-n", "shop") == ["shop/web"]
    assert names("-A") == ["default/web", "shop/web"]
    assert names("-A", "-l", "tier=back") == ["shop/web"]
    assert names("-A", "-l", "tier!=back") == ["default/web"]
    assert names("-A", "-l", "tier in (front, back)") == ["default/web", "shop/web"]
    assert names("-A", "-l", "!tier") == []
    tidy.cli("delete", "shop/web", "--wait")
    assert names("-A") == ["default/web"]


def test_deleting_what_just_starts(tidy: Served) -> None:
    for number in range(4):
        tidy.cli("apply", "-f", "-", "--no-wait", stdin=manifest(name=f"brief-{number}", replicas=3))
        tidy.cli("delete", f"brief-{number}", "--wait")
    assert not tidy.running()


async def test_many_changes_at_once_lose_nothing(tidy: Served) -> None:
    async with tidy.client() as client:
        spec: Any = {"image": IMAGE, "command": ["sleep", "1000"], "stop_grace_period": "0s"}
        await asyncio.gather(*(client.create(Workload(f"w{number}", **spec)) for number in range(8)))
        await asyncio.gather(*(client.wait(f"w{number}", timeout_s=30) for number in range(8)))
        assert len(await tidy.list_running()) == 8
        outcomes = await asyncio.gather(
            *(client.edit("w0", lambda before: {"replicas": before.spec.replicas + 1}) for _ in range(3)),
            return_exceptions=True,
        )
        done = sum(not isinstance(one, BaseException) for one in outcomes)
        assert (await client.get("w0")).message.spec.replicas == 1 + done
        with contextlib.suppress(cloudless.NotFound):
            await asyncio.gather(*(client.delete(f"w{number}", grace_s=0) for number in range(8)))
        await asyncio.gather(*(client.wait(f"w{number}", "deleted", timeout_s=30) for number in range(8)))
        assert not await tidy.list_running()
