from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.agent.virtual import virtual, virtual_clock
from tests.unit.agent.world import IMAGE, World, assignment, spec

from cloudless.agent import housekeeping
from cloudless.agent.images import ImageKeeper
from cloudless.agent.resources import DiskUse
from cloudless.agent.runtime.errors import ImageNotFound, RegistryAway
from cloudless.agent.runtime.memory import MemoryRuntime
from cloudless.agent.runtime.memorymachine import MemoryMachine
from cloudless.agent.runtime.port import PullProgress
from cloudless.aio.supervise import Supervisor
from cloudless.domain.replica import ReplicaPhase


def ignore(progress: PullProgress) -> None:
    return


def machine() -> MemoryMachine:
    made = MemoryMachine(virtual_clock())
    made.add_image(IMAGE, pull_s=10.0)
    return made


@virtual
async def test_callers_of_one_image_share_a_pull_and_the_last_to_leave_stops_it() -> None:
    there = machine()
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        first = tasks.start("first", keeper.pull(IMAGE, None, ignore))
        second = tasks.start("second", keeper.pull(IMAGE, None, ignore))
        await asyncio.sleep(1)
        first.cancel()
        image = await second
        assert (there.pulls, image.name) == (1, IMAGE)
        third = tasks.start("third", keeper.pull(IMAGE, None, ignore))
        await asyncio.sleep(1)
        third.cancel()
        await asyncio.sleep(1)
        assert tasks.names == ()
        assert (await keeper.pull(IMAGE, None, ignore)).name == IMAGE
        assert there.pulls == 3


@virtual
async def test_a_failed_pull_fails_for_all_and_is_forgotten() -> None:
    there = machine()
    there.registry_away = True
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        results = await asyncio.gather(
            *(keeper.pull(IMAGE, None, ignore) for _ in range(3)), return_exceptions=True
        )
        assert [type(result) for result in results] == [RegistryAway] * 3
        there.registry_away = False
        await keeper.pull(IMAGE, None, ignore)


@virtual
async def test_at_most_three_pulls_of_a_registry_run_at_the_same_time() -> None:
    there = machine()
    names = [f"docker.io/library/app{number}:1" for number in range(6)]
    for name in names:
        there.add_image(name, pull_s=10.0)
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        await asyncio.gather(*(keeper.pull(name, None, ignore) for name in names))
    assert there.clock.monotonic() == pytest.approx(20.0, abs=0.1)


@virtual
async def test_a_registry_that_hangs_holds_up_no_other() -> None:
    there = machine()
    stuck = [f"stuck.example/app{number}:1" for number in range(4)]
    for name in stuck:
        there.add_image(name, pull_s=10_000.0)
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        for name in stuck:
            tasks.start(name, keeper.pull(name, None, ignore))
        await asyncio.sleep(1)
        await keeper.pull(IMAGE, None, ignore)
        assert there.clock.monotonic() == pytest.approx(11.0, abs=0.1)


@virtual
async def test_the_policies() -> None:
    there = machine()
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        with pytest.raises(ImageNotFound, match="NEVER"):
            await keeper.ensure(spec(image_pull_policy="NEVER"), "", ignore)
        image = await keeper.ensure(spec(image_pull_policy="IF_NOT_PRESENT"), "", ignore)
        await keeper.ensure(spec(image_pull_policy="IF_NOT_PRESENT"), "", ignore)
        assert there.pulls == 1
        await keeper.ensure(spec(image_pull_policy="ALWAYS"), "", ignore)
        assert there.pulls == 2
        await keeper.ensure(spec(image_pull_policy="ALWAYS"), image.digest, ignore)
        assert there.pulls == 2
        with pytest.raises(ImageNotFound):
            await keeper.ensure(spec(image_pull_policy="NEVER"), f"sha256:{'0' * 64}", ignore)
        await keeper.ensure(spec(image_pull_policy="IF_NOT_PRESENT"), "", ignore, pull=True)
        assert there.pulls == 3
        await keeper.ensure(spec(image_pull_policy="IF_NOT_PRESENT"), image.digest, ignore, pull=True)
        await keeper.ensure(spec(image_pull_policy="NEVER"), "", ignore, pull=True)
        assert there.pulls == 3


@virtual
async def test_an_imported_image_that_no_registry_gives_is_run_as_it_is() -> None:
    there = machine()
    there.images[IMAGE] = replace(there.add_image(IMAGE), imported=True)
    there.registry.clear()
    told: list[str] = []
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        wanted = spec(image_pull_policy="IF_NOT_PRESENT")
        assert (await keeper.ensure(wanted, "", ignore, pull=True, tell=told.append)).imported
        there.registry_away = True
        assert (await keeper.ensure(wanted, "", ignore, pull=True, tell=told.append)).imported
        assert [text.partition(";")[0] for text in told] == [
            f"pull {IMAGE}: not found",
            f"pull {IMAGE}: connection refused",
        ]
        assert all("was imported to this node" in text for text in told)
        with pytest.raises(RegistryAway):  # who always asks a registry wants its answer
            await keeper.ensure(spec(image_pull_policy="ALWAYS"), "", ignore, pull=True, tell=told.append)
        there.images[IMAGE] = replace(there.images[IMAGE], imported=False)
        with pytest.raises(RegistryAway):
            await keeper.ensure(wanted, "", ignore, pull=True, tell=told.append)
        assert len(told) == 2


@virtual
async def test_what_a_tag_meant_is_run_after_it_has_moved() -> None:
    there = machine()
    async with Supervisor("test") as tasks:
        keeper = ImageKeeper(MemoryRuntime(there), tasks)
        wanted = spec(image_pull_policy="IF_NOT_PRESENT")
        old = await keeper.ensure(wanted, "", ignore)
        there.add_image(IMAGE, digest="sha256:" + "1" * 64)
        await keeper.ensure(wanted, "", ignore, pull=True)
        there.registry_away = True
        assert (await keeper.ensure(wanted, old.digest, ignore)).digest == old.digest


@virtual
async def test_a_replica_that_is_to_pull_gets_what_its_tag_means_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start(assignment("r1"))
    old = (await world.until_running("r1")).image_digest
    world.machine.add_image(IMAGE, digest="sha256:" + "1" * 64)
    await world.tell(assignment("r2"))
    assert (await world.until_running("r2")).image_digest == old
    await world.tell(assignment("r3").replaced(pull=True))
    assert (await world.until_running("r3")).image_digest == "sha256:" + "1" * 64
    pulls = world.machine.pulls
    world.machine.end("cl-r3-1", 1)
    await world.until_running("r3", restarts=1)
    assert world.machine.pulls == pulls, "a restart in place runs the same image"
    await world.kill()


@virtual
async def test_a_registry_that_is_away_holds_up_who_must_ask_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start(assignment("r1"))
    await world.until_running("r1")
    world.machine.registry_away = True
    await world.tell(assignment("r2").replaced(pull=True))
    seen = await world.until_phase(ReplicaPhase.BACKING_OFF, "r2")
    assert "RegistryUnavailable" in seen.message
    world.machine.registry_away = False
    await world.until_running("r2")
    await world.kill()


@virtual
async def test_unused_images_go_while_the_disk_is_too_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    await world.start(assignment())
    await world.until_running()
    for number in range(5):
        name = f"docker.io/library/old{number}:1"
        world.machine.images[name] = world.machine.add_image(name)
    there = set(world.machine.images)

    def disk(path: Path) -> DiskUse:
        return DiskUse(70 + 5 * (len(world.machine.images) - 3), 0)

    monkeypatch.setattr(housekeeping, "read_disk", disk)
    await asyncio.sleep(61)
    assert len(there) == 6
    assert len(world.machine.images) == 4  # 85 % began it, 75 % ends it
    assert IMAGE in world.machine.images
    world.machine.images = {IMAGE: world.machine.images[IMAGE]}
    monkeypatch.setattr(housekeeping, "read_disk", lambda path: DiskUse(99, 0))
    await asyncio.sleep(61)
    assert set(world.machine.images) == {IMAGE}
    await world.kill()


@virtual
async def test_versions_of_an_image_in_use_go_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    await world.start(assignment())
    await world.until_running()
    earlier, other = f"{IMAGE}-earlier", "docker.io/library/other:1"
    for name in (earlier, other):
        world.machine.images[name] = world.machine.add_image(name)
    monkeypatch.setattr(
        housekeeping, "read_disk", lambda path: DiskUse(60 + 10 * (len(world.machine.images) - 1) + 5, 0)
    )
    await asyncio.sleep(61)  # 85 % with three, 75 % with two
    assert set(world.machine.images) == {IMAGE, earlier}
    monkeypatch.setattr(housekeeping, "read_disk", lambda path: DiskUse(99, 0))
    await asyncio.sleep(61)
    assert set(world.machine.images) == {IMAGE}
    await world.kill()
