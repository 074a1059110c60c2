"""Specifications: what is refused, with which path, and that nothing is lost on the way."""

from __future__ import annotations

import datetime
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloudless.domain.model import MAX_VIOLATIONS, violations_of
from cloudless.domain.strategy import resolve_count
from cloudless.domain.workload import ImagePullPolicy, Port, RestartPolicyName, WorkloadSpec


def refuse(**fields: Any) -> dict[str, str]:
    """The violations of a specification, by path."""
    with pytest.raises(ValidationError) as caught:
        WorkloadSpec.model_validate({"image": "web:1", **fields})
    return dict(violations_of(caught.value, "spec"))


def port(container: Any = 80, **fields: Any) -> dict[str, Any]:
    return {"container_port": container, **fields}


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:alpine",
        "library/nginx",
        "localhost:5000/app:1.4",
        "ghcr.io/a/b_c/d--e:v1",
        "[::1]:5000/a",
        "a@sha256:" + "0" * 64,
        "a:1@sha256:" + "f" * 64,
    ],
)
def test_images(image: str) -> None:
    assert WorkloadSpec(image=image).image == image


@pytest.mark.parametrize(
    "image",
    [
        "",
        " ",
        "Nginx",
        "a b",
        "a:",
        "a@sha256:1",
        "http://a/b",
        "../a",
        "a//b",
        "a\0",
        "-a",
        "a:b:c:d",
        "a" * 600,
    ],
)
def test_bad_images(image: str) -> None:
    assert list(refuse(image=image)) == ["spec.image"]


def test_a_missing_image() -> None:
    with pytest.raises(ValidationError) as caught:
        WorkloadSpec.model_validate({})
    assert violations_of(caught.value, "spec") == (("spec.image", "is required"),)


@pytest.mark.parametrize(
    ("fields", "path", "part"),
    [
        ({"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
        ({"replicas": 10_001}, "spec.replicas", "less than or equal to 10000"),
        ({"replicas": 2**31 - 1}, "spec.replicas", "less"),
        ({"replicas": "3"}, "spec.replicas", "integer"),
        ({"replicas": 1.5}, "spec.replicas", "integer"),
        ({"replicas": True}, "spec.replicas", "integer"),
        ({"imagee": "a"}, "spec.imagee", "is not a known field"),
        ({"resources": {"limits": {"memory": "1Q"}}}, "spec.resources.limits.memory_bytes", "is not a size"),
        ({"resources": {"limits": {"memory": -1}}}, "spec.resources.limits.memory_bytes", "greater"),
        ({"resources": {"limits": {"memory": 2**60}}}, "spec.resources.limits.memory_bytes", "less"),
        ({"resources": {"limits": {"memory": "1Mi"}}}, "spec.resources.limits.memory_bytes", "at least 6Mi"),
        (
            {"resources": {"limits": {"storage": "1Gi"}}},
            "spec.resources.limits.storage_bytes",
            "not supported yet",
        ),
        (
            {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}},
            "spec.resources.requests.cpu_millicores",
            "2 is above limits.cpu_millicores (1)",
        ),
        ({"resources": {"requests": {"cpu": 1, "cpu_millicores": 5}}}, "spec.resources.requests", "not both"),
        ({"env": {"A=B": "x"}}, "spec.env.A=B", "letters"),
        ({"env": {"A": "x\0"}}, "spec.env.A", "NUL"),
        ({"env": {"A": 1}}, "spec.env.A", "string"),
        ({"env": {"A": "x" * 200_000}}, "spec.env", "at most 131072"),
        ({"command": ["a\0b"]}, "spec.command[0]", "NUL"),
        ({"command": "sh -c"}, "spec.command", "must be a list"),
        ({"working_dir": "app"}, "spec.working_dir", "absolute path"),
        ({"working_dir": "/a/../../etc"}, "spec.working_dir", "'..'"),
        ({"stop_grace_period": "soon"}, "spec.stop_grace_period", "is not a duration"),
        ({"stop_grace_period": "-1s"}, "spec.stop_grace_period", "is not a duration"),
        ({"stop_grace_period": "400d"}, "spec.stop_grace_period", "366 days"),
        ({"stop_grace_period": 5}, "spec.stop_grace_period", "must be a duration"),
        ({"stop_signal": "SIGFOO"}, "spec.stop_signal", "is not a signal"),
        ({"image_pull_policy": "Sometimes"}, "spec.image_pull_policy", "must be one of"),
        ({"runtime_class_name": "../runc"}, "spec.runtime_class_name", "match"),
        ({"ports": [port(0)]}, "spec.ports[0].container_port", "greater"),
        ({"ports": [port(70000)]}, "spec.ports[0].container_port", "less"),
        ({"ports": [port(80), port(81, host_port=-1)]}, "spec.ports[1].host_port", "greater"),
        ({"ports": [port(80, host_address="::1")]}, "spec.ports[0].host_address", "IPv4"),
        ({"ports": [port(80, protocol="SCTP")]}, "spec.ports[0].protocol", "one of"),
        ({"ports": [port(80, name="Web")]}, "spec.ports[0].name", "lower-case"),
        ({"ports": [port(80), port(80)]}, "spec.ports", "container_port 80:TCP is given twice"),
        ({"ports": [port(80, name="a"), port(81, name="a")]}, "spec.ports", "name a is given twice"),
        (
            {"ports": [port(80, host_port=9), port(81, host_port=9)]},
            "spec.ports",
            "host_port 127.0.0.1:9/tcp is given twice",
        ),
        (
            {"ports": [port(80, host_port=81)], "security_context": {"host_network": True}},
            "spec.ports",
            "host_port must equal container_port",
        ),
        ({"volumes": [{"name": "a", "mount_path": "/a"}]}, "spec.volumes[0]", "exactly one of"),
        (
            {"volumes": [{"name": "a", "mount_path": "/a", "tmpfs": {}, "empty_dir": {}}]},
            "spec.volumes[0]",
            "tmpfs given",
        ),
        (
            {"volumes": [{"name": "a", "mount_path": "/proc", "tmpfs": {}}]},
            "spec.volumes[0].mount_path",
            "own system",
        ),
        (
            {"volumes": [{"name": "a", "mount_path": "/proc/sys", "tmpfs": {}}]},
            "spec.volumes[0].mount_path",
            "belongs to the container's own system",
        ),
        (
            {"volumes": [{"name": "a", "mount_path": "//sys//fs/cgroup/", "tmpfs": {}}]},
            "spec.volumes[0].mount_path",
            "belongs to the container's own system",
        ),
        (
            {"volumes": [{"name": "a", "mount_path": "/a", "host_path": {"path": "/a/../b"}}]},
            "spec.volumes[0].host_path.path",
            "'..'",
        ),
        (
            {"volumes": [{"name": n, "mount_path": "/a", "tmpfs": {}} for n in "ab"]},
            "spec.volumes",
            "mount_path /a is given twice",
        ),
        (
            {"volumes": [{"name": "a", "mount_path": f"/{n}", "tmpfs": {}} for n in "ab"]},
            "spec.volumes",
            "name a is given twice",
        ),
        ({"liveness_probe": {}}, "spec.liveness_probe", "exactly one of"),
        (
            {"readiness_probe": {"tcp": {"port": 1}, "http": {"port": 2}}},
            "spec.readiness_probe",
            "http, tcp given",
        ),
        ({"readiness_probe": {"tcp": {"port": 1}, "period": "1ms"}}, "spec.readiness_probe.period", "100ms"),
        (
            {"readiness_probe": {"tcp": {"port": 1}, "timeout": "0s"}},
            "spec.readiness_probe.timeout",
            "above 0",
        ),
        ({"readiness_probe": {"http": {"port": 1, "path": "x"}}}, "spec.readiness_probe.http.path", "match"),
        (
            {"readiness_probe": {"http": {"port": 1, "headers": {"A": "b\r\nC: d"}}}},
            "spec.readiness_probe.http.headers.A",
            "match",
        ),
        ({"readiness_probe": {"exec": {"command": []}}}, "spec.readiness_probe.exec.command", "at least 1"),
        (
            {"liveness_probe": {"tcp": {"port": 1}, "success_threshold": 2}},
            "spec.liveness_probe",
            "success_threshold must be 1",
        ),
        (
            {"liveness_probe": {"tcp": {"port": 1}}, "restart_policy": {"policy": "NEVER"}},
            "spec.liveness_probe",
            "forbids",
        ),
        (
            {"restart_policy": {"policy": "NEVER", "max_retries": 3}},
            "spec.restart_policy.max_retries",
            "no meaning with policy NEVER",
        ),
        ({"restart_policy": {"max_retries": -1}}, "spec.restart_policy.max_retries", "greater"),
        ({"rollout": {"strategy": "BLUE"}}, "spec.rollout.strategy", "must be one of"),
        (
            {"rollout": {"strategy": "BLUE_GREEN", "max_surge": "1"}},
            "spec.rollout.max_surge",
            "no meaning with BLUE_GREEN",
        ),
        ({"rollout": {"steps": [{"weight": 5}]}}, "spec.rollout.steps", "no meaning with ROLLING_UPDATE"),
        (
            {"rollout": {"strategy": "CANARY", "steps": [{"weight": 101}]}},
            "spec.rollout.steps[0].weight",
            "less than or equal to 100",
        ),
        ({"rollout": {"max_surge": "101%"}}, "spec.rollout.max_surge", "a count such as 2"),
        ({"rollout": {"max_surge": "\u0661"}}, "spec.rollout.max_surge", "a count such as 2"),
        ({"rollout": {"max_surge": "-1"}}, "spec.rollout.max_surge", "a count such as 2"),
        (
            {"rollout": {"max_surge": "0", "max_unavailable": "0%"}},
            "spec.rollout.max_unavailable",
            "must be above 0 when max_surge is 0",
        ),
        (
            {"rollout": {"strategy": "RECREATE", "max_surge": "1"}},
            "spec.rollout.max_surge",
            "has no meaning with RECREATE",
        ),
        (
            {"rollout": {"progress_deadline": "1s", "min_ready_time": "1s"}},
            "spec.rollout.progress_deadline",
            "must be above min_ready_time",
        ),
        ({"security_context": {"run_as_user": -1}}, "spec.security_context.run_as_user", "greater"),
        ({"security_context": {"run_as_user": 2**31}}, "spec.security_context.run_as_user", "less"),
        (
            {"security_context": {"run_as_non_root": True, "run_as_user": 0}},
            "spec.security_context.run_as_user",
            "0 is root",
        ),
        (
            {"security_context": {"capabilities_add": ["FLY"]}},
            "spec.security_context.capabilities_add",
            "'FLY' is not a capability",
        ),
        (
            {"security_context": {"sysctls": {"kernel.panic": "1"}}},
            "spec.security_context.sysctls",
            "not private to a container",
        ),
        (
            {"security_context": {"sysctls": {"kernel.shmmax": "1"}, "host_ipc": True}},
            "spec.security_context.sysctls",
            "because of host_ipc",
        ),
        (
            {"security_context": {"sysctls": {"net.core.somaxconn": "1"}, "host_network": True}},
            "spec.security_context.sysctls",
            "would change the node",
        ),
        (
            {"security_context": {"seccomp_profile": {"type": "LOCALHOST"}}},
            "spec.security_context.seccomp_profile.localhost_profile",
            "goes with type LOCALHOST",
        ),
        (
            {"security_context": {"seccomp_profile": {"type": "LOCALHOST", "localhost_profile": "../a"}}},
            "spec.security_context.seccomp_profile.localhost_profile",
            "match",
        ),
        ({"placement": {"affinity": [{"selector": "a=b="}]}}, "spec.placement.affinity[0].selector", "must"),
        ({"placement": {"zones": ["a b"]}}, "spec.placement.zones[0]", "match"),
        (
            {"placement": {"spread_topology": [{"topology": "rack"}]}},
            "spec.placement.spread_topology[0].topology",
            "'node'",
        ),
        ({"pull_secrets": [{"server": ""}]}, "spec.pull_secrets[0].server", "at least 1"),
    ],
)
def test_each_refusal_names_its_field(fields: dict[str, Any], path: str, part: str) -> None:
    found = refuse(**fields)
    assert path in found
    assert part in found[path]


def test_a_flood_is_refused_soon_and_listed_shortly() -> None:
    begun = time.process_time()
    assert "spec.env" in refuse(env={f"A{number}": "" for number in range(100_000)})
    assert "spec.ports" in refuse(ports=[port(80)] * 100_000)
    assert "spec.command" in refuse(command=["a"] * 100_000)
    with pytest.raises(ValidationError) as caught:
        WorkloadSpec.model_validate({"image": "a", **{f"x{number}": 1 for number in range(100)}})
    assert len(violations_of(caught.value)) == MAX_VIOLATIONS
    assert time.process_time() - begun < 30  # seconds instead of minutes: a bound against blow-up


def test_a_password_is_not_shown() -> None:
    spec = WorkloadSpec.model_validate(
        {"image": "a", "pull_secrets": [{"server": "r", "password": "hunter2"}]}
    )
    assert "hunter2" not in repr(spec)


def test_models_are_frozen() -> None:
    spec = WorkloadSpec(image="a")
    with pytest.raises(ValidationError, match="frozen"):
        spec.image = "b"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        spec.restart_policy.policy = RestartPolicyName.NEVER  # type: ignore[misc]


@pytest.mark.parametrize("text", ["Always", "ALWAYS", "always"])
def test_enums_are_read_in_the_usual_spellings(text: str) -> None:
    spec = WorkloadSpec.model_validate({"image": "a", "image_pull_policy": text})
    assert spec.image_pull_policy is ImagePullPolicy.ALWAYS
    given = {"image": "a", "restart_policy": {"policy": "OnFailure"}, "image_pull_policy": "IfNotPresent"}
    assert WorkloadSpec.model_validate(given).restart_policy.policy is RestartPolicyName.ON_FAILURE


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "ALWAYS"),
        ("a:latest", "ALWAYS"),
        ("host:5000/a", "ALWAYS"),
        ("a:1", "IF_NOT_PRESENT"),
        ("a@sha256:" + "0" * 64, "IF_NOT_PRESENT"),
    ],
)
def test_default_pull_policy(image: str, policy: str) -> None:
    assert WorkloadSpec(image=image).pull_policy == policy


@given(st.integers(0, 100), st.integers(0, 10_000))
def test_percentages(share: int, total: int) -> None:
    up, down = (resolve_count(f"{share}%", total, round_up=way) for way in (True, False))
    assert down <= share * total / 100 <= up <= down + 1
    assert resolve_count(str(share), total, round_up=True) == share


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
amounts = st.fixed_dictionaries(
    {},
    optional={"cpu": st.integers(0, 64), "memory": st.integers(0, 2**40), "storage": st.integers(0, 2**40)},
)
probe = st.one_of(
    st.builds(lambda number: {"tcp": {"port": number}}, st.integers(1, 65535)),
    st.builds(lambda number: {"http": {"port": number, "path": "/x"}}, st.integers(1, 65535)),
    st.builds(lambda words: {"exec": {"command": words}}, st.lists(text, min_size=1, max_size=3)),
)
specs = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "a:1", "host:5000/a/b:2@sha256:" + "a" * 64])},
    optional={
        "command": st.lists(text, max_size=3),
        "env": st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), text, max_size=4),
        "replicas": st.integers(0, 10_000),
        "resources": st.fixed_dictionaries({}, optional={"requests": amounts}),
        "ports": st.lists(
            st.integers(1, 65535).map(lambda number: {"container_port": number}),
            max_size=4,
            unique_by=lambda one: one["container_port"],
        ),
        "readiness_probe": probe,
        "stop_grace_period": st.timedeltas(
            min_value=datetime.timedelta(0),
            max_value=datetime.timedelta(days=366),
        ),
        "placement": st.fixed_dictionaries(
            {},
            optional={
                "zones": st.lists(label, max_size=3),
                "node_selector": st.dictionaries(label, label, max_size=3),
            },
        ),
        "rollout": st.fixed_dictionaries(
            {},
            optional={
                "max_surge": st.integers(1, 99999),
                "max_unavailable": st.sampled_from(["0", "5%", "100%"]),
            },
        ),
        "security_context": st.fixed_dictionaries({}, optional={"run_as_user": st.integers(0, 2**31 - 1)}),
    },
)


@given(specs)
def test_json_round_trip(given_spec: dict[str, Any]) -> None:
    spec = WorkloadSpec.model_validate(given_spec)
    again = WorkloadSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.template_hash == spec.template_hash
    assert WorkloadSpec.model_validate(spec.model_dump(mode="json", exclude_defaults=True)) == spec


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*WorkloadSpec.model_fields, "x"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_no_input_breaks_the_validation(data: Any) -> None:
    caught = None
    try:
        WorkloadSpec.model_validate(data)
    except ValidationError as error:
        caught = error
    assert caught is None or all(what for _, what in violations_of(caught, "spec"))


def test_a_port_by_keyword() -> None:
    assert Port(container_port=80).host_address == "127.0.0.1"
