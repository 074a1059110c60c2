"""The main job of ``./demo``: deploy, update under live traffic, break, through the public API.

``ready`` waits for a coordinator that was just started, ``deploy`` runs the job, ``break``
deploys an image that crashes: it is explained and taken back while requests go on. Exit 0
only when it is true, and no request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudless

ROOT = Path(__file__).resolve().parents[1]
CLI = ROOT / ".venv" / "bin" / "cloudless"
IMAGE = "cloudless.local/hello"
PORT = 8088
READY_DEADLINE_S = 60.0
ROLLOUT_DEADLINE_S = 120.0
PROBES_AT_ONCE = 4
#: Of a line that tells of a step.


@dataclass
class Traffic:
    """Requests to the published port, one connection each, counted one by one."""

    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answers: set[str] = field(default_factory=set)
    stop: bool = False

    async def run(self) -> None:
        """Ask until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            for _ in range(PROBES_AT_ONCE):
                group.create_task(self._ask_again_and_again())

    async def _ask_again_and_again(self) -> None:
        while not self.stop:
            began = time.perf_counter()
            try:
                async with asyncio.timeout(5):
                    self.answers.add(await ask())
                self.latencies_s.append(time.perf_counter() - began)
            except (OSError, TimeoutError, ValueError) as error:
                self.failures.append(str(error) or type(error).__name__)
            await asyncio.sleep(0.005)

    def summary(self) -> str:
        """Counts and the 99th percentile."""
        total = len(self.latencies_s) + len(self.failures)
        p99 = statistics.quantiles(self.latencies_s, n=100)[98] * 1000 if len(self.latencies_s) > 1 else 0
        return f"{total} requests, {len(self.failures)} failed, p99 {p99:.0f} ms"


async def ask() -> str:
    """One GET on the published port; raises on anything but a whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    try:
        writer.write(b"GET / HTTP/1.0\r\nHost: hello\r\n\r\n")
        await writer.drain()
        answer = (await reader.read()).decode()
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    if " 200 " not in head.split("\r\n")[0] or "hello from" not in body:
        raise ValueError(f"unexpected answer: {answer[:80]!r}")
    return body.strip()


def ready(pid: int, log: Path) -> int:
    """Wait until /readyz answers 200; tell the log's end when the process dies first."""
    deadline = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", 8081, timeout=2)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return 0
        except OSError:
            pass
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.02)
    tail = log.read_text(errors="replace").strip().splitlines()[-3:] if log.exists() else []
    print(
        "\nerror: cloudless serve did not get ready", *tail, f"try: less {log}", sep="\n  ", file=sys.stderr
    )
    return 1


def import_image(tag: str) -> None:
    """Build the image of that tag and give it to the node."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        builder = str(ROOT / "tools" / "demo_image.py")
        subprocess.run([sys.executable, builder, archive, f"{IMAGE}:{tag}"], check=True)
        done = subprocess.run([CLI, "image", "import", archive], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)


def hello(greeting: str, tag: str = "1") -> cloudless.Workload:
    """The demo's workload."""
    return cloudless.Workload(
        "hello",
        image=f"{IMAGE}:{tag}",
        replicas=3,
        env={"GREETING": greeting},
        ports=[{"container_port": 8080, "publish": PORT}],
        readiness_probe={"http": {"port": 8080}, "period": "200ms"},
        rollout={"max_surge": 1, "max_unavailable": 0, "min_ready_time": "500ms", "progress_deadline": "20s"},
        restart_policy={"backoff": {"base": "1s"}},
        resources={"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    )


def line(step: str, name: str, text: str, began: float) -> None:
    """One line of the demo's report."""
    print(f"[{step}] {name:<10} {text:<58} {time.monotonic() - began:.1f}s", flush=True)


async def deploy(state: Path) -> int:
    """Deploy three replicas, update them under traffic; 0 when no request failed."""
    began = time.monotonic()
    import_image("1")
    async with cloudless.connect("127.0.0.1:8080") as client:
        greeting = f"good day {int(time.time())}"
        before = await existing(client)
        if before is None:
            await client.apply(hello(greeting))
            before = await client.wait("hello", timeout_s=ROLLOUT_DEADLINE_S)
        status = before.message.status
        text = f"hello  rev {status.revision}   {status.ready_replicas}/{status.desired_replicas} ready"
        line("4/5", "deploy", text, began)

        began = time.monotonic()
        traffic = Traffic()
        async with asyncio.TaskGroup() as group:
            group.create_task(traffic.run())
            try:
                after = await updated(client, f"good evening {int(time.time())}")
            finally:
                traffic.stop = True
        revision = after.message.status.revision
        line(
            "5/5", "update", f"hello  rev {status.revision} -> {revision}, rolling, under live traffic", began
        )
        ordinals = sorted(replica.ordinal for replica in after.message.status.replicas)
        print("        " + "  ".join(f"hello/{ordinal} ready" for ordinal in ordinals))
        print(f"        probe: {traffic.summary()} during the update\n")
        return report(traffic, state)


async def existing(client: Any) -> Any:
    """The workload of an earlier run, if it is there and well."""
    try:
        return await client.wait("hello", timeout_s=1)
    except cloudless.CloudlessError:
        return None


async def updated(client: Any, greeting: str) -> Any:
    """Roll to a new greeting and wait until the last old replica is gone."""
    await client.update("hello", env={"GREETING": greeting}, image=f"{IMAGE}:1")
    return await client.wait("hello", timeout_s=ROLLOUT_DEADLINE_S)


def report(traffic: Traffic, state: Path) -> int:
    """Say where things are; 1 when a request failed."""
    print(f"  hello      http://127.0.0.1:{PORT}      each reply names its replica and revision")
    for answer in sorted(traffic.answers)[-3:]:
        print(f"             {answer}")
    bin_path = CLI.relative_to(ROOT)
    print(f"  try        {bin_path} get workloads         {bin_path} logs hello -f")
    print(f"             {bin_path} rollout undo hello    {bin_path} exec -it hello -- sh")
    print("             ./demo --break  (a bad image: watch it explain itself and roll back)")
    print(f"  stop       ./demo down                     removes all that it made ({state})")
    for failure in traffic.failures[:5]:
        print(f"error: a request failed during the update: {failure}", file=sys.stderr)
    return 1 if traffic.failures or not traffic.latencies_s else 0


async def broken() -> int:
    """Roll out an image that crashes; it explains itself and goes back; 0 when traffic never noticed."""
    import_image("broken")
    traffic = Traffic()
    async with cloudless.connect("127.0.0.1:8080") as client, asyncio.TaskGroup() as group:
        group.create_task(traffic.run())
        try:
            began = time.monotonic()
            web = await client.get("hello")
            good = web.message.status.rollout.target_revision
            if web.spec.image.endswith(":broken"):  # of the last time
                web = await client.retry("hello")
            else:
                web = await client.update("hello", image=f"{IMAGE}:broken", message="a bad idea")
            print(f"hello is updated to {IMAGE}:broken, which crashes; {len(web.replicas)} replicas serve\n")
            failure = await failure_of(web, began)
            if failure is None:
                print("error: the broken image got ready", file=sys.stderr)
                return 1
            took_s = time.monotonic() - began
        finally:
            traffic.stop = True
    explain(failure)
    explanation = failure.explanation
    print(f"back on revision {explanation.rolled_back_to} by itself, {took_s:.1f}s after it was asked for")
    print(f"        probe: {traffic.summary()} meanwhile\n")
    bin_path = CLI.relative_to(ROOT)
    print(f"  try        {bin_path} rollout history hello --revision {explanation.revision}")
    print(f"             {bin_path} rollout status hello")
    for text in traffic.failures[:5]:
        print(f"error: a request failed meanwhile: {text}", file=sys.stderr)
    return 1 if traffic.failures or explanation.rolled_back_to != good else 0


async def failure_of(web: Any, began: float) -> cloudless.RolloutFailed | None:
    """Follow the rollout, a line for each step; how it failed, or None when it did not."""
    try:
        async with web.rollout(timeout_s=ROLLOUT_DEADLINE_S) as rollout:
            async for step in rollout:
                said = f"{step.phase.lower().replace('_', ' ')}: {step.because}"
                print(f"  {time.monotonic() - began:4.1f}s  {said}", flush=True)
    except cloudless.RolloutFailed as failure:
        return failure
    return None


def explain(failure: cloudless.RolloutFailed) -> None:
    """All that is known of a failure, as the command line tells it."""
    told = failure.explanation
    print(f"\nerror: {failure}")
    print(f"  replica  {told.replica} on {told.node}: {told.exit_text}")
    for change in told.changes:
        print(f"  changed  {change}")
    print(f"  last lines of {told.replica}:")
    for text in told.log_lines:
        print(f"    | {text}")
    print()


def main() -> int:
    """Read the command and run it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("command", choices=("ready", "deploy", "break"))
    options.add_argument("--pid", type=int, default=os.getpid())
    options.add_argument("--log", type=Path, default=Path("serve.log"))
    options.add_argument("--state", type=Path, default=ROOT / ".demo")
    given = options.parse_args()
    if given.command == "ready":
        return ready(given.pid, given.log)
    code = 1
    try:
        code = asyncio.run(deploy(given.state) if given.command == "deploy" else broken())
    except* cloudless.CloudlessError as group:
        for error in group.exceptions:
            print(f"\nerror: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
