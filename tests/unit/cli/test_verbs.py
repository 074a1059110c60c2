"""Every verb, as a user types it."""

from __future__ import annotations

import json

import pytest
from fake_coordinator import NOW, copied, ready_status, replica_of
from ruamel.yaml import YAML

from cloudless import __version__, api
from cloudless.domain.errors import Invalid

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
    assert "score:" not in result.out
    for more in (["--explain"], ["-o", "wide"]):
        assert "score: total 1.50" in cli("apply", "-f", "-", "--dry-run", *more, stdin=MANIFEST).out
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


def yaml_documents(text):
    """The documents of a stream."""
    return YAML(typ="safe").load_all(text)


def several(folder, *names):
    """A file with these workloads."""
    texts = [MANIFEST.replace("name: web", f"name: {name}") for name in names]
    (folder / "all.yaml").write_text("---\n".join(texts))


@pytest.mark.parametrize("verb", ["create", "apply"])
@pytest.mark.parametrize("flags", [(), ("--no-wait",), ("-q",)])
def test_several_objects_are_one_document(cli, tmp_path, verb, flags):
    several(tmp_path, "web", "other")
    result = cli(verb, "-f", "all.yaml", "-o", "json", *flags)
    assert result.code == 0
    assert [one["name"] for one in json.loads(result.out)["items"]] == ["web", "other"]
    documents = list(yaml_documents(cli("apply", "-f", "all.yaml", "-o", "yaml").out))
    assert [one["name"] for one in documents] == ["web", "other"]
    table = cli("apply", "-f", "all.yaml", "-o", "table").out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "web", "other"]


def test_several_plans_are_one_document(cli, tmp_path):
    several(tmp_path, "web", "other")
    for verb in ("create", "apply"):
        planned = json.loads(cli(verb, "-f", "all.yaml", "--dry-run", "-o", "json").out)
        assert [(one["name"], one["outcome"]) for one in planned["items"]] == [
            ("web", "created"),
            ("other", "created"),
        ]
    columns = cli("apply", "-f", "all.yaml", "--dry-run", "-o", "custom-columns=NAME:name,WHAT:outcome")
    assert [line.split() for line in columns.out.splitlines()] == [
        ["NAME", "WHAT"],
        ["web", "created"],
        ["other", "created"],
    ]
    documents = list(yaml_documents(cli("apply", "-f", "all.yaml", "--dry-run", "-o", "yaml").out))
    assert [one["name"] for one in documents] == ["web", "other"]


@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--no-wait",)])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "new", "web:1.4"),
        ("apply", "-f", "web.yaml"),
        ("update", "web", "--image", "web:1.5"),
        ("scale", "web", "3"),
        ("rollout", "restart", "web"),
        ("rollout", "pause", "web"),
    ],
)
def test_the_json_of_every_change_is_one_document(cli, tmp_path, fake, served, words, flags):
    (tmp_path / "web.yaml").write_text(MANIFEST)
    assert cli("apply", "-f", "web.yaml").code == 0

    def move_the_tag():
        for replica in fake.workloads["default", "web"].status.replicas:
            replica.image_digest, replica.tag_digest = "sha256:" + "a" * 64, "sha256:" + "b" * 64

    served.do(move_the_tag)
    result = cli(*words, *flags, "-o", "json", "-q")
    assert result.code == 0, result
    assert json.loads(result.out)["name"] in ("web", "new")


def test_an_unknown_format_changes_nothing(cli, tmp_path, fake):
    (tmp_path / "web.yaml").write_text(MANIFEST)
    assert cli("apply", "-f", "web.yaml", "-o", "jsno").code == 2
    assert cli("image", "pull", "web:1", "-o", "jsno").code == 2
    assert fake.requests == []


def test_of_several_each_is_told_of_though_one_fails(cli, tmp_path, fake, served):
    (tmp_path / "a.yaml").write_text(MANIFEST.replace("name: web", "name: other"))
    (tmp_path / "b.yaml").write_text(MANIFEST)
    assert cli("create", "-f", ".").out.splitlines()[:2] == ["workload/other created", "workload/web created"]
    status = copied(fake.workloads["default", "other"]).status
    status.rollout = api.RolloutStatus(api.RolloutStatusPhase.FAILED, 1)
    served.do(fake.set_status, "other", status)
    result = cli("apply", "-f", ".")
    assert result.code == 3
    assert result.out.splitlines()[:2] == ["workload/other unchanged", "workload/web unchanged"]
    assert result.out.splitlines()[2].startswith("workload/web 2/2 available")
    assert "error: other: revision 1 failed" in result.err


def test_what_was_changed_before_a_refusal_is_told(cli, tmp_path, fake, served):
    (tmp_path / "a.yaml").write_text(MANIFEST)
    (tmp_path / "b.yaml").write_text(MANIFEST.replace("name: web", "name: other"))
    assert cli("apply", "-f", "a.yaml").code == 0
    (tmp_path / "a.yaml").write_text(MANIFEST.replace("1.4", "1.5"))
    served.do(fake.failures.__setitem__, "create", [Invalid.field("spec", "is refused")])
    result = cli("apply", "-f", ".")
    assert (result.code, result.out) == (1, "workload/web updated\n")
    assert "error: spec: is refused" in result.err


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
