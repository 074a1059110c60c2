"""The command line in this process, against a coordinator in memory in a thread."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import pathlib
import sys
import threading
from typing import NamedTuple

import pytest

_PATH = pathlib.Path(__file__).parents[1] / "sdk" / "fake_coordinator.py"
if "fake_coordinator" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("fake_coordinator", _PATH)
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["fake_coordinator"] = _module
    _spec.loader.exec_module(_module)

from fake_coordinator import FakeCoordinator, node  # noqa: E402

from cloudless.cli import main  # noqa: E402


class Result(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


class Served:
    """A fake coordinator in a thread of its own; ``do`` changes it there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        self.up = threading.Event()
        self.thread = threading.Thread(target=self._run, name="coordinator")

    def _run(self) -> None:
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        self.fake = FakeCoordinator()
        self.fake.nodes["n1"] = node()
        async with self.fake.serving() as self.address:
            self.up.set()
            await self.stop.wait()

    def do(self, change, *arguments):
        """Call ``change`` in the coordinator's thread and wait for it."""

        async def call():
            return change(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)

    def later(self, delay_s: float, change, *arguments) -> None:
        """Call ``change`` there so long after the next command has begun to watch."""
        watches = len(self.fake.asked("watch"))

        def look() -> None:
            if len(self.fake.asked("watch")) > watches:
                self.loop.call_later(delay_s, change, *arguments)
            else:
                self.loop.call_later(0.01, look)

        self.loop.call_soon_threadsafe(look)

    def __enter__(self) -> Served:
        self.thread.start()
        assert self.up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)


@pytest.fixture
def served():
    """A coordinator and its address."""
    with Served() as running:
        yield running


@pytest.fixture
def fake(served):
    """Its state."""
    return served.fake


@pytest.fixture
def cli(served, capsysbinary, monkeypatch, tmp_path):
    """Run one command line; answers its code, stdout and stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLOUDLESS_DEBUG", "CLOUDLESS_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("cloudless.sdk.limits.SETTLE_S", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDLESS_ADDRESS", served.address)
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, stdin: str | bytes = "") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        capsysbinary.readouterr()
        code = main(list(argv))
        written = capsysbinary.readouterr()
        return Result(code, written.out.decode(errors="surrogateescape"), written.err.decode())

    return run
