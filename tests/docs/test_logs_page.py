"""What the page about logs shows of a terminal is what a terminal shows."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.conftest import run
from tests.docs.pages import ROOT, blocks
from tests.integration.program.served import Served, environment, until

PAGE = ROOT / "docs" / "logs.md"
LIMIT_S = 30.0
#: What differs from run to run.
VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z"), "TIME"),
    (re.compile(r'"replica_id": "\w+", "container_id": "[\w-]*"'), "IDS"),
)


@pytest.fixture
def web(served: Served, example_images: tuple[str, ...], tmp_path: Path) -> Iterator[Served]:
    """The workload of the page, after all that happens to it."""
    (manifest,) = blocks("yaml", page=PAGE)
    (tmp_path / "web.yaml").write_text(manifest.text)
    run(served, ["cloudless", "apply", "-f", "web.yaml", "--no-wait"], tmp_path)
    until(lambda: served.replicas("web", phase="FAILED"), "web/1 has ended twice", LIMIT_S)
    until(lambda: "GET" in served.cli("logs", "web/0").out, "web/0 has written all that it writes", LIMIT_S)
    yield served
    run(served, ["cloudless", "delete", "web", "--grace", "0s", "--wait"], tmp_path)


def test_a_terminal_shows_what_the_page_shows(web: Served, tmp_path: Path) -> None:
    steps = [step for block in blocks("console", page=PAGE) for step in _steps(block.text)]
    assert len(steps) >= 6
    for command, shown in steps:
        found = _on_terminal(web, command, interrupt_after=len(shown) - 1 if shown[-1] == "^C" else 0)
        assert sorted(_plain(found)) == sorted(_plain(shown)), command


def _steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that are shown after it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command.strip(), shown


def _plain(lines: list[str]) -> list[str]:
    for pattern, word in VOLATILE:
        lines = [pattern.sub(word, line) for line in lines]
    return lines


def _on_terminal(served: Served, command: str, *, interrupt_after: int) -> list[str]:
    """The lines that a terminal without colours gets; Ctrl-C is typed after so many, if any."""
    leader, follower = pty.openpty()
    settings = environment(CLOUDLESS_ADDRESS=served.address, NO_COLOR="1", TERM="xterm", LANG="C.UTF-8")
    settings["PATH"] = f"{ROOT / '.venv/bin'}:{settings['PATH']}"
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "/bin/sh", "-c", f"exec {command}"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=settings,
    )
    os.close(follower)
    text, typed, end_s = b"", False, time.monotonic() + LIMIT_S
    try:
        while select.select([leader], [], [], max(end_s - time.monotonic(), 0.0))[0]:
            try:
                text += os.read(leader, 65536)
            except OSError:  # everybody on the other side has left
                break
            if interrupt_after and not typed and text.count(b"\n") >= interrupt_after:
                typed = True
                os.write(leader, b"\x03")
        assert process.wait(LIMIT_S) == 0, text
    finally:
        os.close(leader)
    return text.decode().replace("\r\n", "\n").splitlines()
