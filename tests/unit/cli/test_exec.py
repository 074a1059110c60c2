"""exec and attach, as a user types them, on pipes and files; terminals are tested on real parts."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from fake_coordinator import ready_status, replica_of

from cloudless import api
from cloudless.cli.rawmode import EscapeFilter, Typed
from cloudless.domain import errors

LIMIT_S = 20.0


@pytest.fixture
def web(cli):
    assert cli("run", "web", "web:1.4", "--replicas", "2").code == 0


@pytest.fixture
def run(served, tmp_path):
    """Run a command line as its own process; answers its code, stdout and stderr."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "CLOUDLESS_ADDRESS": served.address,
        "HOME": str(tmp_path),
    }

    def call(*words, stdin=b"", **options):
        done = subprocess.run(
            [sys.executable, "-m", "cloudless", *words],
            input=stdin,
            capture_output=True,
            timeout=LIMIT_S,
            env=environment,
            **options,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return call


def plays(served, fake, *responses):
    """What programs write from now on."""
    served.do(setattr, fake, "program", [api.ExecResponse(**one) for one in responses])


def test_output_and_exit_code(web, run, fake, served):
    plays(served, fake, {"stdout": b"out\n"}, {"stderr": b"err\n"}, {"exit": api.ExecExit(exit_code=3)})
    assert run("exec", "web", "--", "sh", "-c", "exit 3") == (3, "out\n", "err\n")
    start = fake.asked("program")[-1]
    assert start.command == ["sh", "-c", "exit 3"]
    assert not start.stdin
    assert not start.tty
    assert start.timeout is None


def test_every_option_reaches_the_coordinator(web, run, fake, served):
    plays(served, fake, {"exit": api.ExecExit()})
    options = ("-u", "1000", "-e", "A=1", "-e", "B=x=y", "--workdir", "/x", "--exec-timeout", "2m")
    assert run("exec", *options, "web/1", "--", "id")[0] == 0
    start = fake.asked("program")[-1]
    assert (start.replica, start.user, start.env) == ("1", "1000", {"A": "1", "B": "x=y"})
    assert start.working_dir == "/x"
    assert start.timeout is not None
    assert start.timeout.total_seconds() == 120


def test_input_goes_in_and_ends(web, run, fake):
    assert run("exec", "-i", "web", "--", "cat", stdin=b"hi\n") == (6, "hi\n", "")
    assert fake.asked("program")[-1].stdin
    assert run("attach", "web", "--end-stdin", "--tail", "3", stdin=b"ho\n") == (6, "ho\n", "")
    attach = fake.asked("attach")[-1]
    assert (attach.stdin, attach.tail_lines) == (True, 3)


def test_files_keep_their_place(web, run, tmp_path):
    """Ours and whoever shares them: nothing is read twice or written over."""
    given, taken = tmp_path / "given", tmp_path / "taken"
    given.write_bytes(b"first\nsecond\n")
    line = f"(read -r skipped; {sys.executable} -m cloudless exec -i web -- cat; echo end) <{given} >{taken}"
    done = subprocess.run(["sh", "-c", line], env=environment_of(run), check=False, timeout=LIMIT_S)
    assert done.returncode == 0
    assert taken.read_bytes() == b"second\nend\n"


def environment_of(run):
    """What ``run`` gives to its processes."""
    return dict(zip(run.__code__.co_freevars, (cell.cell_contents for cell in run.__closure__), strict=True))[
        "environment"
    ]


def test_how_it_ended_is_said(web, run, fake, served):
    assert run("exec", "web", "--", "nosuch") == (127, "", "error: command not found: nosuch\n")
    late = api.ExecExit(exit_code=143, reason="TimedOut", message="its time was up after 1 s")
    plays(served, fake, {"exit": late})
    assert run("exec", "web", "--", "x") == (124, "", "[its time was up after 1 s]\n")
    starved = api.ExecExit(exit_code=137, reason="OutOfMemory", message="killed", out_of_memory=True)
    plays(served, fake, {"exit": starved})
    assert run("exec", "web", "--", "x") == (137, "", "[killed]\n")


def test_no_exit_is_never_a_success(web, run, fake, served):
    plays(served, fake, {"stdout": b"half"})
    code, out, err = run("exec", "web", "--", "x")
    assert (code, out) == (125, "half")
    assert "did not say how the program ended" in err
    assert run("exec", "wbe", "--", "ls")[0] == 125
    assert run("attach", "wbe")[0] == 125


def test_a_reader_that_leaves(web, run, fake, served):
    plays(served, fake, *({"stdout": b"line\n" * 5000} for _ in range(100)), {"exit": api.ExecExit()})
    line = f"{sys.executable} -m cloudless exec web -- yes | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env=environment_of(run), check=False, timeout=LIMIT_S, capture_output=True
    )
    assert done.stdout == b"line\n141\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "words", ["exec -i web -- x", "attach web", "logs web", "get", "exec wbe -- x", "serve -x"]
)
def test_closed_streams(web, run, fake, served, closed, words):
    """What is opened next must not take their place: a socket would get what is meant for people."""
    plays(served, fake, {"stdout": b"out\n"}, {"stderr": b"err\n"}, {"exit": api.ExecExit(exit_code=3)})
    line = f"{sys.executable} -m cloudless {words} {closed}"
    done = subprocess.run(
        ["sh", "-c", line], env=environment_of(run), check=False, timeout=LIMIT_S, capture_output=True
    )
    expected = {"exec -i web -- x": 3, "attach web": 3, "exec wbe -- x": 125, "serve -x": 2}
    assert done.returncode == expected.get(words, 0), done.stderr
    assert b"Traceback" not in done.stderr
    if closed == "<&-" and expected.get(words) == 3:
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_everywhere(web, run, fake, served):
    replicas = [
        api.ReplicaStatus(id=f"id{n}", workload="web", ordinal=n, phase=api.ReplicaPhase.RUNNING, node="n1")
        for n in (1, 0)
    ]
    key = ("default", "web")
    workload = fake.workloads[key]
    status = ready_status(workload)
    status.replicas = replicas
    workload.status = status
    served.do(fake.put, workload)
    plays(
        served,
        fake,
        {"stdout": b"one\ntwo"},
        {"stdout": b" and\n"},
        {"stderr": b"err"},
        {"exit": api.ExecExit(exit_code=4)},
    )
    code, out, err = run("exec", "--all", "web", "--", "id")
    assert code == 4
    assert sorted(out.splitlines()) == ["web/0 | one", "web/0 | two and", "web/1 | one", "web/1 | two and"]
    assert sorted(err.splitlines()) == ["web/0 | err", "web/1 | err"]
    assert {start.replica for start in fake.asked("program")} == {"id0", "id1"}
    code, out, _ = run("exec", "--all", "-d", "web", "--", "id")
    assert (code, out) == (0, "web/id0 x-1\nweb/id1 x-1\n")
    code, _, err = run("exec", "--all", "web", "--", "nosuch")
    assert code == 127
    assert "command not found" in err


def replicas_are(served, fake, **phases):
    """Give the workload replicas by their ordinals (``_0``)."""
    workload = fake.workloads["default", "web"]
    status = ready_status(workload)
    status.replicas = [
        replica_of(workload, int(name[1:]), id=f"id{name[1:]}", phase=api.ReplicaPhase[phase])
        for name, phase in phases.items()
    ]
    served.do(fake.set_status, "web", status)


def test_everywhere_says_which_it_left_out(web, run, fake, served):
    replicas_are(served, fake, _2="FAILED", _0="RUNNING", _1="BACKING_OFF")
    plays(served, fake, {"stdout": b"one\n"}, {"exit": api.ExecExit()})
    left_out = "left out: web/1 is backing off\nleft out: web/2 is failed\n"
    assert run("exec", "--all", "web", "--", "id") == (0, "web/0 | one\n", left_out)
    assert run("exec", "--all", "-d", "web", "--", "id") == (0, "web/id0 x-1\n", left_out)


@pytest.mark.parametrize("flags", [(), ("-d",)])
def test_everywhere_without_any(web, run, fake, served, flags):
    replicas_are(served, fake, _0="STARTING")
    code, out, err = run("exec", "--all", *flags, "web", "--", "id")
    assert (code, out) == (125, "")
    assert "no replica of web runs" in err


def test_everywhere_time_is_up(web, run, fake, served):
    """Also when another one has a code of its own that is lower."""
    replicas_are(served, fake, _0="RUNNING", _1="RUNNING")
    late = api.ExecExit(exit_code=143, reason="TimedOut", message="its time was up after 1 s")
    plays(served, fake, {"exit": late})
    code, _, err = run("exec", "--all", "--exec-timeout", "1s", "web", "--", "x")
    assert (code, err.count("its time was up")) == (124, 2)


def test_one_that_cannot_be_left_running_does_not_keep_it_from_the_others(web, run, fake, served):
    replicas_are(served, fake, _0="RUNNING", _1="RUNNING")
    served.do(fake.failures.__setitem__, "program", [errors.Exhausted("64 programs run already")])
    code, out, err = run("exec", "--all", "-d", "web", "--", "id")
    assert (code, out) == (125, "web/id1 x-1\n")
    assert err == "error: 64 programs run already\n"


def test_detached(web, run, fake):
    assert run("exec", "-d", "web", "--", "job") == (0, "web/0 x-1\n", "")
    assert fake.asked("program")[-1].detach
    assert run("exec", "-d", "web", "--", "nosuch") == (127, "", "error: command not found: nosuch\n")


def running(served, fake, *programs, **fields):
    """What runs by exec from now on."""
    answer = api.ListExecsResponse(execs=[api.Exec(**one) for one in programs], **fields)
    served.do(setattr, fake, "execs", answer)


JOB = {
    "exec_id": "x-abc",
    "namespace": "default",
    "replica": "web/0",
    "node": "n1",
    "command": ["sh", "-c", "sleep 9"],
    "detached": True,
    "pid": 7,
}


def test_programs_are_listed(web, run, fake, served):
    running(served, fake, JOB, {**JOB, "exec_id": "x-def", "detached": False, "command_truncated": True})
    code, out, err = run("get", "execs")
    assert (code, err) == (0, "")
    head, first, second = out.splitlines()
    assert head.split() == ["ID", "REPLICA", "NODE", "DETACHED", "USER", "AGE", "COMMAND"]
    assert first.split(maxsplit=4)[:4] == ["x-abc", "web/0", "n1", "yes"]
    assert first.endswith("  sh -c 'sleep 9'")
    assert second.endswith("  sh -c 'sleep 9'...")
    assert run("get", "execs", "web/1", "-o", "name") == (0, "exec/x-abc\nexec/x-def\n", "")
    asked = fake.asked("execs")[-1]
    assert (asked.namespace, asked.name, asked.replica) == ("default", "web", "1")
    listed = json.loads(run("get", "execs", "-A", "-o", "json")[1])["items"]
    assert (listed[0]["command"], listed[0]["pid"]) == (["sh", "-c", "sleep 9"], 7)
    assert fake.asked("execs")[-1].namespace == ""
    running(served, fake)
    assert run("get", "execs") == (0, "", "no execs\n")
    assert run("get", "execs", "-w")[0] == 2
    assert run("describe", "exec", "x-abc")[0] == 2


def test_what_is_missing_from_the_list_is_said(web, run, fake, served):
    away = [api.NodeFailure(node="n2", message="node n2 is not connected")]
    running(served, fake, JOB, failures=away)
    code, out, err = run("get", "execs", "-o", "name")
    assert (code, out) == (8, "exec/x-abc\n")
    assert err == "missing: what runs on n2 (node n2 is not connected)\n"
    running(served, fake, JOB, truncated=True)
    code, out, err = run("get", "execs", "-o", "name")
    assert (code, out) == (1, "exec/x-abc\n")
    assert "more than one answer holds" in err


def test_a_program_is_ended(web, run, fake, served):
    running(served, fake, JOB)
    assert run("exec", "web", "--kill", "x-a") == (0, "web/0 x-abc ended\n", "")
    asked = fake.asked("kill_exec")[-1]
    assert (asked.name, asked.replica, asked.exec_id, asked.signal) == ("web", "", "x-a", 0)
    assert asked.grace_period is None
    assert run("exec", "web/0", "--kill", "x-abc", "--grace", "0s")[0] == 0
    asked = fake.asked("kill_exec")[-1]
    assert (asked.replica, asked.grace_period) == ("0", datetime.timedelta())
    assert run("exec", "web", "--kill", "x-abc", "--signal", "usr1") == (0, "web/0 x-abc signalled\n", "")
    assert fake.asked("kill_exec")[-1].signal == 10


def test_a_program_that_is_not_there_cannot_be_ended(web, run, fake, served):
    code, out, err = run("exec", "web", "--kill", "nosuch")
    assert (code, out) == (5, "")
    assert err.startswith("error: no program 'nosuch' runs in workload default/web\n")
    served.do(fake.failures.__setitem__, "kill_exec", [errors.Unavailable("node n1 is not connected")])
    assert run("exec", "web", "--kill", "x-abc")[0] == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kill", "x", "--", "ls"), "--kill takes no program"),
        (("--kill", "x", "-d"), "--kill takes no --detach"),
        (("--kill", "x", "-it"), "--kill takes no --stdin"),
        (("--kill", "x", "--signal", "NOSUCH"), "'NOSUCH' is no signal"),
        (("--kill", "x", "--signal", "0"), "'0' is no signal"),
        (("--kill", "x", "--signal", "HUP", "--grace", "1s"), "--grace contradicts it"),
        (("--signal", "HUP", "--", "ls"), "go with --kill"),
        (("--grace", "1s", "--", "ls"), "go with --kill"),
        (("--kill", ""), "--kill: which program"),
    ],
)
def test_what_does_not_go_with_kill(web, run, words, said):
    code, _, err = run("exec", "web", *words)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("silent", "words", "code"),
    [
        ("program", ("exec", "web", "--", "ls"), 125),
        ("program", ("exec", "-d", "web", "--", "ls"), 125),
        ("program", ("exec", "--all", "web", "--", "ls"), 125),
        ("attach", ("attach", "--no-stdin", "web"), 125),
        ("logs", ("logs", "-f", "web"), 124),
        ("program", ("cp", "web:/etc/hosts", "."), 124),
    ],
)
def test_the_timeout_is_for_every_verb(web, run, fake, served, tmp_path, silent, words, code):
    """The deadline of a call; one that goes on has it until it begins."""
    served.do(fake.silent.add, silent)
    got, _, err = run("--timeout", "1s", *words, cwd=tmp_path)
    assert (got, "within 1 s" in err) == (code, True), err


def test_the_timeout_of_a_forwarded_connection(web, fake, served, run):
    served.do(fake.silent.add, "forward")
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudless", "--timeout", "1s", "port-forward", "web", ":80"],
        stderr=subprocess.PIPE,
        env=environment_of(run),
        text=True,
    )
    assert process.stderr is not None
    with contextlib.closing(process.stderr) as told:
        try:
            port = int(told.readline().partition(" -> ")[0].rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), LIMIT_S):
                assert "no connection within 1 s" in told.readline()
        finally:
            process.terminate()
            process.wait(LIMIT_S)


@pytest.mark.parametrize(
    "words",
    [
        ("web", "-d", "-i", "--", "x"),
        ("web", "-d", "--exec-timeout", "1s", "--", "x"),
        ("web", "--all", "-i", "--", "x"),
        ("web", "--all", "--replica", "1", "--", "x"),
        ("web/1", "--all", "--", "x"),
        ("web", "--exec-timeout", "0", "--", "x"),
        ("web", "--workdir", "tmp", "--", "x"),
        ("web/0", "--replica", "1", "--", "x"),
        ("web", "-t", "--", "x"),
        ("-it", "web", "--", "x"),
        ("web",),
    ],
)
def test_what_makes_no_sense_is_2(web, run, words):
    assert run("exec", *words)[0] == 2


def test_interrupting_leaves(web, fake, served, run):
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudless", "exec", "-i", "web", "--", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment_of(run),
        cwd=pathlib.Path.cwd(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.closing(process.stdout), contextlib.closing(process.stdin):
        process.stdin.write(b"x")
        process.stdin.flush()
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 130


@pytest.mark.parametrize(
    ("reads", "sent"),
    [
        ([b"~x"], b"~x"),
        ([b"a~.b"], b"a~.b"),
        ([b"a\r~~.\r"], b"a\r~.\r"),
        ([b"a\n", b"~", b"b"], b"a\n~b"),
        ([b"~~"], b"~"),
        ([b"\r~\r~."], b"\r~\r"),
    ],
)
def test_what_is_typed_passes(reads, sent):
    keys = EscapeFilter()
    assert b"".join(keys.feed(data).data for data in reads) == sent


def test_the_way_out():
    assert EscapeFilter().feed(b"~.") == Typed(b"", leave=True)
    keys = EscapeFilter()
    assert keys.feed(b"ls\r~") == Typed(b"ls\r")
    assert keys.feed(b"?") == Typed(b"", help=True)
    assert keys.feed(b"~") == Typed(b"")
    assert keys.feed(b".") == Typed(b"", leave=True)


def test_a_program_that_fails_for_want_of_what_was_piped_says_how_it_is_passed_on(web, run, fake, served):
    told = "[what was piped to us was not passed on: -i does that]\n"
    plays(served, fake, {"exit": api.ExecExit(exit_code=2)})
    assert run("exec", "web", "--", "tar", "x", stdin=b"archive") == (2, "", told)
    assert run("exec", "-i", "web", "--", "tar", "x", stdin=b"archive") == (2, "", "")
    assert run("exec", "web", "--", "tar", "x") == (2, "", "")
    plays(served, fake, {"exit": api.ExecExit(exit_code=0)})
    assert run("exec", "web", "--", "true", stdin=b"archive") == (0, "", "")


def test_a_full_disk_is_said_in_words(web, fake, served, tmp_path):
    environment = os.environ | {"CLOUDLESS_ADDRESS": served.address, "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    plays(served, fake, {"stdout": b"out\n"}, {"exit": api.ExecExit(exit_code=0)})
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cloudless", "exec", "web", "--", "ls"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            env=environment,
        )
    assert done.returncode == 125
    assert done.stderr.decode().startswith("error: cannot read or write: no space left on device\n")
