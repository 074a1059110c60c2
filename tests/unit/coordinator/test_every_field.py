"""No field lies: every request field of every RPC has an effect, or is refused.

The fields are found by walking the generated classes, so that a new one fails here until
somebody proves what it does. Fields of a specification are proved by a set of samples:
what was given comes back from GetWorkload and arrives at the node, for every field and
every value of every enum; the rest is refused by name. Every other field of every RPC
needs an entry in ``PROOFS``: the test that shows its effect, or that it is refused.
"""

from __future__ import annotations

import ast
import datetime
import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import betterproto2
import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.domain.errors import Invalid
from cloudless.domain.node import NodeCapabilities
from cloudless.domain.secrets import HIDDEN

HERE = Path(__file__).parent
S = api.WorkloadSpec
SECONDS = [datetime.timedelta(seconds=number) for number in range(700)]
Strategy = api.RolloutStrategyStrategy
Policy = api.RestartPolicyPolicy
Pull = api.ImagePullPolicy
Seccomp = api.SeccompProfileType
Protocol = api.PortProtocol


def sample(**fields: Any) -> api.WorkloadSpec:
    return S(image="registry:5000/team/app:1.4", **fields)


SAMPLES: dict[str, api.WorkloadSpec] = {
    "program": sample(
        command=["/bin/app"],
        args=["--flag"],
        env={"A": "1"},
        working_dir="/srv",
        replicas=2,
        stop_grace_period=SECONDS[7],
        stop_signal="SIGINT",
        image_pull_policy=Pull.ALWAYS,
        pull_secrets=[api.PullSecret(server="registry:5000", username="u", password="p")],
        runtime_class_name="runsc",
        stdin=True,
        tty=True,
        resources=api.Resources(
            requests=api.ResourceList(cpu_millicores=10, memory_bytes=2**23, storage_bytes=2**20),
            limits=api.ResourceList(cpu_millicores=20, memory_bytes=2**24),
        ),
    ),
    "placement": sample(
        image_pull_policy=Pull.IF_NOT_PRESENT,
        placement=api.Placement(
            regions=["eu"],
            zones=["eu-1"],
            node_selector={"disk": "ssd"},
            affinity=[
                api.AffinityRule(selector="app=db", topology="zone", weight=3),
                api.AffinityRule(selector="app!=noisy", topology="node", required=True),
            ],
            anti_affinity=[
                api.AffinityRule(selector="app=noisy", topology="region", required=True),
                api.AffinityRule(selector="app=loud", topology="zone", weight=5),
            ],
            tolerations=[api.Toleration(key="gpu", value="yes", effect="no_schedule")],
            spread_topology=[api.SpreadRule(topology="node", max_skew=2, required=True)],
        ),
    ),
    "rolling": sample(
        image_pull_policy=Pull.NEVER,
        rollout=api.RolloutStrategy(
            max_surge="2",
            max_unavailable="50%",
            min_available="1",
            pause_duration=SECONDS[5],
            min_ready_time=SECONDS[3],
            progress_deadline=SECONDS[77],
            pause_deadline=SECONDS[66],
            drain_time=SECONDS[4],
        ),
        restart_policy=api.RestartPolicy(
            policy=Policy.ON_FAILURE,
            max_retries=4,
            backoff=api.Backoff(base=SECONDS[1], cap=SECONDS[9], reset_after=SECONDS[11]),
        ),
    ),
    "blue-green": sample(
        replicas=4,
        rollout=api.RolloutStrategy(
            strategy=Strategy.BLUE_GREEN,
            max_failures=7,
            auto_rollback=False,
            auto_promote=True,
            bake_time=SECONDS[8],
            scale_down_delay=SECONDS[9],
        ),
    ),
    "canary": sample(
        rollout=api.RolloutStrategy(
            strategy=Strategy.CANARY,
            steps=[
                api.CanaryStep(weight=10, replicas="2", pause=api.CanaryPause(duration=SECONDS[60])),
                api.CanaryStep(weight=50, pause=api.CanaryPause()),
            ],
        ),
    ),
    "recreate": sample(
        rollout=api.RolloutStrategy(strategy=Strategy.RECREATE),
        restart_policy=api.RestartPolicy(policy=Policy.NEVER),
    ),
    "explicit defaults": sample(
        rollout=api.RolloutStrategy(strategy=Strategy.ROLLING_UPDATE),
        restart_policy=api.RestartPolicy(policy=Policy.ALWAYS),
        ports=[api.Port(container_port=80, protocol=Protocol.TCP)],
        security_context=api.SecurityContext(
            seccomp_profile=api.SeccompProfile(type=Seccomp.RUNTIME_DEFAULT)
        ),
    ),
    "volumes and ports": sample(
        volumes=[
            api.Volume(name="a", mount_path="/a", host_path=api.HostPathVolume(path="/srv/data")),
            api.Volume(name="b", mount_path="/b", empty_dir=api.EmptyDirVolume(size_bytes=2**20)),
            api.Volume(name="c", mount_path="/c", tmpfs=api.TmpfsVolume(size_bytes=2**21), read_only=True),
        ],
        ports=[
            api.Port(
                name="dns", container_port=53, host_port=5353, protocol=Protocol.UDP, host_address="127.0.0.2"
            ),
            api.Port(container_port=80, publish=8000, publish_address="0.0.0.0"),
        ],
    ),
    "probes": sample(
        liveness_probe=api.Probe(
            exec=api.ExecProbe(command=["true"]),
            initial_delay=SECONDS[1],
            period=SECONDS[2],
            timeout=SECONDS[3],
            failure_threshold=5,
        ),
        readiness_probe=api.Probe(
            http=api.HttpProbe(path="/ok", port=80, scheme="https", headers={"Host": "x"}),
            initial_delay=SECONDS[1],
            period=SECONDS[4],
            timeout=SECONDS[5],
            success_threshold=2,
            failure_threshold=4,
        ),
        startup_probe=api.Probe(
            tcp=api.TcpProbe(port=81),
            initial_delay=SECONDS[6],
            period=SECONDS[7],
            timeout=SECONDS[8],
            failure_threshold=9,
        ),
    ),
    "more probes": sample(
        liveness_probe=api.Probe(http=api.HttpProbe(path="/l", port=1, scheme="https", headers={"A": "b"})),
        readiness_probe=api.Probe(exec=api.ExecProbe(command=["ready"])),
        startup_probe=api.Probe(exec=api.ExecProbe(command=["started"])),
    ),
    "tcp probes": sample(
        liveness_probe=api.Probe(tcp=api.TcpProbe(port=2)),
        readiness_probe=api.Probe(tcp=api.TcpProbe(port=3)),
        startup_probe=api.Probe(http=api.HttpProbe(path="/s", port=4, scheme="https", headers={"C": "d"})),
    ),
    "grpc probes": sample(
        liveness_probe=api.Probe(grpc=api.GrpcProbe(port=5, service="a")),
        readiness_probe=api.Probe(grpc=api.GrpcProbe(port=6, service="b")),
        startup_probe=api.Probe(grpc=api.GrpcProbe(port=7, service="c")),
    ),
    "security": sample(
        security_context=api.SecurityContext(
            run_as_non_root=True,
            run_as_user=1000,
            run_as_group=1001,
            supplemental_groups=[2000],
            read_only_root_filesystem=True,
            capabilities_add=["NET_BIND_SERVICE"],
            capabilities_drop=["ALL"],
            seccomp_profile=api.SeccompProfile(type=Seccomp.LOCALHOST, localhost_profile="own.json"),
            apparmor_profile="mine",
            no_new_privileges=False,
            sysctls={"net.core.somaxconn": "1024"},
        ),
    ),
    "permissions": sample(
        security_context=api.SecurityContext(
            privileged=True,
            host_network=True,
            host_pid=True,
            host_ipc=True,
            seccomp_profile=api.SeccompProfile(type=Seccomp.UNCONFINED),
        ),
    ),
}
#: What is refused, with a sample and the field that the refusal names.
REFUSED: dict[str, tuple[api.WorkloadSpec, str]] = {
    "resources.limits.storage_bytes": (
        sample(resources=api.Resources(limits=api.ResourceList(storage_bytes=2**20))),
        "spec.resources.limits.storage_bytes",
    ),
    "liveness_probe.success_threshold": (
        sample(liveness_probe=api.Probe(tcp=api.TcpProbe(port=1), success_threshold=2)),
        "spec.liveness_probe",
    ),
    "startup_probe.success_threshold": (
        sample(startup_probe=api.Probe(tcp=api.TcpProbe(port=1), success_threshold=2)),
        "spec.startup_probe",
    ),
}


# -- walking ---------------------------------------------------------------------------


def is_message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, betterproto2.Message)


def paths_of(message: Any, prefix: str = "") -> Iterator[str]:
    """Every field below a message class; enum fields once for each of their values."""
    meta = message._betterproto
    for name in meta.meta_by_field_name:
        kind, path = meta.cls_by_field[name], f"{prefix}{name}"
        if is_message(kind) and kind.__module__ == api.__name__:
            yield from paths_of(kind, f"{path}.")
        elif isinstance(kind, type) and issubclass(kind, enum.IntEnum):
            yield from (f"{path}={value.name}" for value in kind if value)
        else:
            yield path


def values_at(message: Any, path: str) -> list[Any]:
    """What a message holds at a path; nothing when it is not given."""
    place, _, choice = path.partition("=")
    found, optional = [message], False
    for part in place.split("."):
        optional = any(type(one)._betterproto.meta_by_field_name[part].optional for one in found if one)
        found = [getattr(one, part) for one in found if one is not None]
        found = [one for value in found for one in (value if isinstance(value, list) else [value])]
    absent = [None] if optional else [None, 0, "", {}, []]
    given = [value for value in found if value not in absent]
    return [value for value in given if value.name == choice] if choice else given


SPEC_PATHS = tuple(paths_of(api.WorkloadSpec))


def test_the_walk_finds_the_fields() -> None:
    assert len(SPEC_PATHS) > 100
    assert "liveness_probe.http.headers" in SPEC_PATHS
    assert "rollout.strategy=CANARY" in SPEC_PATHS


@pytest.mark.parametrize("path", SPEC_PATHS)
def test_every_field_of_a_specification_has_a_sample(path: str) -> None:
    if path in REFUSED:
        return
    assert any(values_at(given, path) for given in SAMPLES.values()), f"{path}: neither sampled nor refused"


@pytest.mark.parametrize("name", SAMPLES)
async def test_what_was_given_comes_back_and_reaches_the_node(bare: World, name: str) -> None:
    given = SAMPLES[name]
    agent = await bare.join(
        "n1",
        region="eu",
        zone="eu-1",
        labels={"disk": "ssd"},
        capabilities=NodeCapabilities(
            runtime_classes=("runc", "runsc"),
            apparmor=True,
            host_paths=("/srv",),
            allow_privileged=True,
            allow_host_namespaces=True,
            seccomp_profiles=("own.json",),
        ),
    )
    await bare.create_from(given)
    await bare.until(lambda: bool(agent.assignments))
    returned = (await bare.get()).spec
    told = next(iter(agent.assignments.values())).spec
    checked = 0
    for path in SPEC_PATHS:
        wanted = values_at(given, path)
        if wanted and not is_default(path, wanted):
            shown = [HIDDEN] if path == "pull_secrets.password" else wanted
            assert holds(values_at(returned, path), shown), f"{path} of GetWorkload"
            assert holds(values_at(told, path), wanted), f"{path} of the assignment"
            checked += 1
    assert checked


def holds(found: list[Any], wanted: list[Any]) -> bool:
    """Whether all that was given is there; defaults may have joined it."""
    return all(one in found for one in wanted)


def is_default(path: str, values: list[Any]) -> bool:
    """Values that say what is so anyway are left out on the wire; the domain knows them."""
    from cloudless.wire.spec import spec_from_wire, spec_to_wire

    plain = spec_to_wire(spec_from_wire(sample()))
    return path in DEFAULTS and not values_at(plain, path)


#: Enum values that are what the coordinator takes when nothing is given.
DEFAULTS = {
    "rollout.strategy=ROLLING_UPDATE",
    "restart_policy.policy=ALWAYS",
    "ports.protocol=TCP",
    "security_context.seccomp_profile.type=RUNTIME_DEFAULT",
}


@pytest.mark.parametrize("path", REFUSED)
async def test_what_is_not_supported_is_refused_by_name(bare: World, path: str) -> None:
    given, field = REFUSED[path]
    assert values_at(given, path), "the sample holds what it is about"
    with pytest.raises(Invalid) as refused:
        await bare.create_from(given)
    assert [violation.path for violation in refused.value.violations] == [field]


def test_nothing_is_both_sampled_and_refused() -> None:
    assert set(REFUSED) <= set(SPEC_PATHS)
    for path in REFUSED:
        assert not any(values_at(given, path) for given in SAMPLES.values())


# -- every other field -----------------------------------------------------------------

TAILED = "test_logs"
LIFE, CHANGE, LIST, NODE, LOGS = "test_lifecycle", "test_changes", "test_lists", "test_nodes", "test_bulk"
LINK, BAD, HERE_NAME, ROLL = "test_links", "test_bad_input", "test_every_field", "test_rolling"
#: Fields of requests -> the test that proves what they do, as file.function.
PROOFS: dict[str, str] = {
    "CreateWorkload.namespace": f"{LIST}.test_lists_are_in_order_and_by_namespace",
    "CreateWorkload.name": f"{LIFE}.test_a_workload_runs_and_says_so",
    "CreateWorkload.spec": f"{HERE_NAME}.test_what_was_given_comes_back_and_reaches_the_node",
    "CreateWorkload.labels": f"{LIST}.test_selectors",
    "CreateWorkload.annotations": f"{CHANGE}.test_labels_change_without_a_new_generation",
    "CreateWorkload.request_id": f"{CHANGE}.test_a_repeated_request_gets_the_first_answer",
    "CreateWorkload.author": f"{CHANGE}.test_who_asked_is_kept_with_the_revision",
    "CreateWorkload.message": f"{CHANGE}.test_who_asked_is_kept_with_the_revision",
    "CreateWorkload.dry_run": f"{CHANGE}.test_a_dry_run_plans_fully_and_changes_nothing",
    "UpdateWorkload.namespace": f"{CHANGE}.test_changes_in_another_namespace",
    "UpdateWorkload.name": f"{CHANGE}.test_a_workload_that_does_not_exist",
    "UpdateWorkload.spec": f"{CHANGE}.test_an_update_without_a_mask_replaces_the_whole_spec",
    "UpdateWorkload.update_mask": f"{CHANGE}.test_a_mask_changes_what_it_names_and_nothing_else",
    "UpdateWorkload.resource_version": f"{CHANGE}.test_a_stale_version_is_a_conflict",
    "UpdateWorkload.labels": f"{CHANGE}.test_labels_change_without_a_new_generation",
    "UpdateWorkload.annotations": f"{CHANGE}.test_labels_change_without_a_new_generation",
    "UpdateWorkload.request_id": f"{CHANGE}.test_a_repeated_update_is_done_once",
    "UpdateWorkload.dry_run": f"{CHANGE}.test_dry_runs_of_changes",
    "UpdateWorkload.author": f"{CHANGE}.test_who_asked_is_kept_with_the_revision",
    "UpdateWorkload.message": f"{LIFE}.test_a_new_image_replaces_every_replica",
    "DeleteWorkload.namespace": f"{CHANGE}.test_changes_in_another_namespace",
    "DeleteWorkload.name": f"{LIFE}.test_delete_is_recorded_at_once_and_done_when_nothing_is_left",
    "DeleteWorkload.grace_period": f"{LIFE}.test_delete_is_recorded_at_once_and_done_when_nothing_is_left",
    "DeleteWorkload.resource_version": f"{CHANGE}.test_a_stale_version_is_a_conflict",
    "DeleteWorkload.request_id": f"{CHANGE}.test_a_repetition_is_known_after_the_workload_is_gone",
    "DeleteWorkload.dry_run": f"{CHANGE}.test_dry_runs_of_changes",
    "ScaleWorkload.namespace": f"{CHANGE}.test_changes_in_another_namespace",
    "ScaleWorkload.name": f"{CHANGE}.test_a_workload_that_does_not_exist",
    "ScaleWorkload.replicas": f"{LIFE}.test_scale_out_and_in",
    "ScaleWorkload.resource_version": f"{CHANGE}.test_a_stale_version_is_a_conflict",
    "ScaleWorkload.request_id": f"{CHANGE}.test_a_repeated_request_gets_the_first_answer",
    "ScaleWorkload.dry_run": f"{CHANGE}.test_dry_runs_of_changes",
    "GetWorkload.namespace": f"{CHANGE}.test_a_workload_is_found_by_the_beginning_of_its_id",
    "GetWorkload.name": f"{CHANGE}.test_a_workload_is_found_by_the_beginning_of_its_id",
    "ListWorkloads.namespace": f"{LIST}.test_lists_are_in_order_and_by_namespace",
    "ListWorkloads.label_selector": f"{LIST}.test_selectors",
    "ListWorkloads.page_size": f"{LIST}.test_pages_show_one_revision_whatever_is_written_between",
    "ListWorkloads.page_token": f"{LIST}.test_pages_show_one_revision_whatever_is_written_between",
    "WatchWorkloads.namespace": f"{LIST}.test_a_watch_is_filtered_by_namespace_and_name",
    "WatchWorkloads.name": f"{LIST}.test_a_watch_is_filtered_by_namespace_and_name",
    "WatchWorkloads.label_selector": f"{LIST}.test_a_watch_with_a_selector_tells_who_enters_and_leaves",
    "WatchWorkloads.resource_version": f"{LIST}.test_a_watch_resumes_where_it_stopped",
    "ListReplicas.namespace": f"{LIST}.test_lists_of_one_namespace",
    "ListReplicas.name": f"{LIST}.test_replicas_are_paged_and_filtered",
    "ListReplicas.node": f"{LIST}.test_replicas_are_paged_and_filtered",
    "ListReplicas.page_size": f"{LIST}.test_replicas_are_paged_and_filtered",
    "ListReplicas.page_token": f"{LIST}.test_replicas_are_paged_and_filtered",
    "GetNode.name": f"{NODE}.test_nodes_show_what_is_reserved",
    "ListNodes.label_selector": f"{LIST}.test_nodes_are_paged_and_filtered",
    "ListNodes.page_size": f"{LIST}.test_nodes_are_paged_and_filtered",
    "ListNodes.page_token": f"{LIST}.test_nodes_are_paged_and_filtered",
    "ListEvents.namespace": f"{LIST}.test_lists_of_one_namespace",
    "ListEvents.name": f"{LIST}.test_events_are_paged_and_filtered",
    "ListEvents.kind": f"{LIST}.test_events_are_paged_and_filtered",
    "ListEvents.since": f"{LIST}.test_events_are_paged_and_filtered",
    "ListEvents.page_size": f"{LIST}.test_events_are_paged_and_filtered",
    "ListEvents.page_token": f"{LIST}.test_events_are_paged_and_filtered",
    "WatchEvents.namespace": f"{LIST}.test_watched_events_are_filtered",
    "WatchEvents.name": f"{LIST}.test_watched_events_are_filtered",
    "WatchEvents.kind": f"{LIST}.test_events_are_watched",
    "WatchEvents.resource_version": f"{LIST}.test_events_are_watched",
    "ListRevisions.namespace": f"{LIST}.test_lists_of_one_namespace",
    "ListRevisions.name": f"{LIFE}.test_a_new_image_replaces_every_replica",
    "StreamLogs.namespace": f"{TAILED}.test_logs_of_another_namespace",
    "StreamLogs.name": f"{TAILED}.test_a_workload_that_is_gone_is_found_by_its_name",
    "StreamLogs.replica": f"{TAILED}.test_logs_of_one_replica",
    "StreamLogs.follow": f"{TAILED}.test_followed_logs_hold_replicas_that_come_later",
    "StreamLogs.tail_lines": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.since": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.timestamps": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.container_id": f"{TAILED}.test_bad_requests_name_their_field",
    "StreamLogs.label_selector": f"{TAILED}.test_workloads_by_label_and_those_to_come",
    "StreamLogs.previous": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.until": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.stream": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.include": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.exclude": f"{TAILED}.test_how_logs_are_asked_for_reaches_the_node",
    "StreamLogs.limit_bytes": f"{TAILED}.test_the_limit_counts_over_all_nodes",
    "StreamLogs.resume": f"{TAILED}.test_a_merged_stream_can_be_resumed_after_every_batch",
    "StreamLogs.current_only": f"{TAILED}.test_replicas_that_are_gone_are_read_wherever_their_logs_are",
    "ListExecs.namespace": "test_execs.test_all_nodes_are_asked_and_the_answer_has_an_order",
    "ListExecs.name": "test_execs.test_all_nodes_are_asked_and_the_answer_has_an_order",
    "ListExecs.replica": "test_execs.test_all_nodes_are_asked_and_the_answer_has_an_order",
    "ListExecs.container_id": "test_execs.test_what_cannot_be_meant",
    "KillExec.namespace": "test_execs.test_the_right_node_is_told",
    "KillExec.name": "test_execs.test_what_cannot_be_meant",
    "KillExec.replica": "test_execs.test_what_cannot_be_meant",
    "KillExec.container_id": "test_execs.test_what_cannot_be_meant",
    "KillExec.exec_id": "test_execs.test_what_cannot_be_meant",
    "KillExec.signal": "test_execs.test_the_right_node_is_told",
    "KillExec.grace_period": "test_execs.test_the_right_node_is_told",
    "ExecCommand.namespace": f"{LOGS}.test_commands_in_another_namespace",
    "ExecCommand.name": f"{LOGS}.test_a_command_runs_in_a_ready_replica",
    "ExecCommand.replica": f"{LOGS}.test_a_command_runs_in_the_replica_that_is_named",
    "ExecCommand.command": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.env": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.working_dir": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.user": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.timeout": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.output_limit_bytes": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.stdin": f"{LOGS}.test_everything_about_a_command_reaches_the_node",
    "ExecCommand.container_id": f"{BAD}.test_requests",
    "Rollout.namespace": f"{ROLL}.test_a_rollout_in_another_namespace",
    "Rollout.name": f"{BAD}.test_requests",
    "Rollout.verb": f"{BAD}.test_requests",
    "Rollout.to_revision": f"{ROLL}.test_undo_to_a_named_revision",
    "Rollout.pull": f"{ROLL}.test_restart_makes_new_replicas_of_the_same_specification",
    "Rollout.full": f"{ROLL}.test_a_full_promotion_leaves_out_all_further_steps",
    "Rollout.author": f"{CHANGE}.test_who_asked_is_kept_with_the_revision",
    "Rollout.message": f"{ROLL}.test_undo_to_a_named_revision",
    "Rollout.resource_version": f"{ROLL}.test_a_stale_version_is_refused",
    "Rollout.request_id": f"{ROLL}.test_a_repeated_verb_is_done_once",
    "Rollout.dry_run": f"{ROLL}.test_a_dry_run_of_a_verb_shows_the_steps_and_changes_nothing",
    "GetRollout.namespace": f"{ROLL}.test_a_rollout_in_another_namespace",
    "GetRollout.name": f"{BAD}.test_requests",
    "GetRollout.revision": f"{ROLL}.test_a_rollout_is_kept_with_its_journal",
    "Exec.start": "test_programs.test_everything_is_passed_both_ways",
    "Exec.attach": "test_programs.test_bad_beginnings",
    "Exec.stdin": "test_programs.test_everything_is_passed_both_ways",
    "Exec.stdin_close": "test_programs.test_everything_is_passed_both_ways",
    "Exec.resize": "test_programs.test_everything_is_passed_both_ways",
    "Exec.signal": "test_programs.test_everything_is_passed_both_ways",
    "Attach.start": "test_programs.test_bad_beginnings",
    "Attach.attach": "test_programs.test_attach_passes_everything_both_ways",
    "Attach.stdin": "test_programs.test_attach_passes_everything_both_ways",
    "Attach.stdin_close": "test_programs.test_attach_passes_everything_both_ways",
    "Attach.resize": "test_programs.test_attach_passes_everything_both_ways",
    "Attach.signal": "test_programs.test_attach_passes_everything_both_ways",
    "Forward.target": "test_forwarding.test_bad_beginnings",
    "Forward.data": "test_forwarding.test_data_and_end_are_passed_both_ways",
    "Forward.end": "test_forwarding.test_data_and_end_are_passed_both_ways",
    # What the coordinator says over the link; what the node does with it is the agent's.
    "Synchronize.epoch": f"{NODE}.test_links_end_with_the_leadership",
    "Synchronize.revision": f"{LINK}.test_messages_say_their_revision_and_what_was_stored",
    "Synchronize.whole": f"{LINK}.test_first_everything_then_what_changes",
    "Synchronize.assignments": f"{LINK}.test_an_assignment_says_everything",
    "Synchronize.removed": f"{LINK}.test_first_everything_then_what_changes",
    "Synchronize.traffic": "test_desired.test_the_first_message_holds_the_shares_of_what_runs_there",
    "Synchronize.acknowledged": f"{LINK}.test_messages_say_their_revision_and_what_was_stored",
}
#: RPCs of a node that only the node serves: its own tests prove their fields.
NODE_ONLY = frozenset(
    {
        "ExecCommand",
        "GetNodeInfo",
        "ImportImage",
        "ListImages",
        "PullImage",
        "ReadLogs",
        "RemoveImage",
        "StreamLogs",
    }
)


def requests_of(base: Any) -> dict[str, Any]:
    handlers = base.__mapping__(base.__new__(base))
    return {path.rpartition("/")[2]: handler.request_type for path, handler in handlers.items()}


def fields_of_requests() -> list[str]:
    found = {
        f"{method}.{name}"
        for method, request in requests_of(api.CoordinatorServiceBase).items()
        for name in request._betterproto.meta_by_field_name
    }
    for method, request in requests_of(api.AgentServiceBase).items():
        if method not in NODE_ONLY:
            found.update(f"{method}.{name}" for name in request._betterproto.meta_by_field_name)
    return sorted(found)


@pytest.mark.parametrize("field", fields_of_requests())
def test_every_field_of_every_request_is_proved(field: str) -> None:
    assert field in PROOFS, f"{field}: no test proves its effect or refusal"
    file, _, function = PROOFS[field].partition(".")
    path = HERE / f"{file}.py"
    tree = ast.parse(path.read_text())
    tests = {
        node.name: node for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }
    assert function in tests, f"{PROOFS[field]} does not exist"
    if "what" in {argument.arg for argument in tests[function].args.args}:
        return  # a table of requests: the field is in it by its own check
    name = field.rpartition(".")[2]
    text = ast.get_source_segment(path.read_text(), tests[function]) or ""
    helpers = (HERE / "world.py").read_text()
    assert name in text or f"{name}" in helpers, f"{PROOFS[field]} does not speak of {name}"


def test_no_proof_is_left_of_a_field_that_is_gone() -> None:
    assert set(PROOFS) == set(fields_of_requests())
