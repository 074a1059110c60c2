"""Exec and attach at a person's terminal: driven by pexpect, and looked at through tmux."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import termios
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pexpect
import pytest
from tests.integration.program.served import Served, command, environment, until
from tests.integration.program.test_exec import pids_with, start
from tests.integration.program.test_lifecycle import manifest

LIMIT_S = 15
PROMPT = "# "


@pytest.fixture(scope="module")
def web(serve: Callable[..., Served]) -> Served:
    made = serve(name="terminal")
    start(made, "web", replicas=2)
    text = manifest(name="shell", command=["sh"], tty=True)
    made.cli("apply", "-f", "-", "-q", stdin=text)
    return made


Spawn = Callable[..., Any]


@pytest.fixture
def spawn(web: Served) -> Iterator[Spawn]:
    """Start ``cloudless WORDS`` on a terminal of its own; it is gone afterwards."""
    children: list[Any] = []

    def make(*words: str, rows: int = 30, columns: int = 100) -> Any:
        program, *arguments = command(*words)
        env = environment(CLOUDLESS_ADDRESS=web.address, TERM="xterm")
        child = pexpect.spawn(
            program, arguments, env=env, dimensions=(rows, columns), timeout=LIMIT_S, encoding="utf-8"
        )
        children.append(child)
        return child

    yield make
    for child in children:
        child.close(force=True)


def ended(child: Any) -> int:
    """Its exit code."""
    child.expect(pexpect.EOF)
    child.close()
    assert child.signalstatus is None
    return int(child.exitstatus)


def begin_cat(child: Any) -> None:
    """From now on the terminal echoes what is typed, and no longer the shell's line editor."""
    child.sendline("echo be''gun; cat")
    child.expect("begun\r\n")


def test_a_shell_with_its_size_keys_and_exit_code(spawn: Spawn) -> None:
    child = spawn("exec", "-it", "web", "--", "sh")
    child.expect(r"web/[01] on node-1")
    child.expect(PROMPT)
    child.sendline("stty size; tty")
    child.expect("30 100\r\n/dev/pts/0\r\n")
    child.setwinsize(40, 120)
    child.sendline("while [ \"$(stty size)\" != '40 120' ]; do :; done; stty size")
    child.expect("40 120\r\n")
    begin_cat(child)
    child.sendline("abc")
    child.expect("abc\r\nabc\r\n")
    child.sendcontrol("c")
    child.sendline("echo code $?")
    child.expect("code 130\r\n")
    child.sendcontrol("p")  # the line before, and no detach key
    child.expect("echo code")
    child.sendcontrol("u")
    child.sendline("exit 7")
    assert ended(child) == 7


def test_control_d_ends_the_shell(spawn: Spawn) -> None:
    child = spawn("exec", "-it", "web", "--", "sh")
    child.expect(PROMPT)
    child.sendcontrol("d")
    assert ended(child) == 0


def test_control_z_is_the_programs(spawn: Spawn) -> None:
    child = spawn("exec", "-it", "web", "--", "sh")
    child.expect(PROMPT)
    begin_cat(child)
    child.sendline("abc")
    child.expect("abc\r\nabc\r\n")
    child.sendcontrol("z")
    child.expect("Stopped")
    child.sendline("exit")
    child.expect("You have stopped jobs")
    child.sendline("exit 0")
    assert ended(child) == 0


def test_escapes(spawn: Spawn) -> None:
    child = spawn("exec", "-it", "web", "--", "sh", "-c", "sleep 6601")
    child.expect("node-1")
    until(lambda: pids_with("6601"), "it runs")
    child.send("\r~?")
    child.expect(r"~. leaves \(the program ends\)")
    child.send("x~.")  # not at the beginning of a line
    child.expect(r"x~\.")
    child.send("\r~~")
    child.expect("~")
    child.send("\r~.")
    assert ended(child) == 130
    until(lambda: not pids_with("6601"), "it is gone", 10)


def test_who_leaves_begins_a_new_line(spawn: Spawn) -> None:
    child = spawn("exec", "-it", "web", "--", "sh", "-c", "printf 'half a line'; sleep 6602")
    child.expect("half a line")
    child.send("~.")
    assert ended(child) == 130
    assert child.before == "\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_terminal_is_as_before(web: Served, number: signal.Signals) -> None:
    """Seen from a shell around it, which must find its terminal in order (but after SIGKILL)."""
    env = environment(CLOUDLESS_ADDRESS=web.address, TERM="xterm", PS1="$ ")
    child = pexpect.spawn("/bin/sh", ["-i"], env=env, timeout=LIMIT_S, encoding="utf-8")
    try:
        before = termios.tcgetattr(child.child_fd)
        child.sendline(" ".join(command("exec", "-it", "web", "--", "sh", "-c", "'echo in; sleep 6701'")))
        child.expect("in\r\n")
        (client,) = [pid for pid in pids_with("exec") if pids_with("exec") and parent(pid) == child.pid]
        os.kill(client, number)
        until(lambda: not pids_with("6701"), "it is gone", 10)
        if number is not signal.SIGKILL:
            until(lambda: termios.tcgetattr(child.child_fd)[:4] == before[:4], "the terminal is as before")
    finally:
        child.close(force=True)


def parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def test_tty_needs_a_terminal(web: Served) -> None:
    assert "needs a terminal" in web.cli("exec", "-it", "web", "--", "sh", code=2).err


def test_attach_leave_and_attach_again(spawn: Spawn, web: Served) -> None:
    child = spawn("attach", "shell", rows=33, columns=99)
    child.expect("shell/0 on node-1")
    child.sendline("stty size; kept=yes")
    child.expect("33 99\r\n")
    child.send("\r~?")
    child.expect(r"~. leaves \(the program goes on\)")
    child.send("\r~.")
    assert ended(child) == 0
    child = spawn("attach", "shell")
    child.expect("node-1")
    child.sendline("echo $kept")
    child.expect("yes\r\n")
    child.sendline("exit 5")
    assert ended(child) == 5


class Screen:
    """A terminal as a person sees it: tmux with one window. ``then`` is what a shell does afterwards."""

    def __init__(self, web: Served, *words: str, rows: int = 24, columns: int = 80, then: str = "") -> None:
        self._socket = f"cl-{uuid.uuid4().hex[:8]}"
        line = " ".join(f"'{word}'" for word in command(*words)) + then
        env = environment(CLOUDLESS_ADDRESS=web.address)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), line, env=env)

    def _tmux(self, *words: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words], capture_output=True, text=True, timeout=20, env=env
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines()]

    def until(self, fits: Callable[[list[str]], Any]) -> list[str]:
        def look() -> list[str] | None:
            lines = self.lines()
            return lines if lines and fits(lines) else None

        try:
            return until(look, "the screen shows it", LIMIT_S)
        except AssertionError:
            raise AssertionError("\n".join(self.lines())) from None

    def resize(self, rows: int, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def screen(web: Served) -> Iterator[Callable[..., Screen]]:
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    made: list[Screen] = []

    def make(*words: str, **size: int) -> Screen:
        made.append(Screen(web, *words, **size))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shell(screen: Callable[..., Screen]) -> Screen:
    it = screen("exec", "-it", "web", "--", "sh")
    it.until(lambda lines: any(line.endswith("/ #") for line in lines))
    return it


def test_vi(screen: Callable[..., Screen], web: Served) -> None:
    it = shell(screen)
    it.keys("vi /tmp/poem", "Enter")
    it.until(lambda lines: lines[0] == "" and lines[1:23] == ["~"] * 22 and "/tmp/poem" in lines[23])
    it.keys("i", "roses are red", "Enter", "violets")
    it.until(lambda lines: lines[:2] == ["roses are red", "violets"])
    it.resize(30, 100)
    it.keys("Escape")
    it.until(lambda lines: lines[29].startswith("- /tmp/poem"))
    it.keys(":wq", "Enter")
    it.until(lambda lines: "/ #" in lines)
    it.keys("cat /tmp/poem; stty size", "Enter")
    it.until(lambda lines: {"roses are red", "violets", "30 100"} <= set(lines))


def test_top(screen: Callable[..., Screen]) -> None:
    it = shell(screen)
    it.keys("top", "Enter")
    # It draws line by line: what is looked for is below everything else.
    lines = it.until(lambda lines: any("sleep 100000" in line for line in lines))
    assert lines[0].startswith("Mem:")
    assert any("PID" in line and "COMMAND" in line for line in lines)
    it.keys("q")
    it.until(lambda lines: lines and any(line.endswith("/ #") for line in lines))


def test_less(screen: Callable[..., Screen]) -> None:
    it = shell(screen)
    it.keys("seq 1 500 | less", "Enter")
    it.until(lambda lines: lines[:3] == ["1", "2", "3"])
    it.keys("Space")
    it.until(lambda lines: re.fullmatch(r"2[0-9]", lines[0]))
    it.keys("G")
    it.until(lambda lines: "500" in lines)
    it.keys("q")
    it.until(lambda lines: any(line.endswith("/ #") for line in lines))
