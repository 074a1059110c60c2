"""The life of one replica on a machine in memory, in virtual time."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.agent.virtual import virtual
from tests.unit.agent.world import IMAGE, World, assignment

from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.agent.runtime.execport import ExecResult
from cloudless.agent.runtime.memorymachine import Program
from cloudless.domain.replica import ReplicaPhase
from cloudless.domain.workload import PullSecret

P = ReplicaPhase


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@virtual
async def test_assigned_running_stopped_gone(world: World) -> None:
    await world.start(assignment())
    seen = await world.until_running()
    assert (seen.ready, seen.restarts, seen.container_id, seen.message) == (True, 0, "cl-r1-1", "")
    assert seen.address == next(iter(world.host.attachments.values())).address
    wish = world.container().wish
    assert wish.argv == ("serve",)
    assert {mount.destination for mount in wish.mounts} == {"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"}
    assert "HOSTNAME=web-0" in wish.env
    assert wish.log_uri.startswith("binary://")
    await world.tell(assignment(run=False))
    await world.until_gone()
    assert world.agent.reports.removed == {"r1": None}
    world.assert_clean()
    await world.kill()


@virtual
async def test_a_crash_is_restarted_with_growing_delays_on_the_same_network(world: World) -> None:
    await world.start(assignment())
    seen = await world.until_running()
    address, at = seen.address, world.clock.monotonic()
    for restart, delay_s in enumerate((10.0, 20.0, 40.0), 1):
        world.machine.end(f"cl-r1-{restart}", 3)
        waits = await world.until_phase(P.BACKING_OFF)
        assert waits.message == f"ended with exit code 3; restart {restart} after {delay_s:g} s"
        assert waits.last_exit is not None
        assert (waits.last_exit.code, waits.last_exit.reason, waits.ready) == (3, "Error", False)
        seen = await world.until_running(restarts=restart)
        assert world.clock.monotonic() - at == pytest.approx(delay_s, abs=0.1)
        at = world.clock.monotonic()
        assert (seen.address, seen.container_id) == (address, f"cl-r1-{restart + 1}")
    await world.until_swept(1)
    await world.kill()


@virtual
async def test_a_base_of_zero_restarts_at_once_and_the_old_container_goes_afterwards(world: World) -> None:
    steps: list[str] = []

    async def reached(step: str) -> None:
        steps.append(step)

    await world.start(assignment(restart_policy={"backoff": {"base": "0s"}}))
    await world.until_running()
    world.machine.reached = reached
    at = world.clock.monotonic()
    world.machine.end("cl-r1-1", 137)
    seen = await world.until_running(restarts=1)
    assert world.clock.monotonic() == at
    assert seen.last_exit is not None
    assert seen.last_exit.signal == signal.SIGKILL
    assert "delete" not in steps[: steps.index("start:running")]
    await world.until_swept(1)
    await world.kill()


@pytest.mark.parametrize(("code", "phase"), [(0, P.SUCCEEDED), (7, P.FAILED)])
def test_never_means_once(world: World, code: int, phase: ReplicaPhase) -> None:
    @virtual
    async def run() -> None:
        world.machine.programs["serve"] = Program(ends_after_s=5.0, exit_code=code)
        await world.start(assignment(restart_policy={"policy": "NEVER"}))
        seen = await world.until_phase(phase)
        assert seen.last_exit is not None
        assert seen.last_exit.code == code
        await world.until_swept(0)
        await world.kill()
        await world.start(assignment(restart_policy={"policy": "NEVER"}))
        again = await world.until_phase(phase)
        assert (again.message, again.last_exit) == (seen.message, seen.last_exit)
        assert world.machine.containers == {}
        await world.tell(assignment(run=False, restart_policy={"policy": "NEVER"}))
        await world.until_gone()
        world.assert_clean()
        await world.kill()

    run()


@virtual
async def test_max_retries_end_it(world: World) -> None:
    world.machine.programs["serve"] = Program(ends_after_s=1.0, exit_code=1)
    policy = {"policy": "ON_FAILURE", "max_retries": 2, "backoff": {"base": "1s"}}
    await world.start(assignment(restart_policy=policy))
    seen = await world.until_phase(P.FAILED)
    assert seen.restarts == 2
    assert "max_retries (2) is reached" in seen.message
    await world.kill()


@virtual
async def test_a_command_that_cannot_be_executed_counts_as_an_exit(world: World) -> None:
    world.machine.programs["serve"] = Program(cannot_execute=127)
    await world.start(assignment(restart_policy={"policy": "NEVER"}))
    seen = await world.until_phase(P.FAILED)
    assert seen.last_exit is not None
    assert (seen.last_exit.code, seen.last_exit.reason) == (127, "CannotExecute")
    assert "not found" in seen.message
    await world.until_swept(0)
    await world.kill()


@virtual
async def test_a_missing_image_is_retried_until_it_is_there(world: World) -> None:
    image = world.machine.registry.pop(IMAGE)
    await world.start(assignment(restart_policy={"policy": "NEVER"}))
    seen = await world.until_phase(P.BACKING_OFF)
    assert seen.message.startswith("ImageNotFound: pull")
    assert seen.message.endswith("next try after 1 s")
    await world.until(lambda seen: seen is not None and seen.message.endswith("next try after 4 s"))
    assert world.reasons().count("ImageNotFound") == 1
    world.machine.registry[IMAGE] = image
    seen = await world.until_running()
    assert (seen.restarts, seen.last_exit) == (0, None)
    assert world.clock.monotonic() == pytest.approx(7.0, abs=0.2)
    await world.kill()


@virtual
async def test_a_registry_that_is_down_or_refuses_is_said_so(world: World) -> None:
    world.machine.registry_away = True
    await world.start(assignment())
    assert (await world.until_phase(P.BACKING_OFF)).message.startswith("RegistryUnavailable: ")
    world.machine.registry_away = False
    world.machine.registry[IMAGE].secret = PullSecret(server="docker.io", username="u", password="p")
    seen = await world.until(lambda one: one is not None and one.message.startswith("ImagePullDenied: "))
    assert seen is not None
    await world.kill()


@virtual
async def test_pull_secrets_are_chosen_by_registry(world: World) -> None:
    secret = {"server": "https://index.docker.io/v1/", "username": "u", "password": "p"}
    world.machine.registry[IMAGE].secret = PullSecret.model_validate(secret)
    other = {"server": "example.com", "username": "x", "password": "y"}
    await world.start(assignment(pull_secrets=[other, secret]))
    await world.until_running()
    await world.kill()


@virtual
async def test_replicas_of_one_image_share_one_pull_and_a_stop_ends_it(world: World) -> None:
    world.machine.registry[IMAGE].pull_s = 60.0
    replicas = [assignment(f"r{number}", ordinal=number) for number in range(5)]
    await world.start(*replicas)
    await world.tell(assignment("r0", run=False))
    await world.until_gone("r0")
    assert world.clock.monotonic() < 1.0
    for number in range(1, 5):
        await world.until_running(f"r{number}")
    assert world.machine.pulls == 1
    await world.kill()


@virtual
async def test_a_restart_asks_for_no_newer_image(world: World) -> None:
    await world.start(assignment(image_pull_policy="ALWAYS", restart_policy={"backoff": {"base": "0s"}}))
    first = await world.until_running()
    world.machine.registry_away = True
    world.machine.end("cl-r1-1", 1)
    seen = await world.until_running(restarts=1)
    assert seen.image_digest == first.image_digest
    assert world.machine.pulls == 1
    await world.kill()


@virtual
async def test_never_pulling_needs_the_image(world: World) -> None:
    await world.start(assignment(image_pull_policy="NEVER"))
    seen = await world.until_phase(P.BACKING_OFF)
    assert "image_pull_policy is NEVER" in seen.message
    assert world.machine.pulls == 0
    await world.kill()


@virtual
async def test_out_of_memory_is_told(world: World) -> None:
    await world.start(assignment())
    await world.until_running()
    world.machine.end("cl-r1-1", 137, out_of_memory=True)
    seen = await world.until_phase(P.BACKING_OFF)
    assert seen.last_exit is not None
    assert (seen.last_exit.oom_killed, seen.last_exit.reason) == (True, "OOMKilled")
    assert "OOMKilled" in world.reasons()
    await world.kill()


@virtual
async def test_the_grace_passes_before_sigkill(world: World) -> None:
    world.machine.programs["serve"] = Program(deaf=frozenset({signal.SIGTERM}))
    await world.start(assignment(stop_grace_period="30s"))
    await world.until_running()
    container, at = world.container(), world.clock.monotonic()
    await world.tell(assignment(run=False, stop_grace_period="30s"))
    await world.until_gone()
    assert container.signals == [signal.SIGTERM, signal.SIGKILL]
    assert world.clock.monotonic() - at == pytest.approx(30.0, abs=0.1)
    await world.kill()


@virtual
async def test_the_grace_can_become_shorter_while_it_passes(world: World) -> None:
    world.machine.programs["serve"] = Program(deaf=frozenset({signal.SIGTERM}))
    await world.start(assignment(stop_grace_period="600s"))
    await world.until_running()
    stop = assignment(run=False, stop_grace_period="600s")
    await world.tell(stop)
    await world.clock.sleep(5.0)
    await world.tell(stop.replaced(grace=stop.spec.stop_grace_period * 0))
    await world.until_gone()
    assert world.clock.monotonic() == pytest.approx(5.0, abs=0.2)
    await world.kill()


@virtual
async def test_no_grace_means_sigkill_at_once_and_the_stop_signal_is_the_specs(world: World) -> None:
    world.machine.programs["serve"] = Program()
    await world.start(assignment("a", stop_grace_period="0s"), assignment("b", stop_signal="SIGQUIT"))
    await world.until_running("a")
    await world.until_running("b")
    first, second = world.container("a"), world.container("b")
    await world.tell(removed=("a", "b"))
    await world.until_gone("a")
    await world.until_gone("b")
    assert (first.signals, second.signals) == ([signal.SIGKILL], [signal.SIGQUIT])
    world.assert_clean()
    await world.kill()


@virtual
async def test_readiness_follows_the_probe(world: World) -> None:
    answers = {"ok": False}
    world.probe_answers = lambda probe: ProbeOutcome(answers["ok"], "HTTP 503")
    probe = {"http": {"port": 80}, "period": "1s", "failure_threshold": 1}
    await world.start(assignment(readiness_probe=probe))
    seen = await world.until_running()
    assert (seen.ready, seen.ready_since) == (False, None)
    seen_or_none = await world.until(lambda one: one is not None and "HTTP 503" in one.message)
    assert seen_or_none is not None
    answers["ok"] = True
    seen_or_none = await world.until(lambda one: one is not None and one.ready)
    assert seen_or_none is not None
    since = seen_or_none.ready_since
    assert since is not None
    answers["ok"] = False
    seen_or_none = await world.until(lambda one: one is not None and not one.ready)
    assert seen_or_none is not None
    assert (seen_or_none.phase, seen_or_none.restarts) == (P.RUNNING, 0)
    await world.kill()


@virtual
async def test_liveness_restarts_with_the_stop_signal_and_says_why(world: World) -> None:
    world.probe_answers = lambda probe: ProbeOutcome(False, "connection refused")
    probe: dict[str, Any] = {"tcp": {"port": 80}, "period": "1s", "failure_threshold": 2}
    await world.start(assignment(liveness_probe=probe, restart_policy={"backoff": {"base": "0s"}}))
    seen = await world.until_running(restarts=1)
    assert seen.last_exit is not None
    assert (seen.last_exit.reason, seen.last_exit.signal) == ("Unhealthy", signal.SIGTERM)
    assert "Unhealthy" in world.reasons()
    await world.kill()


@virtual
async def test_an_exec_probe_runs_in_the_container(world: World) -> None:
    async def on_exec(container_id: str, request: Any) -> ExecResult:
        return ExecResult(0 if request.argv == ("check",) else 1)

    world.machine.on_exec = on_exec
    await world.start(assignment(startup_probe={"exec": {"command": ["check"]}}))
    seen = await world.until(lambda one: one is not None and one.ready)
    assert seen is not None
    await world.kill()


@pytest.mark.parametrize(
    ("security", "why"),
    [
        ({"privileged": True}, "privileged is not allowed"),
        ({"host_network": True}, "host_network is not allowed"),
        ({"capabilities_add": ["SYS_ADMIN"]}, "capabilities_add is not allowed"),
        ({"seccomp_profile": {"type": "UNCONFINED"}}, "seccomp_profile is not allowed"),
        ({"apparmor_profile": "strict"}, "has no AppArmor"),
        ({"run_as_non_root": True}, "would run as root"),
        ({"seccomp_profile": {"type": "LOCALHOST", "localhost_profile": "x.json"}}, "seccomp folder"),
    ],
)
def test_what_the_node_may_not_or_cannot_do_fails_for_good(
    world: World, security: dict[str, Any], why: str
) -> None:
    @virtual
    async def run() -> None:
        await world.start(assignment(security_context=security))
        seen = await world.until_phase(P.FAILED)
        assert seen.message.startswith("NotPermitted: ")
        assert why in seen.message
        await world.clock.sleep(3600)
        assert world.machine.running() == []
        await world.kill()

    run()


@virtual
async def test_a_host_path_needs_permission(world: World) -> None:
    volume = {"name": "data", "mount_path": "/data", "host_path": {"path": "/etc"}}
    await world.start(assignment(volumes=[volume]))
    assert "host path /etc is not allowed" in (await world.until_phase(P.FAILED)).message
    await world.kill()
