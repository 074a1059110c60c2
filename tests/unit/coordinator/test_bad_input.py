"""Bad requests: each is refused, names its field, and leaves nothing behind."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.domain.errors import Exhausted, Invalid

S = api.WorkloadSpec
Strategy = api.RolloutStrategyStrategy
Verb = api.RolloutRequestVerb


def spec(**fields: Any) -> api.WorkloadSpec:
    return S(image=fields.pop("image", "nginx:alpine"), **fields)


def port(number: int, **fields: Any) -> api.Port:
    return api.Port(container_port=number, **fields)


def probe(**fields: Any) -> api.Probe:
    return api.Probe(tcp=api.TcpProbe(port=80), **fields)


def volume(name: str = "data", **fields: Any) -> api.Volume:
    return api.Volume(name=name, mount_path=fields.pop("mount_path", "/data"), **fields)


def canary(**fields: Any) -> api.CanaryStep:
    return api.CanaryStep(**fields)


def canaries(*steps: api.CanaryStep) -> api.RolloutStrategy:
    return api.RolloutStrategy(strategy=Strategy.CANARY, steps=list(steps))


SPECS: dict[str, tuple[str, api.WorkloadSpec | None]] = {
    "no spec": ("spec", None),
    "no image": ("spec.image", S()),
    "image with spaces": ("spec.image", spec(image="nginx alpine")),
    "image in capitals": ("spec.image", spec(image="Nginx")),
    "image of 600 characters": ("spec.image", spec(image="n" * 600)),
    "image with a bad digest": ("spec.image", spec(image="nginx@sha256:xyz")),
    "negative replicas": ("spec.replicas", spec(replicas=-1)),
    "huge replicas": ("spec.replicas", spec(replicas=10_001)),
    "NUL in an argument": ("spec.args[0]", spec(args=["a\0b"])),
    "NUL in the environment": ("spec.env.A", spec(env={"A": "\0"})),
    "bad name of a variable": ("spec.env", spec(env={"1A": "x"})),
    "100000 variables": ("spec.env", spec(env={f"V{number}": "" for number in range(100_000)})),
    "environment of 200 KiB": ("spec.env", spec(env={"A": "x" * 200_000})),
    "relative working_dir": ("spec.working_dir", spec(working_dir="app")),
    "working_dir with ..": ("spec.working_dir", spec(working_dir="/a/../b")),
    "port twice": ("spec", spec(ports=[port(80), port(80)])),
    "port name twice": ("spec", spec(ports=[port(80, name="a"), port(81, name="a")])),
    "host port twice": ("spec", spec(ports=[port(80, host_port=8000), port(81, host_port=8000)])),
    "port 0": ("spec.ports[0].container_port", spec(ports=[api.Port()])),
    "port 70000": ("spec.ports[0].container_port", spec(ports=[port(70_000)])),
    "negative host port": ("spec.ports[0].host_port", spec(ports=[port(80, host_port=-1)])),
    "bad port name": ("spec.ports[0].name", spec(ports=[port(80, name="Http")])),
    "bad host address": ("spec.ports[0].host_address", spec(ports=[port(80, host_address="x")])),
    "negative grace": ("spec.stop_grace_period", spec(stop_grace_period=datetime.timedelta(seconds=-1))),
    "grace of 10 years": ("spec.stop_grace_period", spec(stop_grace_period=datetime.timedelta(days=3650))),
    "unknown signal": ("spec.stop_signal", spec(stop_signal="SIGFOO")),
    "probe without a check": ("spec.liveness_probe", spec(liveness_probe=api.Probe())),
    "probe of port 0": (
        "spec.readiness_probe.tcp.port",
        spec(readiness_probe=api.Probe(tcp=api.TcpProbe())),
    ),
    "negative probe period": (
        "spec.readiness_probe.period",
        spec(readiness_probe=probe(period=datetime.timedelta(seconds=-1))),
    ),
    "negative threshold": (
        "spec.readiness_probe.failure_threshold",
        spec(readiness_probe=probe(failure_threshold=-1)),
    ),
    "request above limit": (
        "spec.resources",
        spec(
            resources=api.Resources(
                requests=api.ResourceList(memory_bytes=2**31), limits=api.ResourceList(memory_bytes=2**30)
            )
        ),
    ),
    "negative memory": (
        "spec.resources.limits.memory_bytes",
        spec(resources=api.Resources(limits=api.ResourceList(memory_bytes=-1))),
    ),
    "storage limit": (
        "spec.resources",
        spec(resources=api.Resources(limits=api.ResourceList(storage_bytes=2**30))),
    ),
    "volume without a source": ("spec.volumes[0]", spec(volumes=[volume()])),
    "volume on /proc": (
        "spec.volumes[0]",
        spec(volumes=[volume(mount_path="/proc", tmpfs=api.TmpfsVolume())]),
    ),
    "volume name with /": ("spec.volumes[0].name", spec(volumes=[volume("../x", tmpfs=api.TmpfsVolume())])),
    "host path with ..": (
        "spec.volumes[0].host_path.path",
        spec(volumes=[volume(host_path=api.HostPathVolume(path="/a/../etc"))]),
    ),
    "volumes on one path": (
        "spec",
        spec(volumes=[volume("a", tmpfs=api.TmpfsVolume()), volume("b", tmpfs=api.TmpfsVolume())]),
    ),
    "bad selector": (
        "spec.placement.affinity[0].selector",
        spec(placement=api.Placement(affinity=[api.AffinityRule(selector="a=b=c")])),
    ),
    "bad topology": (
        "spec.placement.spread_topology[0].topology",
        spec(placement=api.Placement(spread_topology=[api.SpreadRule(topology="rack")])),
    ),
    "more available than wanted": (
        "spec.rollout.min_available",
        spec(replicas=2, rollout=api.RolloutStrategy(min_available="3")),
    ),
    "all kept and none beside them": (
        "spec.rollout.min_available",
        spec(
            replicas=4, rollout=api.RolloutStrategy(min_available="100%", max_surge="0", max_unavailable="1")
        ),
    ),
    "weights that fall": (
        "spec.rollout.steps[2].weight",
        spec(rollout=canaries(canary(weight=50), canary(replicas="3"), canary(weight=10))),
    ),
    "steps of no canary": ("spec.rollout", spec(rollout=api.RolloutStrategy(steps=[canary(weight=1)]))),
    "weight of 101": ("spec.rollout.steps[0].weight", spec(rollout=canaries(canary(weight=101)))),
    "empty step": ("spec.rollout.steps[1]", spec(rollout=canaries(canary(weight=1), canary()))),
    "canary of none": ("spec.rollout.steps[0]", spec(rollout=canaries(canary(weight=1, replicas="0")))),
    "canary of 0 %": ("spec.rollout.steps[0]", spec(rollout=canaries(canary(replicas="00%")))),
    "21 steps": ("spec.rollout.steps", spec(rollout=canaries(*[canary(weight=1)] * 21))),
    "surge of blue-green": (
        "spec.rollout",
        spec(rollout=api.RolloutStrategy(strategy=Strategy.BLUE_GREEN, max_surge="1")),
    ),
    "bake time of RECREATE without end": (
        "spec.rollout.bake_time",
        spec(rollout=api.RolloutStrategy(bake_time=datetime.timedelta(days=4000))),
    ),
    "no time for a person": (
        "spec.rollout",
        spec(rollout=api.RolloutStrategy(pause_deadline=datetime.timedelta(milliseconds=999))),
    ),
    "no time to make progress in": (
        "spec.rollout",
        spec(
            rollout=api.RolloutStrategy(
                min_ready_time=datetime.timedelta(seconds=9), progress_deadline=datetime.timedelta(seconds=9)
            )
        ),
    ),
    "negative failures": ("spec.rollout.max_failures", spec(rollout=api.RolloutStrategy(max_failures=-1))),
    "bad surge": ("spec.rollout.max_surge", spec(rollout=api.RolloutStrategy(max_surge="many"))),
    "surge of 200 %": ("spec.rollout.max_surge", spec(rollout=api.RolloutStrategy(max_surge="200%"))),
    "unknown strategy": ("spec.rollout.strategy", spec(rollout=api.RolloutStrategy(strategy=99))),  # type: ignore[arg-type]
    "unknown pull policy": ("spec.image_pull_policy", spec(image_pull_policy=77)),
    "negative retries": (
        "spec.restart_policy.max_retries",
        spec(restart_policy=api.RestartPolicy(max_retries=-1)),
    ),
    "unknown capability": (
        "spec.security_context",
        spec(security_context=api.SecurityContext(capabilities_add=["FLY"])),
    ),
    "negative user": (
        "spec.security_context.run_as_user",
        spec(security_context=api.SecurityContext(run_as_user=-1)),
    ),
    "bad runtime class": ("spec.runtime_class_name", spec(runtime_class_name="../runc")),
    "pull secret without server": ("spec.pull_secrets[0].server", spec(pull_secrets=[api.PullSecret()])),
}


@pytest.mark.parametrize("what", SPECS)
async def test_specifications(bare: World, what: str) -> None:
    path, given = SPECS[what]
    await refused(bare, path, "create_workload", api.CreateWorkloadRequest(name="web", spec=given))


GOOD = S(image="nginx:alpine")
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "no name": ("name", "create_workload", api.CreateWorkloadRequest(spec=GOOD)),
    "name ../x": ("name", "create_workload", api.CreateWorkloadRequest(name="../x", spec=GOOD)),
    "name with NUL": ("name", "create_workload", api.CreateWorkloadRequest(name="a\0b", spec=GOOD)),
    "name of 300": ("name", "create_workload", api.CreateWorkloadRequest(name="a" * 300, spec=GOOD)),
    "name in capitals": ("name", "create_workload", api.CreateWorkloadRequest(name="Web", spec=GOOD)),
    "name with a line feed": ("name", "create_workload", api.CreateWorkloadRequest(name="web\n", spec=GOOD)),
    "namespace a/b": (
        "namespace",
        "create_workload",
        api.CreateWorkloadRequest(namespace="a/b", name="w", spec=GOOD),
    ),
    "label key": (
        "labels",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=GOOD, labels={"a b": "c"}),
    ),
    "label value": (
        "labels.a",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=GOOD, labels={"a": "b c"}),
    ),
    "65 labels": (
        "labels",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=GOOD, labels={f"l{number}": "" for number in range(65)}),
    ),
    "65 annotations": (
        "annotations",
        "create_workload",
        api.CreateWorkloadRequest(
            name="w", spec=GOOD, annotations={f"l{number}": "" for number in range(65)}
        ),
    ),
    "annotations of 65 KiB": (
        "annotations",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=GOOD, annotations={"a": "x" * 66_000}),
    ),
    "request_id with /": (
        "request_id",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=GOOD, request_id="../workloads/x"),
    ),
    "request_id of 200": (
        "request_id",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=GOOD, request_id="x" * 200),
    ),
    "spec of 300 KiB": (
        "spec",
        "create_workload",
        api.CreateWorkloadRequest(name="w", spec=spec(args=["x" * 3000] * 100)),
    ),
    "long message": (
        "message",
        "update_workload",
        api.UpdateWorkloadRequest(name="w", spec=GOOD, message="x" * 2000),
    ),
    "update without spec": ("spec", "update_workload", api.UpdateWorkloadRequest(name="w")),
    "scale without replicas": ("replicas", "scale_workload", api.ScaleWorkloadRequest(name="w")),
    "scale to -1": ("replicas", "scale_workload", api.ScaleWorkloadRequest(name="w", replicas=-1)),
    "scale to a million": ("replicas", "scale_workload", api.ScaleWorkloadRequest(name="w", replicas=10**6)),
    "negative grace": (
        "grace_period",
        "delete_workload",
        api.DeleteWorkloadRequest(name="w", grace_period=datetime.timedelta(seconds=-1)),
    ),
    "version": (
        "resource_version",
        "delete_workload",
        api.DeleteWorkloadRequest(name="w", resource_version="-1"),
    ),
    "huge version": (
        "resource_version",
        "delete_workload",
        api.DeleteWorkloadRequest(name="w", resource_version="9" * 40),
    ),
    "rollout without a name": ("name", "rollout", api.RolloutRequest(verb=Verb.PAUSE)),
    "no verb": ("verb", "rollout", api.RolloutRequest(name="w")),
    "unknown verb": ("verb", "rollout", api.RolloutRequest(name="w", verb=99)),  # type: ignore[arg-type]
    "pause to a revision": (
        "to_revision",
        "rollout",
        api.RolloutRequest(name="w", verb=Verb.PAUSE, to_revision=1),
    ),
    "undo to -1": ("to_revision", "rollout", api.RolloutRequest(name="w", verb=Verb.UNDO, to_revision=-1)),
    "promote and pull": ("pull", "rollout", api.RolloutRequest(name="w", verb=Verb.PROMOTE, pull=True)),
    "full abort": ("full", "rollout", api.RolloutRequest(name="w", verb=Verb.ABORT, full=True)),
    "retry with a message": (
        "message",
        "rollout",
        api.RolloutRequest(name="w", verb=Verb.RETRY, message="x"),
    ),
    "undo with a long message": (
        "message",
        "rollout",
        api.RolloutRequest(name="w", verb=Verb.UNDO, message="x" * 2000),
    ),
    "rollout of a bad version": (
        "resource_version",
        "rollout",
        api.RolloutRequest(name="w", verb=Verb.RETRY, resource_version="new"),
    ),
    "rollout with a bad request_id": (
        "request_id",
        "rollout",
        api.RolloutRequest(name="w", verb=Verb.RETRY, request_id="/"),
    ),
    "rollout of a/b": ("name", "get_rollout", api.GetRolloutRequest(name="a/b")),
    "revision -1": ("revision", "get_rollout", api.GetRolloutRequest(name="w", revision=-1)),
    "get without a name": ("name", "get_workload", api.GetWorkloadRequest()),
    "get ../x": ("name", "get_workload", api.GetWorkloadRequest(name="../x")),
    "node without a name": ("name", "get_node", api.GetNodeRequest()),
    "node a/b": ("name", "get_node", api.GetNodeRequest(name="a/b")),
    "selector": ("label_selector", "list_nodes", api.ListNodesRequest(label_selector="((")),
    "page size": ("page_size", "list_events", api.ListEventsRequest(page_size=-5)),
    "exec nothing": ("command", "exec_command", api.ExecCommandRequest(name="w")),
    "exec for too long": (
        "timeout",
        "exec_command",
        api.ExecCommandRequest(name="w", command=["true"], timeout=datetime.timedelta(hours=2)),
    ),
    "exec for no time": (
        "timeout",
        "exec_command",
        api.ExecCommandRequest(name="w", command=["true"], timeout=datetime.timedelta(0)),
    ),
    "exec with too much output": (
        "output_limit_bytes",
        "exec_command",
        api.ExecCommandRequest(name="w", command=["true"], output_limit_bytes=2**30),
    ),
    "exec by container": (
        "container_id",
        "exec_command",
        api.ExecCommandRequest(name="w", command=["true"], container_id="c"),
    ),
}


@pytest.mark.parametrize("what", REQUESTS)
async def test_requests(bare: World, what: str) -> None:
    path, method, request = REQUESTS[what]
    await refused(bare, path, method, request)


@pytest.mark.parametrize("method", ["create_workload", "update_workload", "list_workloads", "get_info"])
async def test_fields_of_the_future_are_refused(bare: World, method: str) -> None:
    kinds = {
        "create_workload": api.CreateWorkloadRequest(name="w", spec=GOOD),
        "update_workload": api.UpdateWorkloadRequest(name="w", spec=GOOD),
        "list_workloads": api.ListWorkloadsRequest(),
        "get_info": api.GetInfoRequest(),
    }
    request = kinds[method]
    request._unknown_fields = b"\xf8\x3f\x01"
    with pytest.raises(Invalid, match="does not know"):
        await bare.call(method, request)


async def test_unknown_fields_within_a_specification_are_refused(bare: World) -> None:
    given = spec(ports=[port(80)])
    given.ports[0]._unknown_fields = b"\xf8\x3f\x01"
    await refused(bare, "spec.ports[0]", "create_workload", api.CreateWorkloadRequest(name="w", spec=given))


async def refused(world: World, path: str, method: str, request: Any) -> None:
    """The call is refused with this field, and nothing was written."""
    await world.settle()
    revision = world.coordinator.cache.revision
    with pytest.raises((Invalid, Exhausted)) as error:
        await world.call(method, request)
    assert isinstance(error.value, Invalid)
    paths = [violation.path for violation in error.value.violations]
    assert any(found == path or found.startswith((f"{path}.", f"{path}[")) for found in paths), paths
    assert all(violation.description for violation in error.value.violations)
    assert world.coordinator.cache.revision == revision
