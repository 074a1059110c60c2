"""kill -9 at any instant: every write that was answered is there, none is half there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.store.writer import WRITERS
from tests.unit.store.subject import open_files

import cloudless
from cloudless.aio.clock import SystemClock
from cloudless.store.election import lead

ROUNDS = 12
SCRIPT = Path(__file__).with_name("writer.py")


def run_and_kill(path: Path, first: int, after_s: float) -> dict[int, tuple[int, int]]:
    """The last acknowledged (number, revision) of each writer."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cloudless.__file__).parents[1])}
    command = [sys.executable, str(SCRIPT), str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        deadline_s = time.monotonic() + after_s
        last: dict[int, tuple[int, int]] = {}
        for line in process.stdout:
            fields = line.split()
            if len(fields) == 3 and line.endswith("\n"):
                last[int(fields[0])] = (int(fields[1]), int(fields[2]))
            if process.returncode is None and time.monotonic() > deadline_s:
                process.kill()
                process.returncode = process.wait()
        process.kill()
    return last


async def test_every_answered_write_survives_kill(tmp_path: Path) -> None:
    rng = random.Random()
    first, revision = 1, 1
    known = dict.fromkeys(range(WRITERS), 0)
    for _ in range(ROUNDS):
        last = run_and_kill(tmp_path, first, rng.uniform(0.0, 0.15))
        async with open_files(tmp_path, SystemClock()) as store:
            page = await store.range("")
            value = {item.key: int(item.value) for item in page.items if not item.key.startswith("junk/")}
            for writer in range(WRITERS):
                number, acked = last.get(writer, (known[writer], revision))
                stored = value.get(f"ledger/{writer}", 0)
                # What was under way when the process died may have happened or not.
                assert stored == number or stored == max(number + 1, first)
                known[writer] = stored
                assert value.get(f"pair/{writer}", 0) == stored
                assert page.revision >= acked
                junk = await store.range(f"junk/{writer}/")
                assert len(junk.items) <= ROUNDS + 1
            revision = page.revision
            first = max(value.values(), default=0) + 1
    assert revision > ROUNDS  # each was killed only once a write was answered


async def test_a_killed_leader_is_followed_at_once(tmp_path: Path) -> None:
    """The lock of the data directory proves that the old process is gone."""
    code = (
        "import asyncio, pathlib, sys\n"
        "from cloudless.aio.clock import SystemClock\n"
        "from cloudless.store.election import lead\n"
        "from cloudless.store.embedded import open_embedded\n"
        "async def main():\n"
        "    clock = SystemClock()\n"
        "    async with open_embedded(pathlib.Path(sys.argv[1]), clock, new_id=str) as store:\n"
        "        async with lead(store, clock, key='leader', candidate=b'one', ttl_s=600) as one:\n"
        "            print(one.epoch, flush=True)\n"
        "            await one.lost()\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cloudless.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        epoch = int(process.stdout.readline())
        process.kill()
    clock = SystemClock()
    async with open_files(tmp_path, clock) as store:
        before_s = clock.monotonic()
        async with lead(store, clock, key="leader", candidate=b"two", ttl_s=600) as two:
            assert two.epoch > epoch
            assert clock.monotonic() - before_s < 600, "it did not wait for the lease"
