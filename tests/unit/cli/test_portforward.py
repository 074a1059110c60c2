"""port-forward, as a user types it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from fake_coordinator import ready_status

from cloudless.cli.parsing import UsageError
from cloudless.cli.verbs.portforward import Pair, parse_pair

LIMIT_S = 20.0


@pytest.fixture
def web(cli):
    assert cli("run", "web", "web:1.4", "--replicas", "2").code == 0


@contextlib.contextmanager
def started(served, *words):
    """The command as its own process; ends with Ctrl-C."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "CLOUDLESS_ADDRESS": served.address,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudless", "port-forward", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=pathlib.Path.cwd(),
    )
    try:
        yield process
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, out) == (0, ""), err
    finally:
        process.kill()
        process.communicate()


def local_port(line: str) -> int:
    """Of "forwarding 127.0.0.1:8080 -> web 80"."""
    return int(line.split()[1].rpartition(":")[2])


def test_ports_lead_to_the_workload_until_interrupted(web, served):
    with started(served, "web", ":80", ":443") as process:
        lines = [process.stderr.readline() for _ in range(2)]
        assert [line.split()[2:] for line in lines] == [["->", "web", "80"], ["->", "web", "443"]]
        for line in lines:
            with socket.create_connection(("127.0.0.1", local_port(line)), LIMIT_S) as made:
                made.sendall(b"hello")
                assert made.recv(100) == b"hello"
    asked = {message.target.port for message in served.fake.asked("forward")}
    assert asked == {80, 443}


def test_one_replica(web, served):
    with started(served, "web/1", ":80") as process:
        line = process.stderr.readline()
        assert line.endswith("-> web/1 80\n")
        with socket.create_connection(("127.0.0.1", local_port(line)), LIMIT_S) as made:
            made.sendall(b"x")
            made.recv(1)
    assert served.fake.asked("forward")[0].target.replica == "1"


def test_failures_are_told_once(web, served):
    from cloudless.domain.errors import PreconditionFailed

    why = "connection refused: nothing listens on port 81 in replica web/0"
    served.do(served.fake.failures.__setitem__, "forward", [PreconditionFailed(why) for _ in range(3)])
    with started(served, "web", ":81") as process:
        port = local_port(process.stderr.readline())
        for _ in range(3):
            made = socket.create_connection(("127.0.0.1", port), LIMIT_S)
            with made, contextlib.suppress(ConnectionResetError):
                assert made.recv(1) == b""
        line = process.stderr.readline()
        assert line.startswith("connection from 127.0.0.1:")
        assert line.endswith(f"to web 81: {why}\n")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "", "the same again is not told at once"


def test_nobody_is_ready_yet(web, served):
    workload = served.fake.workloads["default", "web"]
    status = ready_status(workload)
    for replica in status.replicas:
        replica.ready = False
    served.do(served.fake.set_status, "web", status)
    with started(served, "web", ":80") as process:
        assert "no replica of web is ready yet" in process.stderr.readline()
        assert "forwarding" in process.stderr.readline()


def test_a_local_port_that_is_taken(cli, web):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("port-forward", "web", f"{port}:80")
    assert result.code == 1
    assert f"cannot listen on 127.0.0.1:{port}: the address is in use" in result.err
    assert "try:" in result.err


def test_what_is_not_there(cli, web):
    result = cli("port-forward", "wbe", "80")
    assert (result.code, "did you mean 'web'?" in result.err) == (5, True)
    result = cli("port-forward", "web", "80", "--replica", "7")
    assert (result.code, "has no replica 7 (there are: 0, 1)" in result.err) == (5, True)
    assert cli("port-forward", "web/0", "80", "--replica", "1").code == 2


def test_pairs_of_ports():
    assert parse_pair("65535:1") == Pair(65535, 1)
    for text in (
        "",
        ":",
        "80:",
        "a:80",
        "80:b",
        "0:80",
        "80:0",
        ":0",
        "0",
        "65536",
        "1:2:3",
        "-1:80",
        "\uff18\uff10",
    ):
        with pytest.raises(UsageError):
            parse_pair(text)


def test_ports_are_needed(cli, web):
    assert cli("port-forward", "web").code == 2
    assert cli("port-forward", "web", "http").code == 2
