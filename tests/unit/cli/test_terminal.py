"""What a person sees on a real (pseudo) terminal, and what a pipe gets instead."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from fake_coordinator import NOW, ready_status, replica_of

from cloudless import api

LIMIT_S = 20.0
#: Absolute: the working directory of a test is another one.
SOURCE = str(pathlib.Path(__file__).parents[3] / "src")


class Screen:
    """A command on a pseudo terminal of 80 columns; ``until`` reads up to a text."""

    def __init__(self, served, *argv: str, **environ: str) -> None:
        self._leader, follower = pty.openpty()
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": SOURCE,
            "HOME": "/nonexistent",
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "COLUMNS": "80",
            "CLOUDLESS_ADDRESS": served.address,
        } | environ
        command = [sys.executable, "-m", "cloudless", *argv]
        self.process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=env)
        os.close(follower)
        self.text = ""

    def until(self, wanted: str) -> str:
        """Everything so far, once ``wanted`` is part of it."""
        end_s = time.monotonic() + LIMIT_S
        while wanted not in self.text:
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{wanted!r} did not come; there is {self.text!r}"
            if not self._read(left_s):
                break
        assert wanted in self.text, self.text
        return self.text

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._leader], [], [], timeout_s)
        try:
            data = os.read(self._leader, 65536) if ready else b""
        except OSError:  # the other side is closed
            data = b""
        self.text += data.decode()
        return bool(data)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Read to the end; the exit code."""
        end_s = time.monotonic() + LIMIT_S
        while self._read(max(end_s - time.monotonic(), 0.0)):
            pass
        os.close(self._leader)
        return self.process.wait(LIMIT_S)


def final(text: str) -> list[str]:
    """The lines that remain after all repainting."""
    lines: list[str] = []
    for piece in re.split(r"(\x1b\[\d*[AJK]|\r?\n|\r)", text):
        if piece.endswith("A") and piece.startswith("\x1b"):
            del lines[-int(piece[2:-1]) - 1 :]
            lines.append("")
        elif piece.endswith("\n"):
            lines.append("")
        elif piece and not re.fullmatch(r"\x1b\[\d*[JK]|\r", piece):
            lines = [*lines[:-1], (lines[-1] if lines else "") + piece]
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines if line]


@pytest.fixture
def web(cli):
    cli("run", "web", "web:1.4", "--replicas", "2")


def test_tables_have_colours_on_a_terminal_only(served, cli, web):
    screen = Screen(served, "get")
    assert screen.end() == 0
    assert "\x1b[32mAvailable\x1b[0m" in screen.text
    assert "\x1b[" not in cli("get").out
    assert "\x1b[32m" in cli("get", "--color", "always").out
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = Screen(served, "get", **environ)
        plain.end()
        assert "\x1b[" not in plain.text


def test_force_color_on_a_pipe(cli, web, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32m" in cli("get").out
    assert "\x1b[32m" not in cli("get", "--color", "never").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in cli("get").out


def test_progress_is_repainted_and_disappears(served, fake):
    served.do(setattr, fake, "auto", False)
    screen = Screen(served, "run", "web", "web:1", "--replicas", "2")
    screen.until("waiting for the coordinator")

    def half():
        workload = fake.workloads["default", "web"]
        status = ready_status(workload)
        status.available_replicas, status.rollout.phase = 1, api.RolloutStatusPhase.PROGRESSING
        status.replicas = [
            replica_of(workload, 0),
            replica_of(
                workload, 1, phase=api.ReplicaPhase.STARTING, ready=False, message="pulling \x1b[31mweb:1"
            ),
        ]
        fake.set_status("web", status)

    served.do(half)
    text = screen.until("pulling \\x1b[31mweb:1")
    assert "\x1b[1A\r\x1b[J" in text
    served.do(lambda: fake.set_status("web", ready_status(fake.workloads["default", "web"])))
    assert screen.end() == 0
    assert final(screen.text) == ["workload/web created", "workload/web 2/2 available, revision 1"]


def test_progress_on_a_pipe_tells_each_change_once(served, fake, cli):
    served.do(setattr, fake, "auto", False)

    def starting(message):
        workload = fake.workloads["default", "web"]
        status = ready_status(workload)
        status.available_replicas = 0
        status.replicas = [
            replica_of(workload, 0, phase=api.ReplicaPhase.STARTING, ready=False, message=message)
        ]
        fake.set_status("web", status)

    for delay_s, message in ((0.3, "a"), (0.4, "b"), (0.5, "c")):
        served.later(delay_s, starting, message)
    served.later(0.7, lambda: fake.set_status("web", ready_status(fake.workloads["default", "web"])))
    result = cli("run", "web", "web:1")
    assert result.err.splitlines() == [
        "web/0: starting on n1 (revision 1)",
        "web: waiting for replicas: 0/1 available",
        "web/0: ready on n1 (revision 1)",
    ]
    assert "\x1b" not in result.err


def test_interrupting_a_wait_is_130_and_says_what_goes_on(served, fake):
    served.do(setattr, fake, "auto", False)
    screen = Screen(served, "run", "web", "web:1")
    screen.until("waiting for the coordinator")
    screen.interrupt()
    assert screen.end() == 130
    lines = final(screen.text)
    assert "the change of web goes on without us; see it with: cloudless rollout watch web" in lines
    assert "Traceback" not in screen.text


def test_watch_repaints_a_terminal(served, fake, web):
    screen = Screen(served, "get", "-w")
    screen.until("2/2")
    served.do(lambda: fake.set_status("web", api.WorkloadStatus(observed_generation=1, desired_replicas=2)))
    screen.until("0/2")
    screen.interrupt()
    assert screen.end() == 130
    lines = [line for line in final(screen.text) if line.startswith("web")]
    assert len(lines) == 1
    assert lines[0].split()[1] == "0/2"


def watching(served, *argv: str) -> subprocess.Popen:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCE,
        "CLOUDLESS_ADDRESS": served.address,
        "HOME": "/nonexistent",
    }
    command = [sys.executable, "-m", "cloudless", "get", "-w", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def test_watch_on_a_pipe_is_a_line_per_change(served, fake, web):
    with watching(served) as process:
        assert process.stdout.readline().split()[0] == "NAME"
        assert process.stdout.readline().split()[:3] == ["web", "2/2", "Available"]
        workload = fake.workloads["default", "web"]
        status = ready_status(workload)
        status.message = "this is not shown, so nothing is told"
        served.do(fake.set_status, "web", status)
        served.do(
            lambda: fake.set_status("web", api.WorkloadStatus(observed_generation=1, desired_replicas=2))
        )
        assert process.stdout.readline().split()[:3] == ["web", "0/2", "Degraded"]
        served.do(fake.put, fake.workloads["default", "web"], api.WatchWorkloadsResponseType.DELETED)
        assert process.stdout.readline().split()[:3] == ["web", "0/2", "Deleted"]
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130


def test_watch_as_json_is_one_object_per_event(served, fake, web):
    with watching(served, "replicas", "web", "-o", "json") as process:
        first = json.loads(process.stdout.readline())
        second = json.loads(process.stdout.readline())
        assert [(item["type"], item["object"]["ordinal"]) for item in (first, second)] == [
            ("ADDED", 0),
            ("ADDED", 1),
        ]
        workload = fake.workloads["default", "web"]
        status = ready_status(workload)
        status.replicas = [replica_of(workload, 0, restarts=4)]
        served.do(fake.set_status, "web", status)
        changes = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [(item["type"], item["object"]["restarts"]) for item in changes] == [
            ("DELETED", 0),
            ("MODIFIED", 4),
        ]
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


def test_watch_events(served, fake):
    with watching(served, "events") as process:
        served.do(
            fake.happen,
            api.Event(id="e1", at=NOW, reason="Placed", kind="workload", name="web", message="on n1"),
        )
        assert process.stdout.readline().split()[0] == "AGE"
        assert process.stdout.readline().split()[-3:] == ["workload/web", "on", "n1"]
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


def test_a_reader_that_leaves_is_no_error(served, web):
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCE,
        "CLOUDLESS_ADDRESS": served.address,
        "HOME": "/nonexistent",
    }
    line = f"{sys.executable} -m cloudless schema | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_a_plain_get_imports_neither_pydantic_nor_yaml(served):
    code = (
        "import sys; from cloudless.cli import main; code = main(['get']);"
        "heavy = {'pydantic', 'pydantic_core', 'ruamel', 'rich', 'uvloop', 'dateutil', 'importlib.metadata'};"
        "found = heavy & set(sys.modules); assert not found, found; sys.exit(code)"
    )
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCE,
        "CLOUDLESS_ADDRESS": served.address,
        "HOME": "/nonexistent",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "no workloads in namespace default\n")
