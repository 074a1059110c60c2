"""Reading what replicas write, and running programs inside of them."""

from __future__ import annotations

import time

from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, until
from tests.integration.program.test_lifecycle import manifest

COUNT = "n=0; while [ $n -lt {last} ]; do n=$((n+1)); echo line $n; done; {then}"


def start(served: Served, script: str, **fields: object) -> None:
    served.cli("apply", "-f", "-", "-q", stdin=manifest(name="web", command=["sh", "-c", script], **fields))


def test_logs(tidy: Served) -> None:
    start(tidy, COUNT.format(last=100, then="echo oops >&2; exec sleep 1000"))
    lines = until(
        lambda: found if len(found := tidy.cli("logs", "web").out.splitlines()) == 101 else None, "101"
    )
    assert [line for line in lines if line != "oops"] == [f"line {n}" for n in range(1, 101)]
    assert len(tidy.cli("logs", "web", "--tail", "3").out.splitlines()) == 3
    assert tidy.cli("logs", "web", "--tail", "0").out == ""
    assert len(tidy.cli("logs", "web", "--since", "10m").out.splitlines()) == 101
    time.sleep(1.1)
    assert tidy.cli("logs", "web", "--since", "1s").out == ""
    stamped = tidy.cli("logs", "web", "-t", "--tail", "1").out
    assert stamped[:2] == "20"
    assert tidy.cli("logs", "web/0", "--tail", "1").out == tidy.cli("logs", "web", "--tail", "1").out
    assert tidy.cli("logs", "web/7", code=None).code != 0


async def test_following_across_a_restart(tidy: Served) -> None:
    start(tidy, "echo began; sleep 1.5; echo ends; exit 1", restart_policy={"backoff": {"base": "0s"}})
    seen: list[str] = []
    async with tidy.client() as client, client.logs("web", follow=True) as lines:
        async for line in lines:
            seen.append(line.text)
            if seen.count("began") == 2:
                break
    assert [text for text in seen if text in ("began", "ends")] == ["began", "ends", "began"]


def test_exec(tidy: Served) -> None:
    start(tidy, "exec sleep 1000", env={"FROM_SPEC": "1"})

    def run(*words: str, code: int, options: tuple[str, ...] = (), stdin: str | None = None) -> str:
        return tidy.cli("exec", "web", *options, "--", *words, code=code, stdin=stdin).out

    assert run("true", code=0) == ""
    run("sh", "-c", "exit 3", code=3)
    run("/no/such/program", code=127)
    run("/etc/passwd", code=126)
    run("sh", "-c", "kill -9 $$", code=137)
    assert run("sh", "-c", "echo $FROM_SPEC $A", code=0, options=("-e", "A=b")) == "1 b\n"
    assert run("pwd", code=0, options=("--workdir", "/tmp")) == "/tmp\n"
    assert run("id", "-u", code=0, options=("-u", "1001")) == "1001\n"
    assert run("id", "-un", code=0, options=("-u", "web")) == "web\n"
    assert run("cat", code=0, options=("-i",), stdin="to be read\n") == "to be read\n"


def test_an_exec_that_takes_too_long_is_killed_with_its_children(tidy: Served) -> None:
    start(tidy, "exec sleep 1000")
    script = "sleep 777 & sleep 778 & wait"
    result = tidy.cli("exec", "web", "--exec-timeout", "1s", "--", "sh", "-c", script, code=None)
    assert result.code in (124, 125, 137), result
    assert "time" in result.err
    until(lambda: "sleep 77" not in tidy.cli("exec", "web", "--", "ps").out, "its children are gone")


async def test_output_is_bounded(tidy: Served) -> None:
    start(tidy, "exec sleep 1000")
    async with tidy.client() as client:
        done = await client.exec("web", ["sh", "-c", "yes | head -c 300000"], output_limit_bytes=1000)
        assert len(done.stdout) <= 1000
        assert (await client.exec("web", ["echo", IMAGE])).stdout.decode().strip() == IMAGE
