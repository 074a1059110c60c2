"""What the pages about copying and forwarding show of a terminal is what one sees."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.conftest import run
from tests.docs.pages import ROOT, Block, blocks
from tests.integration.program.served import Served, environment

PAGES = ("cp.md", "port-forward.md")
IMAGE = "cloudless.local/hello:1"
LIMIT_S = 60.0


class Session:
    """A shell that remembers its one command in the background."""

    def __init__(self, served: Served, folder: Path) -> None:
        self._folder = folder
        self._environment = environment(CLOUDLESS_ADDRESS=served.address)
        self._environment["PATH"] = f"{ROOT / '.venv/bin'}:{self._environment['PATH']}"
        self._behind: subprocess.Popen[str] | None = None

    def do(self, command: str, lines: int) -> list[str]:
        """What a command writes; of one in the background, so many lines."""
        if command.endswith("&"):
            words = ["/bin/sh", "-c", f"exec {command[:-1]}"]
            self._behind = subprocess.Popen(
                words, stderr=subprocess.PIPE, text=True, env=self._environment, cwd=self._folder
            )
            assert self._behind.stderr is not None
            return [self._behind.stderr.readline().rstrip("\n") for _ in range(lines)]
        if command == "kill %1":
            self.end()
            return []
        if command.startswith("curl -s "):
            with urllib.request.urlopen(command.split()[2], timeout=LIMIT_S) as answer:
                return str(answer.read().decode()).splitlines()
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self._environment,
            cwd=self._folder,
            timeout=LIMIT_S,
            check=True,
        )
        return done.stdout.splitlines()

    def end(self) -> None:
        """End what runs in the background."""
        if self._behind is not None:
            self._behind.terminate()
            self._behind.communicate(timeout=LIMIT_S)
            self._behind = None


@pytest.fixture
def web(served: Served, tmp_path: Path) -> Iterator[Path]:
    """The workload that the pages take for granted, and an empty folder."""
    archive = tmp_path / "hello.tar"
    (tmp_path / "here").mkdir()
    run(served, ["python", str(ROOT / "tools/demo_image.py"), str(archive), IMAGE], tmp_path)
    run(served, ["cloudless", "image", "import", str(archive)], tmp_path)
    run(served, ["cloudless", "run", "web", IMAGE, "--replicas", "2"], tmp_path)
    yield tmp_path / "here"
    run(served, ["cloudless", "delete", "web", "--wait"], tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_as_it_is_read(page: str, served: Served, web: Path) -> None:
    session = Session(served, web)
    try:
        steps = [step for block in blocks("console", page=ROOT / "docs" / page) for step in _steps(block)]
        assert len(steps) >= 3
        for command, shown in steps:
            found = session.do(command, len(shown))
            assert _plain(found) == _plain(shown), command
    finally:
        session.end()


def _steps(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that are shown after it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command.strip(), shown


def _plain(lines: list[str]) -> list[str]:
    """Ports that the kernel chose are not what matters."""
    return [re.sub(r"127\.0\.0\.1:[3-6]\d{4}", "127.0.0.1:PORT", line) for line in lines]
