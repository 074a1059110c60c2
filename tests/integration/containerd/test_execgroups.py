"""Groups of executed processes: nothing that one of them started can hide."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.integration.containerd.conftest import DEADLINE_S, Bench

from cloudless.containerd import errors, limits, oci
from cloudless.containerd.execgroups import ExecGroup, Hierarchy, find_hierarchy
from cloudless.containerd.execprocess import ExecProcess
from cloudless.containerd.runtimes import Runtime, probe

#: Forks twice, in a session of its own, with nothing in its environment, deaf to SIGTERM.
HIDING = "(env -i setsid sh -c 'trap \"\" TERM; sleep 2001 & sleep 2002' &) & "


@pytest.fixture
def hierarchy() -> Hierarchy:
    found = find_hierarchy()
    if found is None:
        pytest.skip("no control groups to put processes into")
    return found


@pytest.fixture
async def container(bench: Bench, hierarchy: Hierarchy, tmp_path: pathlib.Path) -> str:
    runtime = probe(tmp_path / "wrappers", groups=hierarchy)["runc"]
    assert isinstance(runtime, Runtime)
    return await bench.start(runtime=runtime)


@asynccontextmanager
async def executed(
    bench: Bench, hierarchy: Hierarchy, container_id: str, script: str, **options: object
) -> AsyncIterator[ExecProcess]:
    spec = (await bench.client.containers.get(container_id)).spec_dict()
    process = oci.exec_process(spec, ["sh", "-c", script], **options)  # type: ignore[arg-type]
    exec_id = f"x-{bench.new_id()}"
    group = ExecGroup.of(hierarchy, spec["linux"]["cgroupsPath"], exec_id)
    assert group is not None
    async with bench.client.processes.exec(
        container_id, process, exec_id=exec_id, fifo_dir=bench.fifos, group=group
    ) as running:
        yield running
    assert not group.path.exists() or group.pids()


async def read_line(running: ExecProcess) -> bytes:
    assert running.stdout is not None
    return await running.stdout.read()


async def test_what_hides_is_ended_with_the_process(
    bench: Bench, hierarchy: Hierarchy, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EXEC_TERM_GRACE_S", 0.3)
    before = set(await bench.client.tasks.pids(container))
    async with executed(bench, hierarchy, container, HIDING + "echo up; wait; sleep 2003") as running:
        assert await read_line(running) == b"up\n"
        assert running.group is not None
        async with asyncio.timeout(DEADLINE_S):  # while it forks, two looks do not see the same
            while len(set(await bench.client.tasks.pids(container)) - before) != len(running.group.pids()):
                await asyncio.sleep(0.02)
    assert set(await bench.client.tasks.pids(container)) == before
    assert not list(bench.fifos.iterdir())


async def test_children_of_one_that_ended_by_itself_live_on_and_can_be_ended(
    bench: Bench, hierarchy: Hierarchy, container: str
) -> None:
    async with executed(bench, hierarchy, container, "sleep 2001 >&- 2>&- & exit 3") as running:
        assert (await running.wait()).exit_code == 3
    assert running.group is not None
    assert len(running.group.pids()) == 1
    assert not running.group.remove()
    assert await running.group.end()
    assert running.group.remove()


async def test_a_shell_for_people_is_hung_up_on(
    bench: Bench, hierarchy: Hierarchy, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It ignores SIGTERM; without being hung up on it would last for the whole grace.
    monkeypatch.setattr(limits, "EXEC_TERM_GRACE_S", 2 * DEADLINE_S)
    async with executed(bench, hierarchy, container, "echo up; exec sh -i", terminal=True) as running:
        assert b"up" in await read_line(running)
        async with asyncio.timeout(DEADLINE_S):
            await running.end()


async def test_a_container_of_another_runtime_is_joined_late(bench: Bench, hierarchy: Hierarchy) -> None:
    """Without the wrapper the process moves into its group as soon as its number is known."""
    container_id = await bench.start()
    before = set(await bench.client.tasks.pids(container_id))
    async with executed(bench, hierarchy, container_id, "read x; sleep 2001 & sleep 2002") as running:
        assert running.group is not None
        assert running.late
        # What it has started before is outside, what it starts afterwards is inside: neither stays.
        assert running.pid in running.group.pids()
    await bench.wait_for_only(container_id, before)


async def test_a_start_that_is_given_up_leaves_nothing(
    bench: Bench, hierarchy: Hierarchy, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(await bench.client.tasks.pids(container))
    for delay_s in (0.0, 0.005, 0.01, 0.015, 0.02, 0.03):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(delay_s), executed(bench, hierarchy, container, "sleep 2001") as it:
                await it.wait()
        await bench.wait_for_only(container, before)
        assert not list(bench.fifos.iterdir())


async def test_a_container_that_is_gone_has_no_groups(
    bench: Bench, hierarchy: Hierarchy, container: str
) -> None:
    await bench.client.tasks.kill(container, 9)
    await bench.client.tasks.wait(container, timeout_s=10)
    await bench.client.tasks.delete(container)
    with pytest.raises(errors.NotFound):
        async with executed(bench, hierarchy, container, "true"):
            pass
    assert not list(bench.fifos.iterdir())


async def test_a_group_goes_with_its_container(bench: Bench, hierarchy: Hierarchy, container: str) -> None:
    async with executed(bench, hierarchy, container, "sleep 2001 >&- 2>&- & exit 0") as running:
        await running.wait()
    assert running.group is not None
    await bench.client.tasks.kill(container, 9, all_processes=True)
    await bench.client.tasks.wait(container, timeout_s=10)
    await bench.client.tasks.delete(container)
    assert not running.group.path.parent.exists()
