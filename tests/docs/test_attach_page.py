"""What the page about attach shows of a terminal is what a terminal shows."""

from __future__ import annotations

import re
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from tests.docs.conftest import run
from tests.docs.pages import ROOT, blocks
from tests.integration.program.served import Served, environment, until

PAGE = ROOT / "docs" / "attach.md"
LIMIT_S = 30
PROMPT = "/ # "
WAY_OUT = "~."
INTERRUPT = "^C"
#: The shell asks the terminal where its cursor is.
WHERE = "\x1b[6n"


@pytest.fixture
def page(served: Served, example_images: tuple[str, ...], tmp_path: Path) -> Iterator[Served]:
    """The workloads of the page, of an image that is there."""
    (manifest,) = blocks("yaml", page=PAGE)
    (tmp_path / "page.yaml").write_text(manifest.text.replace("busybox:1.35", example_images[0]))
    run(served, ["cloudless", "apply", "-f", "page.yaml"], tmp_path)
    yield served
    run(served, ["cloudless", "delete", "-f", "page.yaml", "--grace", "0s", "--wait"], tmp_path)


def test_a_terminal_shows_what_the_page_shows(page: Served) -> None:
    steps = [step for block in blocks("console", page=PAGE) for step in _steps(block.text)]
    assert len(steps) == 5
    for command, shown in steps:
        typed = [line.removeprefix(PROMPT) for line in shown if line.startswith(PROMPT)]
        found = _typed(page, command, typed) if typed else _shown(page, command, shown)
        # Nothing of the way out is echoed.
        assert found == [line.removesuffix(WAY_OUT) for line in shown], command


def _steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that are shown after it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command.strip(), shown


def _spawned(served: Served, command: str) -> Any:
    settings = environment(CLOUDLESS_ADDRESS=served.address, TERM="dumb", NO_COLOR="1")
    settings["PATH"] = f"{Path(sys.executable).parent}:{settings['PATH']}"
    return pexpect.spawn("/bin/sh", ["-c", command], env=settings, timeout=LIMIT_S, encoding="utf-8")


def _typed(served: Served, command: str, lines: list[str]) -> list[str]:
    """What a terminal shows while these lines are typed, each at a prompt."""
    child = _spawned(served, command)
    seen = ""
    try:
        child.expect("node-1\r\n")
        seen += child.before + child.after
        # Before that the terminal itself would echo what is typed.
        until(lambda: not termios.tcgetattr(child.child_fd)[3] & termios.ECHO, "the keys are the program's")
        if "--tail" not in command:
            child.send("\r")
        for line in lines:
            child.expect_exact(PROMPT)
            seen += child.before + child.after
            child.send(line if line == WAY_OUT else f"{line}\r")
        child.expect(pexpect.EOF)
        seen += child.before
    finally:
        child.close(force=True)
    return seen.replace("\r\n", "\n").replace(WHERE, "").splitlines()


def _shown(served: Served, command: str, lines: list[str]) -> list[str]:
    """What a terminal shows of a command that is interrupted where the page says so."""
    child = _spawned(served, command)
    seen = ""
    try:
        if lines[-1].startswith(INTERRUPT):
            child.expect_exact(f"{lines[-2]}\r\n")  # Ctrl-C throws away what nobody has read yet
            seen += child.before + child.after
            child.sendintr()
        child.expect(pexpect.EOF)
        return str(seen + child.before).replace("\r\n", "\n").splitlines()
    finally:
        child.close(force=True)
