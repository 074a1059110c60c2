"""What readers of logs get through the SDK and the command line, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable

from tests.integration.program.served import LIMIT_S, Served, command, environment, listens, until
from tests.integration.program.test_lifecycle import manifest
from tests.integration.program.test_separate_roles import parts

import cloudless

__all__ = ["parts"]

COUNT = "n=0; while true; do n=$((n+1)); echo $n; usleep 5000; done"


def start(served: Served, script: str, name: str = "web", code: int | None = 0, **fields: object) -> None:
    fields = {"stop_grace_period": "0s", "command": ["sh", "-c", script], **fields}
    served.cli("apply", "-f", "-", "-q", stdin=manifest(name=name, **fields), code=code)


class Follower:
    """``cloudless logs -f`` as a process; its output and what it told grow in two files."""

    def __init__(self, served: Served, folder: pathlib.Path, *words: str) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command("logs", *words, "-f"),
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env=environment(CLOUDLESS_ADDRESS=served.address),
            )

    @property
    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    @property
    def told(self) -> str:
        return self._err.read_text()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(LIMIT_S)


async def test_coordinator_and_agent_die_and_readers_miss_nothing(
    parts: tuple[Served, Served, Served], tmp_path: pathlib.Path
) -> None:
    first, second, agent = parts
    await asyncio.to_thread(start, agent, COUNT)
    numbers: list[int] = []
    told: list[object] = []

    async def read() -> None:
        async with (
            cloudless.connect(agent.address) as client,
            client.logs("web", follow=True, on_connection=told.append) as lines,
        ):
            async for line in lines:
                numbers.append(int(line.text))

    def more() -> None:
        end, there = numbers[-1] + 100, len(cli.lines) + 100
        until(lambda: numbers[-1] > end and len(cli.lines) > there, "both readers go on")

    reading = asyncio.ensure_future(read())
    cli = Follower(agent, tmp_path, "web", "--tail", "all")

    def faults() -> None:
        until(lambda: numbers and cli.lines, "both readers have begun")
        more()
        first.kill()
        second.start(ready=False)
        more()
        agent.kill()
        agent.start(ready=False)
        until(lambda: listens(agent.agent_address), "the agent is back")
        more()
        for one in (second, agent):
            one.kill(signal.SIGTERM)
            one.start(ready=False)
            more()

    try:
        await asyncio.wait_for(asyncio.to_thread(faults), 240)
    finally:
        reading.cancel()
        code = await asyncio.to_thread(cli.interrupt)
        await asyncio.wait([reading])
    assert numbers == list(range(1, len(numbers) + 1))
    seen = [int(line) for line in cli.lines]
    assert seen == list(range(1, len(seen) + 1))
    assert code == 0
    assert told[-1] is None
    assert "waiting for the coordinator" in cli.told
    assert "connected again" in cli.told
    assert re.search("── node .* cannot be reached\n.*── node .* is back", cli.told, re.DOTALL)


async def test_a_log_is_read_to_its_end_while_all_are_killed(serve: Callable[..., Served]) -> None:
    served = await asyncio.to_thread(lambda: serve(name="readers"))
    last, numbers, killed = 200_000, [], 0
    await asyncio.to_thread(start, served, f"seq 1 {last}; exec sleep 1000")
    done = ("logs", "web", "--tail", "1")
    await asyncio.to_thread(until, lambda: served.cli(*done).out == f"{last}\n", "all is written")
    async with served.client(patience_s=30.0) as client, client.logs("web") as lines:
        async for batch in lines.batches():
            numbers += [int(line) for line in batch.data.split()]
            if numbers and numbers[-1] > (killed + 1) * last // 4 and killed < 3:
                killed += 1
                served.kill()
                await asyncio.to_thread(served.start)
    assert killed == 3
    assert numbers == list(range(1, last + 1))


def test_all_bytes_come_as_they_were_written(tidy: Served, tmp_path: pathlib.Path) -> None:
    make = (
        "dd if=/dev/urandom bs=1000 count=400 2>/dev/null | tr '\\n' '\\t' > /f; printf 'a\\0b\\n\\377' >> /f"
    )
    start(tidy, f"{make}; cat /f; sha256sum /f >&2", restart_policy={"policy": "NEVER"})
    until(lambda: tidy.cli("logs", "web", "--stream", "stderr").out, "it is written")
    digest = tidy.cli("logs", "web", "--stream", "stderr").out.split()[0]
    for more in ([], ["-o", "raw"]):
        with (tmp_path / "out").open("wb") as out:
            words = command("logs", "web", "--stream", "stdout", *more)
            settings = environment(CLOUDLESS_ADDRESS=tidy.address)
            subprocess.run(words, stdout=out, env=settings, check=True, timeout=LIMIT_S)
        assert hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest() == digest, more


def test_followers_see_restarts_and_replicas_to_come(tidy: Served, tmp_path: pathlib.Path) -> None:
    script = "echo began $HOSTNAME; sleep 2; exit 4"
    start(tidy, script, restart_policy={"backoff": {"base": "0s"}}, labels={"app": "shop"})
    start(tidy, "echo hello; exec sleep 1000", name="db", labels={"app": "shop"})
    cli = Follower(tidy, tmp_path, "-l", "app=shop", "--markers")
    until(lambda: "── web/0 exited with code 4" in cli.lines, "the exit is told")
    until(lambda: any(re.match("── web/0 restarted on node-1, run [0-9]+", line) for line in cli.lines), "so")
    tidy.cli("scale", "db", "2")
    until(lambda: "db/1  | hello" in cli.lines or "db/1 | hello" in cli.lines, "the new replica is seen")
    assert cli.interrupt() == 0
    assert cli.told == ""


def test_what_can_be_asked_for(tidy: Served) -> None:
    script = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done"
    twice = {"policy": "ON_FAILURE", "max_retries": 1, "backoff": {"base": "0s"}}
    start(tidy, f"{script}; sleep 1; exit 1", code=None, restart_policy=twice)
    until(lambda: tidy.replicas("web", phase="FAILED"), "it ran twice")
    assert len(tidy.cli("logs", "web").out.splitlines()) == 20

    def out(*words: str) -> list[str]:
        return tidy.cli("logs", "web", *words).out.splitlines()

    assert len(out("--previous")) == 10
    assert out("--stream", "stderr", "--tail", "2") == ["err 4", "err 5"]
    assert out("--include", "[45]$", "--exclude", "^err", "--tail", "all") == ["out 4", "out 5"] * 2
    assert "".join(out("--stream", "stdout", "--limit-bytes", "9")) == "out 1out"
    times = [line.split()[0] for line in out("-t")]
    assert times == sorted(times)
    assert out("--until", times[0])
    assert len(out("--since", times[10], "--until", times[-1])) <= 10
    found = [json.loads(line) for line in out("-o", "json")]
    kinds = [one["marker"] for one in found if "marker" in one]
    assert kinds == ["STARTED", "EXITED", "RESTARTED", "EXITED", "SOURCE_ENDED"]
    assert {one["stream"] for one in found if "stream" in one} == {"stdout", "stderr"}
    assert out("--prefix")[0].startswith("web/0 | ")
    assert len({one["container_id"] for one in found if "line" in one}) == 2


def test_logs_outlive_their_workload(tidy: Served) -> None:
    start(tidy, "echo the last words; exec sleep 1000", name="brief")
    until(lambda: tidy.cli("logs", "brief").out, "it is written")
    tidy.cli("delete", "brief", "--grace", "0s", "--wait")
    assert tidy.cli("logs", "brief").out == "the last words\n"
    assert tidy.cli("logs", "brief", "--tail", "5", "--gone").out == "the last words\n"
    assert tidy.cli("logs", "never-there", code=5).out == ""


def test_a_pager_that_leaves(tidy: Served) -> None:
    start(tidy, "seq 1 20000; exec sleep 1000")
    until(lambda: tidy.cli("logs", "web", "--tail", "1").out == "20000\n", "all is written")
    line = f"{sys.executable} -m cloudless logs web -f --tail all | head -3; exit ${{PIPESTATUS[0]}}"
    settings = environment(CLOUDLESS_ADDRESS=tidy.address)
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=settings, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n2\n3\n", "")
