"""Pulls by the whole program from registries that want names, are slow, silent, broken or moving."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.conftest import open_client
from tests.integration.containerd.imagebuild import Entry, OciImage, busybox_layer, layer, oci_image
from tests.integration.containerd.registry import PASSWORD, USER, Registry
from tests.integration.program.served import Served
from tests.integration.soak.proxy import Proxy

import cloudless
from cloudless.containerd.errors import RegistryUnavailable
from cloudless.sdk.objects import Replica

LIMIT_S = 60.0
MIB = 1 << 20


def image(size_bytes: int = 0, seed: int = 0) -> OciImage:
    """One that sleeps; with so many bytes that cannot be packed."""
    data = random.Random(seed).randbytes(size_bytes)
    layers = [busybox_layer(("sh", "sleep")), layer({"data": Entry(data), "seed": Entry(b"%d" % seed)})]
    return oci_image(layers, Cmd=["sleep", "1000"])


def workload(name: str, reference: str, **fields: Any) -> cloudless.Workload:
    return cloudless.Workload(name, image=reference, stop_grace_period="0s", **fields)


async def until(
    client: cloudless.Client, name: str, fits: Callable[[Replica, str], bool]
) -> tuple[Replica, list[str]]:
    """Wait for what the workload's newest replica says; with everything that it said on the way."""
    said: list[str] = []
    async with asyncio.timeout(LIMIT_S):
        while True:
            for replica in await client.replicas(name):
                message = replica.message.message
                if message not in said:
                    said.append(message)
                if fits(replica, message):
                    return replica, said
            await asyncio.sleep(0.02)


async def until_running(client: cloudless.Client, name: str) -> tuple[Replica, list[str]]:
    return await until(client, name, lambda replica, message: replica.phase == "RUNNING")


async def until_failed(client: cloudless.Client, name: str, reason: str) -> str:
    replica, _ = await until(client, name, lambda replica, message: replica.phase == "BACKING_OFF")
    said = str(replica.message.message)
    assert said.startswith(f"{reason}: "), said
    return said


async def test_a_registry_wants_a_name(
    program: Served, client: cloudless.Client, locked_registry: Registry
) -> None:
    reference = locked_registry.push("app", "1", image())
    secret = {"server": locked_registry.host, "username": USER, "password": PASSWORD}
    await client.create(workload("none", reference))
    await client.create(workload("wrong", reference, pull_secrets=[{**secret, "password": "guessed"}]))
    await client.create(workload("right", reference, pull_secrets=[secret]))
    await until_failed(client, "none", "ImagePullDenied")
    await until_failed(client, "wrong", "ImagePullDenied")
    await until_running(client, "right")
    await client.follow(await client.update("wrong", pull_secrets=[secret]))
    assert PASSWORD not in program.log.read_text()


async def test_two_share_a_slow_pull_and_say_how_far_it_is(
    client: cloudless.Client, registry: Registry, proxy: Proxy
) -> None:
    registry.push("slow", "1", image(16 * MIB, 1))
    proxy.rate = 5 * MIB
    for name in ("first", "second"):
        await client.create(workload(name, f"{proxy.host}/slow:1"))
    for _, said in await asyncio.gather(*(until_running(client, name) for name in ("first", "second"))):
        assert any("%" in line and "MiB" in line for line in said), said
    assert proxy.sent < 20 * MIB


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal Server Error"])
async def test_a_registry_that_fails_is_asked_again(
    client: cloudless.Client, registry: Registry, proxy: Proxy, status: str
) -> None:
    registry.push("app", "1", image())
    proxy.status = status
    await client.create(workload("app", f"{proxy.host}/app:1"))
    assert status in await until_failed(client, "app", "RegistryUnavailable")
    proxy.status = ""
    proxy.cut()
    await until_running(client, "app")


async def test_a_pull_that_is_cut_goes_on(client: cloudless.Client, registry: Registry, proxy: Proxy) -> None:
    registry.push("cut", "1", image(4 * MIB, 2))
    proxy.cut_after = 2 * MIB
    await client.create(workload("cut", f"{proxy.host}/cut:1"))
    await until_failed(client, "cut", "RegistryUnavailable")
    proxy.cut_after = 0
    await until_running(client, "cut")


async def test_damaged_bytes_never_run(client: cloudless.Client, registry: Registry, proxy: Proxy) -> None:
    registry.push("damaged", "1", image(2 * MIB, 3))
    proxy.damage = True
    await client.create(workload("damaged", f"{proxy.host}/damaged:1"))
    assert "digest" in await until_failed(client, "damaged", "ImageInvalid")
    proxy.damage = False
    await until_running(client, "damaged")


async def test_a_tag_that_moves_changes_nothing_by_itself(
    client: cloudless.Client, registry: Registry
) -> None:
    old, new = image(seed=4), image(seed=5)
    reference = registry.push("moving", "t", old)
    await client.follow(await client.create(workload("moving", reference, image_pull_policy="ALWAYS")))
    registry.push("moving", "t", new)
    await client.follow(await client.scale("moving", 2))
    assert {one.message.image_digest for one in await client.replicas("moving")} == {old.digest}
    await client.follow(await client.update("moving", env={"NEW": "1"}))
    assert {one.message.image_digest for one in await client.replicas("moving")} == {new.digest}
    registry.push("moving", "t", old)
    for policy, expected in (("NEVER", new), ("IF_NOT_PRESENT", new), ("ALWAYS", old)):
        name = policy.lower().replace("_", "-")
        await client.create(workload(name, reference, image_pull_policy=policy))
        replica, _ = await until_running(client, name)
        assert replica.message.image_digest == expected.digest, policy
    await client.create(workload("absent", f"{registry.host}/absent:1", image_pull_policy="NEVER"))
    await until_failed(client, "absent", "ImageNotFound")


async def test_a_silent_registry_holds_up_itself_alone(
    client: cloudless.Client, registry: Registry, proxy: Proxy
) -> None:
    registry.push("app", "1", image())
    proxy.silent = True
    names = [f"stuck-{number}" for number in range(4)]
    for name in names:
        await client.create(workload(name, f"{proxy.host}/{name}:1"))
    await until(client, names[0], lambda replica, message: message.startswith("resolving"))
    await client.create(workload("good", f"{registry.host}/app:1", image_pull_policy="ALWAYS"))
    await until_running(client, "good")
    for name in names:
        await client.follow(await client.delete(name), "deleted", timeout_s=LIMIT_S)


@pytest.mark.parametrize("from_the_start", [True, False])
async def test_a_pull_of_which_nothing_comes_fails(
    program: Served, registry: Registry, proxy: Proxy, from_the_start: bool
) -> None:
    registry.push("stalled", "1", image(4 * MIB, 6 + from_the_start))
    proxy.silent = from_the_start
    proxy.rate = MIB
    async with open_client(program.socket) as containerd, asyncio.TaskGroup() as group:

        async def fall_silent() -> None:
            while proxy.sent < MIB:
                await asyncio.sleep(0.02)
            proxy.silent = True

        falling = group.create_task(fall_silent())
        with pytest.raises(RegistryUnavailable, match="stopped sending"):
            await containerd.puller.pull(f"{proxy.host}/stalled:1", stall_s=1.0, begin_s=1.0)
        falling.cancel()
        while await containerd.content.ingests():
            await asyncio.sleep(0.02)
        proxy.silent, proxy.rate = False, 0
        proxy.cut()
        await containerd.puller.pull(f"{proxy.host}/stalled:1")
