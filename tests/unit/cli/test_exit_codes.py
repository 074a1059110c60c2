"""Exit codes and what a person reads with them, as one table."""

from __future__ import annotations

import re

import pytest
from fake_coordinator import ready_status, replica_of

from cloudless import api
from cloudless.domain import errors

RAISED = [
    (errors.Invalid.field("spec.image", "is required"), 1, "CL-4000"),
    (errors.NotFound("workload web does not exist"), 5, "CL-4040"),
    (errors.AlreadyExists("workload web exists already"), 6, "CL-4090"),
    (errors.Conflict("changed meanwhile"), 6, "CL-4091"),
    (errors.PreconditionFailed("it is paused"), 1, "CL-4120"),
    (errors.Exhausted("too many"), 1, "CL-4290"),
    (errors.Denied("you may not"), 7, "CL-4030"),
    (errors.Unavailable("no leader"), 8, "CL-5030"),
    (errors.DeadlineExceeded("too slow"), 124, "CL-5040"),
    (errors.Fatal("broken"), 1, "CL-5000"),
]


@pytest.mark.parametrize(("error", "code", "stable"), RAISED, ids=lambda value: getattr(value, "code", ""))
def test_errors_of_the_coordinator(cli, fake, served, error, code, stable):
    served.do(fake.failures.__setitem__, "scale", [error])
    result = cli("scale", "web", "2")
    assert result.code == code
    lines = result.err.splitlines()
    assert lines[0] == f"error: {error.message}"
    assert lines[-1] == f"  code: {stable}"
    assert "Traceback" not in result.err


USAGE = [
    ("frobnicate", "unknown verb 'frobnicate'"),
    ("aply", "unknown verb 'aply' (did you mean 'apply'?)"),
    ("top", "'top' comes with a later version"),
    ("rollout stauts web", "unknown verb 'rollout stauts' (did you mean 'status'?)"),
    ("rollout web", "unknown verb 'rollout web': it is one of status, watch, history, pause"),
    ("rollout undo", "the following arguments are required: NAME"),
    ("rollout undo web --to-revison 2", "unknown option '--to-revison' (did you mean '--to-revision'?)"),
    ("rollout undo web --to-revision two", "argument --to-revision: 'two' is not a whole number"),
    ("rollout history web --revision 0", "revisions are numbered from 1, not 0"),
    ("rollout watch web -o yaml", "-o yaml does not go with watching"),
    ("rollout pause web/0", "'web/0' names a replica; this needs a workload"),
    ("rollout pause web --wait --no-wait", "not allowed with argument --wait"),
    ("get --wacth", "unknown option '--wacth' (did you mean '--watch'?)"),
    ("--adress x get", "unknown option --adress (did you mean '--address'?)"),
    (
        "get -o jsn",
        "name, jsonpath=..., custom-columns=... (did you mean 'json'?)",
    ),
    ("get -o jsonpath", "-o jsonpath needs an expression"),
    ("get --color purple", "argument --color: 'purple' is not one of auto, always, never"),
    ("image pul x", "argument action: 'pul' is not one of ls, pull, rm, import (did you mean 'pull'?)"),
    ("get revisions", "revisions of which workload?"),
    ("get nodes -w", "nodes cannot be watched"),
    ("get -w -o yaml", "-o yaml does not go with --watch"),
    ("run web", "the following arguments are required: IMAGE"),
    ("run web x -e A", "--env 'A' is not K=V"),
    ("run web x -p 1:2:3:4", "--publish '1:2:3:4' is not PORT:CONTAINER"),
    ("scale web many", "argument N: 'many' is not a whole number"),
    ("scale web 2 --wait-timeout soon", "'soon' is not a duration"),
    ("apply", "apply what?"),
    ("update web --set x", "--set 'x' is not PATH=VALUE"),
    ("exec web", "which program?"),
    ("get a/b/c", "'a/b/c' is no name"),
]


@pytest.mark.parametrize(("line", "message"), USAGE)
def test_usage(cli, line, message):
    result = cli(*line.split())
    assert result.code == 2, result
    assert message in result.err
    assert result.err.splitlines()[-1] == "  code: CL-2000"
    assert result.out == ""


def test_a_coordinator_that_is_not_there(cli, monkeypatch):
    monkeypatch.setenv("CLOUDLESS_ADDRESS", "127.0.0.1:1")
    result = cli("get")
    assert result.code == 8
    assert result.err.splitlines() == [
        "error: cannot reach 127.0.0.1:1 (connection refused)",
        "  address from: CLOUDLESS_ADDRESS",
        "  try: start it with cloudless serve, or name another one (--address, --agent-address)",
        "  code: CL-8001",
    ]
    assert cli("get", "--address", "nonsense").code == 1


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("get wbe", "web"),
        ("delete wbe", "web"),
        ("scale wbe 1", "web"),
        ("describe wbe", "web"),
        ("get nod", "nodes"),
    ],
)
def test_names_that_were_meant(cli, line, guess):
    cli("run", "web", "web:1")
    result = cli(*line.split())
    assert result.code == 5
    assert f"(did you mean '{guess}'?)" in result.err


def test_nodes_that_were_meant(cli):
    assert "(did you mean 'n1'?)" in cli("nodes", "n11").err
    assert cli("nodes", "n11").code == 5


def failing(fake, **fields):
    workload = fake.workloads["default", "web"]
    status = ready_status(workload)
    status.available_replicas = 0
    status.replicas = [replica_of(workload, 0, ready=False, available=False, **fields)]
    fake.set_status("web", status)


@pytest.fixture
def slow(fake, served):
    served.do(setattr, fake, "auto", False)
    return served


def test_a_rollout_that_fails_is_3_with_the_last_lines(cli, fake, slow):
    ended = api.ExitStatus(code=1, reason="exit code 1", log_tail="starting\nno database")
    slow.later(0.2, lambda: failing(fake, phase=api.ReplicaPhase.FAILED, last_exit=ended))
    result = cli("run", "web", "web:1")
    assert result.code == 3
    assert "error: web did not become available: web/0: exit code 1" in result.err
    assert "    | starting\n    | no database\n" in result.err
    assert "try: cloudless logs web/0" in result.err


def test_what_cannot_be_placed_is_4_with_a_row_per_node(cli, fake, slow, monkeypatch):
    monkeypatch.setattr("cloudless.sdk.verdict.PLACEMENT_PATIENCE_S", 0.05)
    refusals = [api.NodeRefusal("n1", "needs memory 8Gi, 4Gi free"), api.NodeRefusal("n2", "is lost")]
    slow.later(0.2, lambda: failing(fake, phase=api.ReplicaPhase.PENDING, node="", refusals=refusals))
    result = cli("run", "web", "web:1")
    assert result.code == 4
    assert "  n1: needs memory 8Gi, 4Gi free\n  n2: is lost\n" in result.err


def test_waiting_too_long_is_124(cli, slow):
    result = cli("run", "web", "web:1", "--wait-timeout", "0.2s")
    assert result.code == 124
    assert "waiting for the coordinator to take up generation 1" in result.err


def test_a_bug_of_ours_is_named_as_one(cli, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("oops \x1b[31m")

    monkeypatch.setattr("cloudless.cli.output.formats.lines_of", broken)
    cli("run", "web", "web:1")
    result = cli("get")
    assert result.code == 1
    assert "this is a bug in cloudless: ZeroDivisionError: oops \\x1b[31m" in result.err
    assert "Traceback" not in result.err
    monkeypatch.setenv("CLOUDLESS_DEBUG", "1")
    assert re.search(r"Traceback.*ZeroDivisionError", cli("get").err, re.DOTALL)
