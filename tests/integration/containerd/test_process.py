"""Executing in a running container: codes, input and output, terminals, and the end of it all."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import signal

import pytest
from tests.integration.containerd.conftest import DEADLINE_S, Bench

from cloudless.containerd import errors, limits, oci
from cloudless.containerd.execprocess import ExecProcess
from cloudless.containerd.fifos import StdinClosed
from cloudless.containerd.process import MARKER, Leftover


async def read_all(process: ExecProcess) -> bytes:
    assert process.stdout is not None
    data = bytearray()
    while chunk := await process.stdout.read():
        data += chunk
    return bytes(data)


async def spec_process(bench: Bench, container_id: str, *args: str, **options: object) -> dict[str, object]:
    record = await bench.client.containers.get(container_id)
    return oci.exec_process(record.spec_dict(), args, **options)  # type: ignore[arg-type]


async def test_output_error_and_code(bench: Bench) -> None:
    container_id = await bench.start()
    result = await bench.exec(container_id, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert not list(bench.fifos.iterdir())


@pytest.mark.parametrize(
    ("command", "code"), [("nosuch", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
async def test_commands_that_cannot_run(bench: Bench, command: str, code: int) -> None:
    container_id = await bench.start()
    with pytest.raises(errors.ContainerdError) as caught:
        await bench.exec(container_id, command)
    assert caught.value.exit_code == code
    assert not list(bench.fifos.iterdir())
    assert (await bench.exec(container_id, "true")).exit_code == 0


async def test_a_signal_gives_128_and_its_number(bench: Bench) -> None:
    container_id = await bench.start()
    assert (await bench.exec(container_id, "sh", "-c", "kill -9 $$")).exit_code == 137


async def test_environment_folder_and_user(bench: Bench) -> None:
    container_id = await bench.start()
    task = await bench.client.tasks.get(container_id)
    user = await bench.client.accounts.in_container(task.pid, "web")
    result = await bench.exec(
        container_id, "sh", "-c", "id; pwd; echo $A $FROM_IMAGE", env=["A=b"], cwd="/tmp", user=user
    )
    assert result.stdout.decode().splitlines() == [
        "uid=1001(web) gid=1002(web) groups=1005(log)",
        "/tmp",
        "b yes",
    ]


async def test_input_is_read_to_its_end(bench: Bench) -> None:
    container_id = await bench.start()
    data = os.urandom(700_000)
    result = await bench.exec(container_id, "cat", stdin=data)
    assert result.stdout == data


async def test_half_close_ends_the_input_and_not_the_process(bench: Bench) -> None:
    container_id = await bench.start()
    process = await spec_process(bench, container_id, "sh", "-c", "cat; echo after; exit 5")
    async with bench.client.processes.exec(
        container_id, process, exec_id=bench.new_id(), fifo_dir=bench.fifos, stdin=True
    ) as running:
        await running.write_stdin(b"one\n")
        assert running.stdout is not None
        assert await running.stdout.read() == b"one\n"
        await running.close_stdin()
        assert await read_all(running) == b"after\n"
        assert (await running.wait()).exit_code == 5
        with pytest.raises(StdinClosed):
            await running.write_stdin(b"more")


async def test_a_terminal_has_its_size_from_the_start_and_can_be_resized(bench: Bench) -> None:
    container_id = await bench.start()
    process = await spec_process(
        bench,
        container_id,
        "sh",
        "-c",
        "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done",
        terminal=True,
        console_size=(41, 111),
    )
    async with bench.client.processes.exec(
        container_id, process, exec_id=bench.new_id(), fifo_dir=bench.fifos, stdin=True
    ) as running:
        assert running.stderr is None
        assert running.stdout is not None
        seen = b""
        while b"ready" not in seen:
            seen += await running.stdout.read()
        assert seen.split() == [b"41", b"111", b"ready"]
        await running.resize(rows=20, columns=60)
        assert (await read_all(running)).split() == [b"20", b"60"]
        assert (await running.wait()).exit_code == 0


async def test_end_of_input_on_a_terminal_does_not_hang_up(bench: Bench) -> None:
    container_id = await bench.start()
    process = await spec_process(bench, container_id, "sh", "-c", "cat; exit 6", terminal=True)
    async with bench.client.processes.exec(
        container_id, process, exec_id=bench.new_id(), fifo_dir=bench.fifos, stdin=True
    ) as running:
        await running.close_stdin()
        await read_all(running)
        assert (await running.wait()).exit_code == 6


async def test_a_child_that_holds_the_output_does_not_hold_the_end(bench: Bench) -> None:
    container_id = await bench.start()
    result = await bench.exec(container_id, "sh", "-c", "echo first; sleep 1000 & exit 4")
    assert (result.exit_code, result.stdout) == (4, b"first\n")


async def test_all_output_arrives_though_the_process_has_ended(bench: Bench) -> None:
    container_id = await bench.start()
    process = await spec_process(bench, container_id, "head", "-c", "150000", "/dev/zero")
    async with bench.client.processes.exec(
        container_id, process, exec_id=bench.new_id(), fifo_dir=bench.fifos
    ) as running:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(running.wait())
            # Nobody reads yet: what does not fit into the pipe waits in the shim.
            await bench.client.tasks.get(container_id)
            reading = group.create_task(read_all(running))
        assert len(reading.result()) == 150_000
        assert waiting.result().exit_code == 0


async def test_the_limit_of_output_is_kept(bench: Bench) -> None:
    container_id = await bench.start()
    process = await spec_process(bench, container_id, "head", "-c", "300000", "/dev/zero")
    result = await bench.client.processes.run(
        container_id,
        process,
        exec_id=bench.new_id(),
        fifo_dir=bench.fifos,
        timeout_s=DEADLINE_S,
        output_limit_bytes=1000,
    )
    assert (len(result.stdout), result.truncated, result.exit_code) == (1000, True, 0)


async def test_leaving_early_ends_the_whole_tree(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXEC_TERM_GRACE_S", 0.3)
    container_id = await bench.start()
    script = "trap '' TERM; (setsid sh -c 'sleep 2001 & sleep 2002' &) ; sleep 2003 & echo up; wait"
    process = await spec_process(bench, container_id, "sh", "-c", script)
    before = set(await bench.client.tasks.pids(container_id))
    async with bench.client.processes.exec(
        container_id, process, exec_id=bench.new_id(), fifo_dir=bench.fifos
    ) as running:
        assert running.stdout is not None
        assert await running.stdout.read() == b"up\n"
    await bench.wait_for_only(container_id, before)
    assert not list(bench.fifos.iterdir())


async def test_a_timeout_ends_the_process(bench: Bench) -> None:
    container_id = await bench.start()
    before = set(await bench.client.tasks.pids(container_id))
    process = await spec_process(bench, container_id, "sleep", "1000")
    with pytest.raises(TimeoutError):
        await bench.client.processes.run(
            container_id,
            process,
            exec_id=bench.new_id(),
            fifo_dir=bench.fifos,
            timeout_s=0.5,
            output_limit_bytes=0,
        )
    await bench.wait_for_only(container_id, before)


async def test_what_a_crash_left_is_found_and_reaped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXEC_TERM_GRACE_S", 0.3)
    container_id = await bench.start()
    before = set(await bench.client.tasks.pids(container_id))
    exec_id = bench.new_id()
    process = await spec_process(bench, container_id, "sh", "-c", "trap '' TERM HUP; sleep 3000; sleep 3001")
    context = bench.client.processes.exec(container_id, process, exec_id=exec_id, fifo_dir=bench.fifos)
    running = await context.__aenter__()  # and nobody leaves it: as if we had crashed
    assert bench.client.processes.leftovers(bench.fifos) == (Leftover(container_id, exec_id),)
    environment = pathlib.Path(f"/proc/{running.pid}/environ").read_bytes().split(b"\0")
    assert f"{MARKER}={exec_id}".encode() in environment
    await bench.client.processes.reap(container_id, exec_id, bench.fifos)
    assert bench.client.processes.leftovers(bench.fifos) == ()
    await bench.wait_for_only(container_id, before)
    with pytest.raises(errors.NotFound):
        await running.kill(signal.SIGKILL)
    await context.__aexit__(None, None, None)


async def test_executing_in_what_does_not_run(bench: Bench) -> None:
    container_id = await bench.start()
    process = await spec_process(bench, container_id, "true")
    await bench.client.tasks.kill(container_id, signal.SIGKILL)
    await bench.client.tasks.wait(container_id, timeout_s=DEADLINE_S)
    with pytest.raises((errors.NotFound, errors.PreconditionFailed)):
        async with bench.client.processes.exec(
            container_id, process, exec_id=bench.new_id(), fifo_dir=bench.fifos
        ):
            pass
    assert not list(bench.fifos.iterdir())


async def test_open_files_return_to_what_they_were(bench: Bench) -> None:
    container_id = await bench.start()
    await bench.exec(container_id, "true")
    gc.collect()  # what earlier tests have left open goes now, or would be missed below
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await bench.exec(container_id, "cat", stdin=b"x")
    assert len(os.listdir("/proc/self/fd")) <= before
