"""Every verb, as a user types it."""

from __future__ import annotations

import json

import pytest
from fake_coordinator import NOW, ready_status, replica_of

from cloudless import __version__, api

MANIFEST = """
kind: Workload
name: web
image: web:1.4
replicas: 2
labels: {app: web}
ports: [{container_port: 80, publish: 8088}]
"""


@pytest.fixture
def web(cli):
    """A workload with two replicas."""
    assert cli("run", "web", "web:1.4", "--replicas", "2", "-l", "app=web").code == 0


def test_run_says_what_happened(cli, fake):
    result = cli(
        *"run web web:1.4 --replicas 2 -p 8088:80 -p 53:53/udp -e A=1 -e B=x=y -l app=web".split(),
        *"--cpu 500m --memory 64Mi --command /bin/web --restart on-failure -- --verbose -x".split(),
    )
    assert result.code == 0
    assert result.out == "workload/web created\nworkload/web 2/2 available, revision 1\n"
    spec = fake.workloads["default", "web"].spec
    assert (spec.replicas, spec.env, spec.args) == (2, {"A": "1", "B": "x=y"}, ["--verbose", "-x"])
    assert [(port.publish, port.container_port) for port in spec.ports] == [(8088, 80), (53, 53)]
    assert spec.resources.limits.cpu_millicores == 500
    assert spec.command == ["/bin/web"]


def test_run_waits_for_the_end_of_a_job(cli, fake, served):
    served.do(setattr, fake, "auto", False)

    def finish():
        workload = fake.workloads["default", "job"]
        done = replica_of(workload, 0, phase=api.ReplicaPhase.SUCCEEDED, ready=False, available=False)
        status = ready_status(workload)
        status.replicas, status.available_replicas = [done], 0
        fake.set_status("job", status)

    served.later(0.2, finish)
    result = cli("run", "job", "busybox", "--restart", "never")
    assert (result.code, result.out) == (0, "workload/job created\n")
    assert "job/0: succeeded on n1" in result.err


def test_run_prints_a_manifest_to_begin_with(cli, fake):
    result = cli("run", "web", "web:1.4", "-e", "A=1", "--dry-run", "-o", "yaml")
    assert result.code == 0
    assert "kind: Workload" in result.out
    assert fake.workloads == {}
    assert cli("apply", "-f", "-", stdin=result.out).code == 0


def test_run_dry_run_shows_the_plan(cli, fake):
    result = cli("run", "web", "web:1.4", "--dry-run")
    assert "workload/web would be created (dry run)" in result.out
    assert "create web/0 on n1  (bin-pack)" in result.out
    assert "score: total 1.50" in result.out
    assert fake.workloads == {}


def test_get_tables(cli, web):
    assert cli("get").out.splitlines()[0].split() == ["NAME", "READY", "STATE", "REVISION", "IMAGE", "AGE"]
    assert cli("get").out.splitlines()[1].split()[:5] == ["web", "2/2", "Available", "1", "web:1.4"]
    assert "LABELS" in cli("get", "-o", "wide").out
    assert "app=web" in cli("get", "-o", "wide").out
    assert cli("get", "--no-headers").out.split()[0] == "web"
    assert cli("get", "-A").out.split()[0] == "NAMESPACE"
    assert [line.split()[0] for line in cli("get", "replicas").out.splitlines()] == ["NAME", "web/0", "web/1"]
    assert cli("get", "web/1").out.splitlines()[1].split()[:3] == ["web/1", "yes", "Running"]
    assert cli("get", "r", "web", "-o", "wide").out.splitlines()[1].split()[7] == "10.0.0.2"
    assert cli("get", "nodes").out == cli("nodes").out
    assert cli("nodes", "n1").out.splitlines()[1].split()[:5] == ["n1", "Ready", "3", "0.25/2", "64Mi/4Gi"]
    assert cli("get", "revisions", "web").out.splitlines()[1].split()[:2] == ["1", "web:1.4"]


def test_get_nothing(cli):
    result = cli("get")
    assert (result.code, result.out, result.err) == (0, "", "no workloads in namespace default\n")
    assert cli("get", "-o", "json").out == '{\n  "items": []\n}\n'


def test_get_by_selector_and_by_id(cli, web, fake):
    assert cli("get", "-l", "app=web", "-o", "name").out == "workload/web\n"
    assert cli("get", "-l", "app!=web", "-o", "name").out == ""
    identity = fake.workloads["default", "web"].id
    assert cli("get", identity[:7], "-o", "name").out == "workload/web\n"
    assert cli("get", "replica", "web1aaa", "-o", "name").out == "replica/web/1\n"
    assert cli("get", "workload/web", "-o", "name").out == "workload/web\n"


def test_get_as_values(cli, web):
    whole = json.loads(cli("get", "web", "-o", "json").out)
    assert (whole["kind"], whole["name"], whole["spec"]["image"]) == ("Workload", "web", "web:1.4")
    assert whole["status"]["available_replicas"] == 2
    assert whole["created_at"] == "2026-01-02T03:04:05Z"
    assert whole["status"]["replicas"][0]["phase"] == "RUNNING"
    assert [item["name"] for item in json.loads(cli("get", "-o", "json").out)["items"]] == ["web"]
    assert cli("get", "web", "-o", "jsonpath={.spec.image}").out == "web:1.4\n"
    assert cli("get", "-o", "jsonpath=.items[*].name").out == "web\n"
    columns = cli("get", "-o", "custom-columns=N:.name,NODES:.status.replicas[*].node,NO:.nope").out
    assert [line.split() for line in columns.splitlines()] == [["N", "NODES", "NO"], ["web", "n1", "n1", "-"]]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_out_is_in(cli, web, fake, form):
    before = fake.workloads["default", "web"]
    result = cli("apply", "-f", "-", stdin=cli("get", "web", "-o", form).out)
    assert (result.code, result.out.splitlines()[0]) == (0, "workload/web unchanged")
    assert fake.workloads["default", "web"] == before
    assert cli("diff", "-f", "-", stdin=cli("get", "-o", form).out) == (0, "", "")


def test_apply_creates_updates_and_leaves_alone(cli, tmp_path, fake):
    (tmp_path / "web.yaml").write_text(MANIFEST)
    assert cli("apply", "-f", "web.yaml").out.splitlines()[0] == "workload/web created"
    assert cli("apply", "-f", "web.yaml").out.splitlines()[0] == "workload/web unchanged"
    (tmp_path / "web.yaml").write_text(MANIFEST.replace("1.4", "1.5"))
    assert cli("apply", "-f", ".", "-m", "newer").out.splitlines()[0] == "workload/web updated"
    assert fake.asked("update")[-1].message == "newer"
    assert cli("apply", "-f", "web.yaml", "-o", "name", "-q").out == "workload/web\n"


def test_apply_reads_everything_before_it_changes_anything(cli, tmp_path, fake):
    (tmp_path / "a.yaml").write_text(MANIFEST)
    (tmp_path / "b.yaml").write_text(MANIFEST.replace("name: web", "name: other") + "replcias: 1\n")
    result = cli("apply", "-f", ".")
    assert result.code == 1
    assert "./b.yaml:8:1: replcias: is not a known field (did you mean 'replicas'?)" in result.err
    assert fake.requests == []


def test_create_fails_when_it_exists(cli, tmp_path):
    (tmp_path / "web.yaml").write_text(MANIFEST)
    assert cli("create", "-f", "web.yaml").code == 0
    assert cli("create", "-f", "web.yaml").code == 6


def test_diff(cli, tmp_path, web):
    (tmp_path / "web.yaml").write_text(MANIFEST.replace("1.4", "1.5") + "rollout: {max_surge: 1}\n")
    result = cli("diff", "-f", "web.yaml")
    assert result.code == 1
    assert result.out.splitlines() == [
        "workload/web",
        "~ image: web:1.4 -> web:1.5",
        "~ rollout.max_surge: 25% (default) -> 1",
        '+ ports: [{"container_port": 80, "publish": 8088}]',
        "  stop web/0",
    ]
    (tmp_path / "new.yaml").write_text(MANIFEST.replace("name: web", "name: new"))
    result = cli("diff", "-f", "new.yaml", "--no-plan")
    assert (result.code, result.out.splitlines()[0]) == (1, "workload/new (new)")
    assert cli("diff", "-f", "missing.yaml").code == 2


def test_update(cli, web, fake):
    result = cli(
        "update", "web", "--image", "web:2", "--set", "rollout.max_surge=2", "-e", "A=1", "-m", "why"
    )
    assert result.out.splitlines() == ["workload/web updated", "workload/web 2/2 available, revision 2"]
    spec = fake.workloads["default", "web"].spec
    assert (spec.image, spec.rollout.max_surge, spec.env) == ("web:2", "2", {"A": "1"})
    assert sorted(fake.asked("update")[-1].update_mask.paths) == ["spec.env", "spec.image", "spec.rollout"]
    assert cli("update", "web", "-e", "A-").code == 0
    assert fake.workloads["default", "web"].spec.env == {}
    assert cli("update", "web", "--set", "image=").code == 1
    assert cli("update", "web").code == 2


def test_scale(cli, web, fake):
    result = cli("scale", "web", "3")
    assert result.out == "workload/web scaled to 3\nworkload/web 3/3 available, revision 2\n"
    assert cli("scale", "web", "--replicas", "0", "--no-wait").out == "workload/web scaled to 0\n"
    assert fake.workloads["default", "web"].spec.replicas == 0
    assert cli("scale", "web").code == 2
    assert cli("scale", "web", "1", "--replicas", "2").code == 2
    assert cli("scale", "web/0", "1").code == 2


def test_delete(cli, web, fake, tmp_path):
    assert cli("delete", "web", "--dry-run").out == "workload/web would be deleted (dry run)\n"
    assert cli("delete", "web", "--grace", "0s", "--wait").out == "workload/web deleted\n"
    assert fake.asked("delete")[-1].grace_period.total_seconds() == 0
    assert cli("delete", "web").code == 5
    assert cli("delete", "web", "--ignore-missing").code == 0
    (tmp_path / "web.yaml").write_text(MANIFEST)
    cli("apply", "-f", "web.yaml")
    assert cli("delete", "-f", "web.yaml").out == "workload/web is being deleted\n"
    assert cli("delete").code == 2


def test_describe_a_workload_explains_itself(cli, web, fake, served):
    workload = fake.workloads["default", "web"]
    ended = api.ExitStatus(
        code=1, reason="exit code 1", log_tail="starting\nno \x1b[31mdatabase", finished_at=NOW
    )
    status = ready_status(workload)
    status.replicas = [
        replica_of(workload, 0, phase=api.ReplicaPhase.BACKING_OFF, ready=False, restarts=3, last_exit=ended),
        replica_of(
            workload,
            1,
            phase=api.ReplicaPhase.PENDING,
            node="",
            ready=False,
            refusals=[api.NodeRefusal("n1", "needs memory 8Gi, 4Gi free")],
        ),
    ]
    served.do(fake.set_status, "web", status)
    served.do(
        fake.happen,
        api.Event(
            id="e",
            at=NOW,
            severity="Warning",
            reason="ReplicaCrashed",
            kind="workload",
            name="web",
            message="web/0",
        ),
    )
    out = cli("describe", "web").out
    for text in (
        "Workload default/web",
        "app=web",
        "MinimumReplicasAvailable",
        "image: web:1.4",
        "BackingOff",
        "Last exit of web/0",
        "| no \\x1b[31mdatabase",
        "Why web/1 has no node",
        "needs memory 8Gi, 4Gi free",
        "ReplicaCrashed",
    ):
        assert text in out
    assert "\x1b" not in out
    assert "Last exit of web/0" in cli("describe", "replica", "web/0").out
    assert "state     BackingOff, not ready" in cli("describe", "web/0").out
    assert "0.25 of 2" in cli("describe", "node", "n1").out
    assert cli("describe").code == 2
    assert cli("describe", "events").code == 2


def test_describe_does_not_show_passwords(cli, fake):
    cli("apply", "-f", "-", stdin=MANIFEST + "pull_secrets: [{server: h, username: u, password: secret!}]\n")
    out = cli("describe", "web").out
    assert "(not shown)" in out
    assert "secret!" not in out


def test_logs(cli, web, fake, served):
    for ordinal, text in ((0, b"one"), (1, b"\xffraw\x1b[2J"), (0, b"two")):
        entry = api.LogEntry(at=NOW, line=text, replica=f"web/{ordinal}", container_id=f"c{ordinal}")
        served.do(fake.log, entry)
    served.do(fake.log, api.LogEntry(at=NOW, replica="web/0", container_id="c0", gap_bytes=7))
    assert cli("logs", "web", "--prefix", "never").out.splitlines()[0] == "one"
    out = cli("logs", "web", "-t").out
    assert out.splitlines()[0] == "web/0 | 2026-01-02T03:04:05Z one"
    assert "web/0 | 2026-01-02T03:04:05Z [7 bytes were rotated away]" in out
    cli("logs", "web/1", "--tail", "3", "--since", "5m")
    request = fake.asked("logs")[-1]
    assert (request.replica, request.tail_lines, request.follow) == ("1", 3, False)
    assert request.since is not None
    assert cli("logs", "web", "--tail", "many").code == 2
    assert cli("logs", "wbe").code == 5


def test_logs_join_the_pieces_of_long_lines(cli, web, fake, served):
    for text, partial in ((b"begin ", True), (b"middle ", True), (b"end", False), (b"next", False)):
        served.do(
            fake.log, api.LogEntry(at=NOW, line=text, replica="web/0", container_id="c", partial=partial)
        )
    assert cli("logs", "web", "--prefix", "never").out == "begin middle end\nnext\n"


def test_exec(cli, web, fake, served):
    answer = api.ExecCommandResponse(exit_code=3, stdout=b"out\n", stderr=b"err\n", replica="web/0")
    served.do(setattr, fake, "exec_answer", answer)
    assert cli("exec", "web", "--", "sh", "-c", "exit 3") == (3, "out\n", "err\n")
    assert fake.asked("exec")[-1].command == ["sh", "-c", "exit 3"]
    assert (
        cli("exec", "web/1", "-u", "1000", "-e", "A=1", "--workdir", "/x", "-i", "--", "cat", stdin="hi").code
        == 3
    )
    request = fake.asked("exec")[-1]
    assert (request.replica, request.user, request.env) == ("1", "1000", {"A": "1"})
    assert (request.working_dir, request.stdin) == ("/x", b"hi")


def test_exec_that_goes_wrong_on_our_side_is_125(cli, web, fake, served):
    assert cli("exec", "wbe", "--", "ls").code == 125
    served.do(setattr, fake, "exec_answer", api.ExecCommandResponse(exit_code=137, timed_out=True))
    assert cli("exec", "web", "--", "sleep", "9").code == 125
    result = cli("exec", "-it", "web", "--", "sh")
    assert result.code == 2
    assert "interactive exec (-t) comes with a later version" in result.err


def test_events(cli, fake, served):
    served.do(
        fake.happen,
        api.Event(
            id="e1",
            at=NOW,
            severity="Normal",
            reason="Placed",
            kind="replica",
            name="web",
            node="n1",
            message="x\ny",
        ),
    )
    assert cli("events").out.splitlines()[1].split()[1:] == ["Normal", "Placed", "replica/web", "x\\ny"]
    assert cli("events", "other").out.splitlines() == ["AGE  SEVERITY  REASON  OBJECT  MESSAGE"]
    assert "n1" in cli("get", "events", "-o", "wide").out
    assert json.loads(cli("events", "-o", "json").out)["items"][0]["reason"] == "Placed"


def test_version_and_schema(cli):
    out = cli("version").out
    assert f"client       {__version__}" in out
    assert "store        memory" in out
    assert json.loads(cli("version", "-o", "json").out)["coordinator"]["leader"] is True
    assert cli("version", "--client", "--address", "127.0.0.1:1").code == 0
    assert json.loads(cli("schema").out)["title"] == "Cloudless manifest"


def test_a_manifest_may_pin_its_context(cli, tmp_path, monkeypatch, served):
    monkeypatch.delenv("CLOUDLESS_ADDRESS")
    folder = tmp_path / ".config" / "cloudless"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'[contexts.test]\naddress = "{served.address}"\nnamespace = "shop"\n'
    )
    result = cli("apply", "-f", "-", stdin=MANIFEST + "context: test\n")
    assert result.code == 0
    assert ("shop", "web") in served.fake.workloads
    assert cli("--context", "test", "get", "-o", "name").out == "workload/web\n"
    assert cli("get", "--context", "nope").code == 1
