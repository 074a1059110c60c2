"""The live view of a rollout on a (pseudo) terminal of 80 columns, and in a locale without UTF-8."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import sys

import pytest

from cloudless import api
from cloudless.cli.output.rollouts import bar, bars, revision_counts
from cloudless.cli.terminal import Terminal


def _loaded(name: str):
    if name not in sys.modules:
        path = pathlib.Path(__file__).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


states, screens = _loaded("rollout_states"), _loaded("test_terminal")
Screen, final = screens.Screen, screens.final
PLAIN = Terminal(io.StringIO(), {})


@pytest.fixture
def slow(cli, served, fake):
    """A workload with three replicas and a published port, whose status is left to the test."""
    assert cli("run", "web", "web:1.4", "--replicas", "3", "-p", "8088:80").code == 0
    served.do(setattr, fake, "auto", False)
    served.do(states.before, fake)
    return served


def test_the_view_is_repainted_and_leaves_one_line(slow, fake):
    slow.do(states.begun, fake)
    screen = Screen(slow, "rollout", "watch", "web", NO_COLOR="1")
    screen.until("fails in 2h")
    first = final(screen.text)
    assert first[0].startswith("web  revision 3 -> 4, rolling update  ")
    assert first[1:] == [
        "  waiting for replicas: 0/3 of revision 4 available, 3 old to go",
        "  revision 4  ▒▒▒▒▒▒░░░░░░░░░░░░░░  0/3 available, 1 coming    0 % of traffic",
        "  revision 3  ████████████████████  3 left                   100 % of traffic",
        "  web/0  revision 3  ready on n1",
        "  web/1  revision 3  ready on n1",
        "  web/2  revision 3  ready on n1",
        "  web/3  revision 4  starting on n1",
        "  fails in 2h unless it gets further",
    ]
    slow.do(states.halfway, fake)
    screen.until("20 % of traffic")
    slow.do(states.going_back, fake)
    screen.until("waiting for the way back to revision 3")
    assert "  revision 4 failed: new replicas failed 3 times, 2 are tolerated" in final(screen.text)
    slow.do(states.done, fake)
    assert screen.end() == 0
    assert final(screen.text) == ["workload/web 3/3 available, revision 4"]


def test_what_is_deleted_in_mid_rollout_is_told_of_no_rollout(cli, slow, fake):
    slow.do(states.halfway, fake)
    slow.do(setattr, fake, "auto", True)
    result = cli("delete", "web", "--wait")
    assert result.out == "workload/web deleted\n"
    assert "web: waiting for 4 replicas to stop" in result.err
    assert "rolling update" not in result.err
    assert "traffic" not in result.err


def test_a_failure_on_a_terminal_is_folded_not_broken(slow, fake):
    slow.do(states.rolled_back, fake)
    screen = Screen(slow, "rollout", "watch", "web", NO_COLOR="1")
    assert screen.end() == 3
    lines = final(screen.text)
    assert lines[:2] == [
        "error: web: revision 4 failed: new replicas failed 3 times, 2 are tolerated",
        "  (rolled back to revision 3)",
    ]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    "environ", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C", "LANG": "de_DE.UTF-8"}]
)
def test_ascii_where_the_locale_is_not_utf8(slow, fake, environ):
    slow.do(states.rolled_back, fake)
    screen = Screen(slow, "rollout", "status", "web", **environ)
    assert screen.end() == 3
    assert screen.text.isascii()
    assert "#" * 20 in screen.text


def test_colours_only_where_they_are_wanted(slow, fake):
    slow.do(states.halfway, fake)
    assert "\x1b[32m██████\x1b[0m" in painted(slow, "rollout", "status", "web")
    assert "\x1b[" not in painted(slow, "rollout", "status", "web", NO_COLOR="1")


def painted(served, *argv: str, **environ: str) -> str:
    screen = Screen(served, *argv, **environ)
    screen.end()
    return screen.text


def test_a_view_taller_than_the_screen_is_cut_to_it(slow, fake):
    many = dict.fromkeys(range(30), states.READY)
    slow.do(states.shown, fake, {30: states.STARTING}, many)
    screen = Screen(slow, "rollout", "watch", "web", NO_COLOR="1")
    screen.until("and 20 more")
    shown = [line for line in final(screen.text) if line.startswith("  web/")]
    assert len(shown) == 11
    assert shown[-1] == "  web/30  revision 4  starting on n1"
    screen.interrupt()
    assert screen.end() == 130


def test_bars():
    assert bar(PLAIN, 0, 0, 3, 6) == "------"
    assert bar(PLAIN, 1, 2, 3, 6) == "##==--"
    assert bar(PLAIN, 3, 3, 3, 6) == "######"
    assert bar(PLAIN, 2, 3, 3, 6) == "####=="
    # What is there can be seen, however little; what is missing too.
    assert bar(PLAIN, 1, 1, 1000, 6) == "#-----"
    assert bar(PLAIN, 999, 1000, 1000, 6) == "#####="
    assert bar(PLAIN, 0, 0, 0, 6) == "------"


def workload(counts: dict[int, int], **rollout) -> api.Workload:
    replicas = [
        api.ReplicaStatus(id=f"{number}-{at}", revision=number, available=True)
        for number, count in counts.items()
        for at in range(count)
    ]
    status = api.WorkloadStatus(
        desired_replicas=3, revision=4, replicas=replicas, rollout=api.RolloutStatus(revision=4, **rollout)
    )
    return api.Workload(name="web", status=status)


def test_replicas_of_an_older_revision_with_the_same_template_count_as_new():
    undone = workload({2: 3}, from_revision=3, target_revision=4, old_replicas=0)
    assert [(one.number, one.available, one.existing) for one in revision_counts(undone)] == [(4, 3, 3)]
    half = workload({2: 2, 3: 1}, from_revision=3, target_revision=4, old_replicas=1)
    assert [(one.number, one.existing) for one in revision_counts(half)] == [(4, 2), (3, 1)]
    usual = workload({4: 1, 3: 2, 2: 1}, from_revision=3, target_revision=4, old_replicas=3)
    assert [(one.number, one.existing) for one in revision_counts(usual)] == [(4, 1), (3, 2), (2, 1)]


def test_replicas_that_ended_badly_are_not_coming():
    looping = workload({4: 1}, target_revision=4)
    for phase in (api.ReplicaPhase.BACKING_OFF, api.ReplicaPhase.FAILED, api.ReplicaPhase.STARTING):
        looping.status.replicas.append(api.ReplicaStatus(id=phase.name, revision=4, phase=phase))
    assert bars(looping, PLAIN)[0].endswith("1/3 available, 1 coming, 2 failing")


def test_without_published_ports_there_is_no_traffic_to_tell():
    assert not any("traffic" in line for line in bars(workload({4: 3}, target_revision=4), PLAIN))
