"""The runtime on a real containerd: the contract, and what only a kernel can show."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from tests.unit.agent.runtime.contract import RuntimeBench, RuntimeContract, end_of, following

from cloudless.agent.runtime.errors import NotEnforced
from cloudless.agent.runtime.execport import ExecRequest
from cloudless.agent.runtime.port import ContainerWish, OutOfMemory

PROGRAMS = {"exit-seven": ("sh", "-c", "exit 7")}


class TestContainerd(RuntimeContract):
    @pytest.fixture
    def bench(self, bench: RuntimeBench) -> RuntimeBench:
        plain = bench.wish

        def wish(*argv: str, **changes: object) -> ContainerWish:
            return plain(*PROGRAMS.get(argv[0] if argv else "", argv), **changes)  # type: ignore[arg-type]

        bench.wish = wish  # type: ignore[method-assign]
        return bench

    async def run(
        self, bench: RuntimeBench, wish: ContainerWish, *argv: str, **fields: object
    ) -> tuple[int, str]:
        """The exit code and output of a command beside the container's first process."""
        result = await bench.runtime.exec(wish.id, ExecRequest(argv, **fields))  # type: ignore[arg-type]
        return result.exit_code, (result.stdout + result.stderr).decode()

    async def test_commands(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        assert await self.run(bench, wish, "sh", "-c", "echo $A; exit 3") == (3, "1\n")
        assert (await self.run(bench, wish, "nope"))[0] == 127
        assert (await self.run(bench, wish, "/etc"))[0] == 126
        assert await self.run(bench, wish, "sh", "-c", "kill -9 $$") == (137, "")
        assert await self.run(bench, wish, "cat", stdin=b"hello") == (0, "hello")
        assert await self.run(bench, wish, "pwd", cwd="/bin") == (0, "/bin\n")
        assert await self.run(bench, wish, "id", "-u", user="7:8") == (0, "7\n")
        with pytest.raises(NotEnforced, match="nobody-here"):
            await self.run(bench, wish, "true", user="nobody-here")

    async def test_output_has_a_limit_for_each_stream(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        script = "head -c 3000000 /dev/zero; echo few >&2"
        result = await bench.runtime.exec(wish.id, ExecRequest(("sh", "-c", script), output_limit_bytes=1000))
        assert (len(result.stdout), result.stdout_truncated) == (1000, True)
        assert (result.stderr, result.stderr_truncated) == (b"few\n", False)

    async def test_a_command_whose_time_is_up_goes_with_its_children(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        script = "sleep 777 & setsid sleep 778 & echo begun; wait"
        # The time begins before the command does, which may take long to start.
        result = await bench.runtime.exec(wish.id, ExecRequest(("sh", "-c", script), timeout_s=5.0))
        assert (result.timed_out, result.stdout) == (True, b"begun\n")
        _, processes = await self.run(bench, wish, "ps")
        assert "sleep 77" not in processes

    async def test_a_caller_that_leaves_takes_its_command_along(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await bench.runtime.exec(wish.id, ExecRequest(("sleep", "779"), timeout_s=60))
        _, processes = await self.run(bench, wish, "ps")
        assert "sleep 779" not in processes

    async def test_memory_is_limited_and_its_end_is_told_first(self, bench: RuntimeBench) -> None:
        wish = bench.wish(
            "sh", "-c", "head -c 64m /dev/zero | tail", resources={"limits": {"memory": "16Mi"}}
        )
        await bench.runtime.create(wish)
        async with following(bench.runtime) as events:
            await bench.runtime.start(wish.id)
            async with asyncio.timeout(20):
                while not isinstance(await anext(events), OutOfMemory):
                    continue
            await end_of(events, wish.id)

    async def test_security_as_seen_from_inside(self, bench: RuntimeBench) -> None:
        wish = bench.wish(
            security_context={
                "run_as_user": 1234,
                "run_as_group": 55,
                "supplemental_groups": [66],
                "run_as_non_root": True,
                "read_only_root_filesystem": True,
                "capabilities_drop": ["ALL"],
                "sysctls": {"kernel.shm_rmid_forced": "1"},
            }
        )
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        _, status = await self.run(bench, wish, "cat", "/proc/1/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["1234"] * 4
        assert fields["Gid"].split() == ["55"] * 4
        assert "66" in fields["Groups"].split()
        assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert (await self.run(bench, wish, "touch", "/x"))[1].endswith("Read-only file system\n")
        assert (await self.run(bench, wish, "cat", "/proc/sys/kernel/shm_rmid_forced"))[1] == "1\n"
        code, mounted = await self.run(bench, wish, "mount", "-t", "tmpfs", "tmpfs", "/tmp")
        assert code != 0, mounted

    async def test_root_has_the_default_capabilities_and_no_raw_sockets(self, bench: RuntimeBench) -> None:
        wish = bench.wish(security_context={"capabilities_drop": ["CHOWN"]})
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        _, status = await self.run(bench, wish, "cat", "/proc/1/status")
        bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd")).split()[1], 16)
        net_raw, chown, kill, sys_admin = 13, 0, 5, 21
        assert [bool(bounding >> bit & 1) for bit in (net_raw, chown, kill, sys_admin)] == [
            False, False, True, False,
        ]  # fmt: skip

    async def test_limits_of_cpu_and_processes(self, bench: RuntimeBench) -> None:
        wish = bench.wish(resources={"limits": {"cpu": "300m"}})
        await bench.runtime.create(wish)
        await bench.runtime.start(wish.id)
        _, found = await self.run(
            bench, wish, "sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max"
        )
        assert found.split() == ["30000", "4096"]

    async def test_an_unknown_runtime_class_is_refused(self, bench: RuntimeBench) -> None:
        wish = bench.wish()
        spec = wish.spec.replaced(runtime_class_name="kata")
        with pytest.raises(NotEnforced, match="kata"):
            await bench.runtime.create(dataclasses.replace(wish, spec=spec))
