"""The rollout verbs as a user types them, and what they say on a pipe."""

from __future__ import annotations

import datetime
import importlib.util
import json
import pathlib
import sys

import pytest
from fake_coordinator import NOW, copied

from cloudless import api
from cloudless.domain.errors import PreconditionFailed

_PATH = pathlib.Path(__file__).with_name("rollout_states.py")
_spec = importlib.util.spec_from_file_location("rollout_states", _PATH)
states = sys.modules["rollout_states"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(states)

Verb = api.RolloutRequestVerb


@pytest.fixture
def web(cli):
    """A workload with three replicas and a published port."""
    assert cli("run", "web", "web:1.4", "--replicas", "3", "-p", "8088:80").code == 0


@pytest.fixture
def slow(web, fake, served):
    """The same, whose status is left to the test."""
    served.do(setattr, fake, "auto", False)
    return served


VERBS = [
    ("pause", {}, "paused", "is paused, 3/3 of revision 1 available"),
    ("resume", {}, "resumed", "3/3 available, revision 1"),
    ("promote", {}, "promoted", "3/3 available, revision 1"),
    ("promote --full", {"full": True}, "promoted", "3/3 available, revision 1"),
    ("abort", {}, "aborted", "3/3 available, back at revision 1"),
    ("undo", {}, "undone", "3/3 available, revision 1"),
    ("undo --to-revision 7 -m why", {"to_revision": 7, "message": "why"}, "undone", "3/3 available"),
    ("restart", {}, "restarted", "3/3 available, revision 1"),
    ("restart --pull -m why", {"pull": True, "message": "why"}, "restarted", "3/3 available, revision 1"),
    ("retry", {}, "retried", "3/3 available, revision 1"),
]


@pytest.mark.parametrize(("line", "fields", "told", "result"), VERBS, ids=[verb[0] for verb in VERBS])
def test_each_verb_asks_for_one_thing_and_waits_for_its_effect(cli, web, fake, line, fields, told, result):
    verb, *options = line.split()
    answer = cli("rollout", verb, "web", *options)
    assert answer.code == 0, answer
    first, last = answer.out.splitlines()
    assert first == f"workload/web {told}"
    assert last.startswith(f"workload/web {result}")
    (asked,) = fake.asked("rollout")
    given = {
        name: value
        for name in ("to_revision", "pull", "full", "message", "dry_run", "resource_version")
        if (value := getattr(asked, name))
    }
    assert (asked.verb, asked.namespace, asked.name, given) == (Verb[verb.upper()], "default", "web", fields)
    assert asked.request_id


@pytest.mark.parametrize(
    ("phase", "target", "said"),
    [
        ("ROLLED_BACK", 1, "revision 2 failed: revision 1 runs"),
        ("ABORTED", 1, "revision 2 was aborted: revision 1 runs"),
        ("FAILED", 2, "revision 2 failed: it is not rolled out"),
    ],
)
def test_a_diff_without_differences_says_that_something_else_runs(
    cli, web, fake, served, phase, target, said
):
    manifest = cli("get", "web", "-o", "yaml").out
    status = fake.workloads["default", "web"].status
    status.rollout = api.RolloutStatus(api.RolloutStatusPhase[phase], 2, target_revision=target)
    served.do(fake.set_status, "web", status)
    result = cli("diff", "-f", "-", stdin=manifest)
    assert (result.code, result.out) == (0, "")
    assert result.err == f"web: the same is asked for already, but {said}\n"


def test_who_pulls_what_a_tag_means_now_is_not_told_to(cli, web, fake, served):
    status = fake.workloads["default", "web"].status
    for replica in status.replicas:
        replica.image_digest, replica.tag_digest = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    served.do(fake.set_status, "web", status)
    hint = "cloudless rollout restart web --pull"
    assert hint in cli("rollout", "restart", "web", "--dry-run").out
    assert hint not in cli("rollout", "restart", "web", "--pull", "--dry-run").out


def test_not_waiting(cli, slow):
    assert cli("rollout", "restart", "web", "--no-wait").out == "workload/web restarted\n"
    result = cli("rollout", "restart", "web", "--wait-timeout", "0.2s")
    assert result.code == 124
    assert "waiting for the coordinator to take up what was asked" in result.err


def test_the_object_that_results(cli, web):
    whole = json.loads(cli("rollout", "pause", "web", "-o", "json", "-q").out)
    assert whole["status"]["rollout"]["phase"] == "PAUSED"


def test_what_is_so_already_is_unchanged(cli, web, fake, served):
    served.do(setattr, fake, "rollout", None)
    before = fake.workloads["default", "web"]

    async def nothing(message):
        return api.RolloutResponse(workload=before)

    served.do(setattr, fake, "rollout", nothing)
    result = cli("rollout", "undo", "web")
    assert result.out == "workload/web unchanged\nworkload/web 3/3 available, revision 1\n"


def test_the_first_revision_has_nothing_to_undo(cli, web, fake, served):
    status = fake.workloads["default", "web"].status
    for number, offered in ((1, False), (2, True)):
        status.rollout = api.RolloutStatus(api.RolloutStatusPhase.FAILED, number)
        served.do(fake.set_status, "web", status)
        shown = cli("rollout", "status", "web")
        assert ("cloudless rollout undo web" in shown.out) is offered
        assert "cloudless rollout retry web" in shown.out


def test_a_verb_that_does_not_fit_says_why(cli, web, fake, served):
    refusal = PreconditionFailed("nothing to promote: revision 1 is rolled out", hint="watch it")
    served.do(fake.failures.__setitem__, "rollout", [refusal])
    result = cli("rollout", "promote", "web")
    assert result.code == 1
    assert result.err.splitlines() == [
        "error: nothing to promote: revision 1 is rolled out",
        "  try: watch it",
        "  code: CL-4120",
    ]
    assert "(did you mean 'web'?)" in cli("rollout", "status", "wbe").err


PLAN = [
    api.PlannedStep(
        "revision", because="revision 2: image web:1.4 -> web:1.5", stage=1, available=3, existing=4
    ),
    api.PlannedStep(
        "create", "web/3", "n2", "revision 2", {"total": 1.5, "cost": 0.5}, stage=1, available=3, existing=4
    ),
    api.PlannedStep("stop", "web/0", "n1", "replaced by revision 2", stage=2, available=6, existing=6),
    api.PlannedStep("wait", because="drain", sentence="wait 5s: drain", stage=2, available=6, existing=6),
    api.PlannedStep(
        "create",
        "web/4",
        refusals=[api.NodeRefusal("n1", "needs memory 256Mi, 120Mi free")],
        stage=3,
        available=2,
        existing=3,
    ),
]


def test_a_dry_run_shows_what_changes_and_the_plan_by_stages(cli, web, fake, served):
    served.do(setattr, fake, "plan", PLAN)
    manifest = cli("get", "web", "-o", "yaml").out.replace("web:1.4", "web:1.5")
    result = cli("apply", "-f", "-", "--dry-run", stdin=manifest)
    assert result.out.splitlines() == [
        "workload/web would be updated (dry run)",
        "~ image: web:1.4 -> web:1.5",
        "  stage 1 of 3  keeps all 3 available, 4 exist",
        "    revision 2: image web:1.4 -> web:1.5",
        "    create web/3 on n2  (revision 2)",
        "  stage 2 of 3  keeps all 3 available, 6 exist",
        "    stop web/0 on n1  (replaced by revision 2)",
        "    wait 5s: drain",
        "  stage 3 of 3  keeps 2 of 3 available, 3 exist",
        "    create web/4, no node",
        "        n1: needs memory 256Mi, 120Mi free",
    ]
    assert fake.workloads["default", "web"].spec.image == "web:1.4"
    explained = cli("diff", "-f", "-", "--explain", stdin=manifest)
    assert explained.code == 1
    assert "        score: total 1.50, cost 0.50\n" in explained.out
    assert explained.out.splitlines()[1] == "~ image: web:1.4 -> web:1.5"
    assert "score: total 1.50" in cli("apply", "-f", "-", "--explain", stdin=manifest).out
    assert fake.workloads["default", "web"].spec.image == "web:1.4"
    whole = json.loads(cli("apply", "-f", "-", "--dry-run", "-o", "json", stdin=manifest).out)
    assert whole["changes"] == [{"path": "image", "old": "web:1.4", "new": "web:1.5"}]
    assert [step["stage"] for step in whole["plan"]] == [1, 1, 2, 2, 3]
    update = cli("update", "web", "--set", "rollout.strategy=BLUE_GREEN", "--dry-run").out
    assert "~ rollout.strategy: ROLLING_UPDATE (default) -> BLUE_GREEN" in update
    assert "stage 1 of 3" in cli("rollout", "undo", "web", "--dry-run").out
    assert fake.asked("rollout")[-1].dry_run


def test_apply_if_version(cli, web, fake, tmp_path):
    manifest = cli("get", "web", "-o", "yaml").out.replace("web:1.4", "web:1.5")
    version = cli("get", "web", "-o", "jsonpath={.resource_version}").out.strip()
    assert version in cli("describe", "web").out
    assert cli("apply", "-f", "-", "--if-version", "1", stdin=manifest).code == 6
    assert cli("apply", "-f", "-", "--if-version", version, stdin=manifest).code == 0
    assert fake.asked("update")[-1].resource_version == version
    assert (
        cli("apply", "-f", "-", "--if-version", version, stdin=manifest.replace("name: web", "name: b")).code
        == 6
    )
    two = manifest + "---\n" + manifest.replace("name: web", "name: other")
    assert cli("apply", "-f", "-", "--if-version", version, stdin=two).code == 2


def test_strategies_in_manifests_go_out_as_they_come_in(cli, fake):
    steps = "[{weight: 20, replicas: 1, pause: {duration: 30s}}, {weight: 50, pause: {}}, {weight: 80}]"
    text = f"kind: Workload\nname: can\nimage: x:1\nrollout: {{strategy: canary, steps: {steps}}}\n"
    assert cli("apply", "-f", "-", stdin=text).code == 0
    rollout = fake.workloads["default", "can"].spec.rollout
    assert rollout.strategy is api.RolloutStrategyStrategy.CANARY
    assert [(step.weight, step.replicas, step.pause is not None) for step in rollout.steps] == [
        (20, "1", True),
        (50, "", True),
        (80, "", False),
    ]
    assert rollout.steps[0].pause.duration == datetime.timedelta(seconds=30)
    assert rollout.steps[1].pause.duration is None
    for form in ("yaml", "json"):
        assert cli("diff", "-f", "-", stdin=cli("get", "can", "-o", form).out) == (0, "", "")
    assert json.loads(cli("get", "can", "-o", "json").out)["spec"]["rollout"]["steps"][1]["pause"] == {}


def test_status_of_a_rollout_on_its_way(cli, slow, fake):
    slow.do(states.halfway, fake)
    result = cli("rollout", "status", "web")
    assert result.code == 0
    begun, *lines = result.out.splitlines()
    assert begun == "workload/web  revision 3 -> 4, rolling update"
    assert lines[0].startswith("  phase     Progressing, begun ")
    assert lines[1:4] == [
        "  because   waiting for web/0 to stop",
        "  time      fails in 2h unless it gets further",
        "  failures  1 bad end of new replicas, 2 are tolerated",
    ]
    assert lines[4].split("  ")[1] == "revision 4"
    assert lines[4].endswith("  1/3 available   20 % of traffic")
    assert lines[5].endswith("  3 left          80 % of traffic")
    assert lines[6:] == [
        "    1 new (1 available)",
        "      web/0: stopping",
        "try: cloudless rollout watch web",
    ]
    assert "STOPPING" not in result.out
    assert "Stopping" in cli("rollout", "status", "web", "-o", "wide").out


def test_status_after_a_failure_is_3_and_explains_it(cli, slow, fake):
    slow.do(states.rolled_back, fake)
    result = cli("rollout", "status", "web")
    assert result.code == 3
    lines = result.out.splitlines()
    assert lines[0] == "workload/web  revision 4 -> 3 (back), rolling update"
    assert lines[3:] == [
        "Failure",
        "  new replicas failed 3 times, 2 are tolerated",
        "  result   rolled back to revision 3",
        "  replica  web/3 on n2: exit code 1",
        "  detail   readiness: HTTP 503",
        "  changed  image: web:1.4 -> web:1.5",
        "           env.DB: (none) -> db.internal",
        "  last lines of web/3:",
        "    | starting",
        "    | no \\x1b[31mdatabase",
        "try: cloudless rollout retry web",
        "     cloudless rollout history web --revision 4",
    ]
    whole = json.loads(cli("rollout", "status", "web", "-o", "json").out)
    assert (whole["kind"], whole["rollout"]["phase"], whole["rollout"]["failure"]["replica"]) == (
        "Rollout",
        "ROLLED_BACK",
        "web/3",
    )
    assert "phase: ROLLED_BACK" in cli("rollout", "status", "web", "-o", "yaml").out
    assert cli("rollout", "status", "web", "-o", "jsonpath={.rollout.target_revision}").out == "3\n"
    described = cli("describe", "web").out
    assert "Why revision 4 failed\n  new replicas failed 3 times, 2 are tolerated\n" in described
    assert "rolled back to revision 3" in described
    assert cli("get", "web").out.splitlines()[1].split()[2] == "RolledBack"


def test_status_before_anything_is_taken_up(cli, slow, fake):
    workload = fake.workloads["default", "web"]
    workload.status = None
    result = cli("rollout", "status", "web")
    assert (result.code, result.out) == (0, "workload/web: the coordinator has not taken it up yet\n")


def test_scaling_what_was_rolled_back_is_done_when_it_runs(cli, slow, fake):
    slow.do(states.rolled_back, fake)

    def observed():
        states.rolled_back(fake)

    slow.later(0.3, observed)
    result = cli("scale", "web", "3")
    assert (result.code, result.out.splitlines()[-1]) == (
        0,
        "workload/web 3/3 available, back at revision 3",
    )


FAILED = [
    "error: web: revision 4 failed: new replicas failed 3 times, 2 are tolerated (rolled back to revision 3)",
    "  replica  web/3 on n2: exit code 1",
    "  detail   readiness: HTTP 503",
    "  changed  image: web:1.4 -> web:1.5",
    "           env.DB: (none) -> db.internal",
    "  last lines of web/3:",
    "    | starting",
    "    | no \\x1b[31mdatabase",
    "  try: cloudless rollout history web --revision 4",
    "       cloudless rollout retry web, or apply what is mended",
    "  code: CL-6001",
]


def test_an_update_that_fails_is_told_line_by_line_and_explained(cli, slow, fake):
    slow.do(states.before, fake)
    for delay_s, state in ((0.3, states.begun), (0.5, states.halfway), (0.6, states.halfway)):
        slow.later(delay_s, state, fake)
    slow.later(0.8, states.going_back, fake)
    slow.later(1.0, states.rolled_back, fake)
    result = cli("update", "web", "--image", "web:1.5")
    assert (result.code, result.out) == (3, "workload/web updated\n")
    lines = result.err.splitlines()
    assert lines[-len(FAILED) :] == FAILED
    told = lines[: -len(FAILED)]
    assert len(set(told)) == len(told)
    for line in (
        "web: revision 3 -> 4, rolling update",
        "web/3: starting on n1 (revision 4)",
        "web: waiting for replicas: 0/3 of revision 4 available, 3 old to go",
        "web: traffic 80 % revision 3, 20 % revision 4",
        "web/0: stopping on n1 (revision 3)",
        "web: revision 4 failed: new replicas failed 3 times, 2 are tolerated",
        "web: revision 4 -> 3 (back), rolling update",
        "web: waiting for the way back to revision 3 (2/3 available)",
    ):
        assert line in told
    assert "\x1b" not in result.err


def test_a_change_that_a_newer_one_has_overtaken_says_so(cli, slow, fake):
    def newer():
        workload = copied(fake.workloads["default", "web"])
        workload.generation += 1
        fake.put(workload)
        states.done(fake)

    slow.later(0.3, newer)
    result = cli("rollout", "restart", "web")
    assert result.code == 0
    assert (
        result.err.splitlines()[-1]
        == "web: changed by somebody else meanwhile; what replicas are made from is the same"
    )


def other_image(fake):
    workload = copied(fake.workloads["default", "web"])
    workload.generation += 1
    workload.spec.image = "web:9"
    fake.put(workload)
    states.halfway(fake)


def test_a_change_that_another_one_has_taken_the_place_of_is_6(cli, slow, fake):
    slow.later(0.3, other_image, fake)
    result = cli("update", "web", "--image", "web:1.5")
    assert result.code == 6
    assert result.out.splitlines()[-1] == "workload/web superseded by revision 4"
    assert "error: web: superseded by revision 4, which asks for something else\n" in result.err
    assert "code: CL-6006" in result.err


def test_in_json_too(cli, slow, fake):
    slow.later(0.3, other_image, fake)
    result = cli("update", "web", "--image", "web:1.5", "-o", "json")
    assert result.code == 6
    told = json.loads(result.out)
    assert told["superseded_by"] == 4
    assert told["spec"]["image"] == "web:9"


def test_a_deletion_meanwhile_is_5(cli, slow, fake):
    def deleted():
        workload = copied(fake.workloads["default", "web"])
        workload.deleted_at = states.NOW
        fake.put(workload)

    slow.later(0.3, deleted)
    result = cli("update", "web", "--image", "web:1.5")
    assert result.code == 5
    assert "error: workload web was deleted meanwhile\n" in result.err
    assert "code: CL-6005" in result.err


def test_an_update_that_cannot_be_placed_says_that_it_goes_on(cli, slow, fake, monkeypatch):
    monkeypatch.setattr("cloudless.sdk.verdict.PLACEMENT_PATIENCE_S", 0.05)
    pending = {
        "phase": states.ReplicaPhase.PENDING,
        "ready": False,
        "available": False,
        "node": "",
        "refusals": [api.NodeRefusal("n1", "needs memory 8Gi, 4Gi free")],
    }
    slow.do(states.shown, fake, {3: pending}, {0: states.READY, 1: states.READY, 2: states.READY})
    result = cli("rollout", "watch", "web")
    assert result.code == 4
    assert "  n1: needs memory 8Gi, 4Gi free\n" in result.err
    assert (
        "  the rollout goes on: unless there is room before, it fails by its progress_deadline" in result.err
    )
    assert "and goes back to the last healthy revision\n" in result.err
    assert (
        "       cloudless rollout watch web\n       cloudless rollout abort web ends it now\n" in result.err
    )


def test_watch_on_a_pipe_ends_with_the_rollout(cli, slow, fake):
    slow.do(states.begun, fake)
    slow.later(0.3, states.halfway, fake)
    slow.later(0.5, states.done, fake)
    result = cli("rollout", "watch", "web")
    assert result.code == 0
    assert result.out.splitlines()[0] == "web: revision 3 -> 4, rolling update"
    assert result.out.splitlines()[-1] == "workload/web 3/3 available, revision 4"
    slow.do(states.rolled_back, fake)
    result = cli("rollout", "watch", "web")
    assert result.code == 3
    assert result.err.splitlines() == FAILED


def test_watch_as_json_is_one_object_per_change(cli, slow, fake):
    slow.do(states.begun, fake)
    slow.later(0.3, states.halfway, fake)
    slow.later(0.5, states.done, fake)
    result = cli("rollout", "watch", "web", "-o", "json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "MODIFIED"]
    assert [event["object"]["rollout"]["phase"] for event in events] == [
        *("PROGRESSING", "PROGRESSING", "COMPLETED"),
    ]
    assert events[1]["object"]["rollout"]["traffic"][1] == {"revision": 4, "percent": 20}


def revision(number, phase, **fields):
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=10 - number)
    return api.Revision(
        number, api.WorkloadSpec(image=f"web:{number}"), created_at=at, phase=states.Phase[phase], **fields
    )


@pytest.fixture
def past(slow, fake):
    """Two revisions, the newer one rolled back, and its journal."""
    slow.do(states.rolled_back, fake)
    newest = revision(
        4,
        "ROLLED_BACK",
        author="alice",
        message="the \x1b[31mnew page",
        changes=["image: web:3 -> web:4", "env.DB: (none) -> db"],
        image_digest="sha256:44",
    )
    newest.created_at, newest.ended_at = NOW, NOW + datetime.timedelta(seconds=12.4)
    fake.revisions["web"] = [newest, revision(3, "COMPLETED", author="bob"), revision(2, "COMPLETED")]
    journal = [
        (0, "begin", "3 old (3 available)", "revision 4, ROLLING_UPDATE", "from revision 3"),
        (1.4, "surge", "3 old (3 available)", "create web/3 of revision 4", "4 may exist"),
        (12.4, "end", "3 old (3 available)", "rolled back", "revision 3 is in its place"),
    ]
    entries = [
        api.JournalEntry(
            number,
            NOW + datetime.timedelta(seconds=at_s),
            verb,
            seen,
            decided,
            because,
            states.Phase.ROLLED_BACK,
        )
        for number, (at_s, verb, seen, decided, because) in enumerate(journal, 1)
    ]
    fake.rollouts["web", 4] = api.GetRolloutResponse(revision=newest, journal=entries)


def test_history(cli, past):
    lines = cli("rollout", "history", "web").out.splitlines()
    assert lines[0].split() == ["REVISION", "PHASE", "WHEN", "BY", "CHANGE", "MESSAGE"]
    assert lines[1].split()[:2] == ["4", "RolledBack"]
    assert lines[1].endswith("alice  image: web:3 -> web:4; env.DB: (none) -> db  the \\x1b[31mnew page")
    assert lines[2].split() == ["3", "*", "Completed", "7h", "bob", "restart", "-"]
    assert lines[3].split() == ["2", "Completed", "8h", "-", "-", "-"]
    assert len(cli("rollout", "history", "web", "--no-headers").out.splitlines()) == 3
    items = json.loads(cli("rollout", "history", "web", "-o", "json").out)["items"]
    assert [(item["number"], item["phase"]) for item in items] == [
        (4, "ROLLED_BACK"),
        (3, "COMPLETED"),
        (2, "COMPLETED"),
    ]
    wide = cli("rollout", "history", "web", "-o", "wide").out.splitlines()
    assert wide[0].split()[-2:] == ["IMAGE", "DIGEST"]
    assert [line.split()[-2:] for line in wide[1:]] == [
        ["web:4", "sha256:44"],
        ["web:3", "-"],
        ["web:2", "-"],
    ]
    assert cli("rollout", "history", "web", "-o", "name").out == "revision/4\nrevision/3\nrevision/2\n"


def test_describe_says_who_made_the_revision(cli, past):
    out = cli("describe", "web").out
    assert "  made by   alice\n" in out
    assert "  message   the \\x1b[31mnew page\n" in out


def test_the_author_comes_from_the_environment(cli, web, fake, monkeypatch):
    monkeypatch.setenv("CLOUDLESS_AUTHOR", "ci/deploy #512")
    assert cli("rollout", "restart", "web").code == 0
    assert fake.asked("rollout")[-1].author == "ci/deploy #512"


def test_the_journal_of_a_revision_is_a_timeline(cli, past):
    assert cli("rollout", "history", "web", "--revision", "4").out.splitlines() == [
        "workload/web  revision 4  RolledBack after 12.4 s",
        "  made     2026-01-02T03:04:05Z by alice",
        "  because  the \\x1b[31mnew page",
        "  image    web:4 sha256:44",
        "  changed  image: web:3 -> web:4",
        "  changed  env.DB: (none) -> db",
        "",
        "TIME         OFFSET  VERB      WHAT",
        "03:04:05      +0.0s  begin     3 old (3 available) -> revision 4, ROLLING_UPDATE (from revision 3)",
        "03:04:06      +1.4s  surge     3 old (3 available) -> create web/3 of revision 4 (4 may exist)",
        "03:04:17     +12.4s  end       3 old (3 available) -> rolled back (revision 3 is in its place)",
    ]
    whole = json.loads(cli("rollout", "history", "web", "--revision", "4", "-o", "json").out)
    assert [entry["verb"] for entry in whole["journal"]] == ["begin", "surge", "end"]
    assert cli("rollout", "history", "web", "--revision", "9").code == 5
