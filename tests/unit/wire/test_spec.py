"""Specifications survive the wire, and nothing on the wire is ignored."""

from __future__ import annotations

import dataclasses
from typing import Any

import betterproto2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless import api
from cloudless.domain import workload as models
from cloudless.domain.errors import Invalid
from cloudless.wire.spec import spec_from_wire, spec_to_wire

FULL: dict[str, Any] = {
    "image": "registry:5000/team/web:1.4",
    "command": ["/bin/web"],
    "args": ["--port", "80"],
    "env": {"MODE": "fast", "EMPTY": ""},
    "working_dir": "/srv",
    "stdin": True,
    "tty": True,
    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
    "replicas": 0,
    "placement": {
        "regions": ["eu"],
        "zones": ["a", "b"],
        "node_selector": {"disk": "ssd"},
        "affinity": [{"selector": "app=db", "topology": "zone", "weight": 7}],
        "anti_affinity": [{"selector": "app=web", "required": True}],
        "tolerations": [{"key": "gpu", "effect": "no_schedule"}],
        "spread_topology": [{"topology": "node", "max_skew": 2}],
    },
    "restart_policy": {"policy": "OnFailure", "max_retries": 0, "backoff": {"base": "0s", "cap": "1m"}},
    "rollout": {
        "max_surge": 1,
        "max_unavailable": "0%",
        "min_available": 2,
        "min_ready_time": "5s",
        "drain_time": "0s",
    },
    "volumes": [
        {"name": "data", "mount_path": "/data", "host_path": {"path": "/srv/data"}, "read_only": True},
        {"name": "cache", "mount_path": "/cache", "empty_dir": {}},
        {"name": "run", "mount_path": "/run/app", "tmpfs": {"size_bytes": "16Mi"}},
    ],
    "ports": [
        {"name": "http", "container_port": 80, "host_port": 8088},
        {"container_port": 53, "protocol": "udp", "publish": 5353, "publish_address": "0.0.0.0"},
    ],
    "liveness_probe": {"exec": {"command": ["true"]}},
    "readiness_probe": {"http": {"path": "/ready", "port": 80, "headers": {"X-Probe": "1"}}, "period": "1s"},
    "startup_probe": {"grpc": {"port": 9000, "service": "web"}, "failure_threshold": 30},
    "stop_grace_period": "0s",
    "stop_signal": "quit",
    "image_pull_policy": "IfNotPresent",
    "pull_secrets": [{"server": "registry:5000", "username": "u", "password": "p"}],
    "security_context": {
        "run_as_non_root": True,
        "run_as_user": 1000,
        "run_as_group": 0,
        "supplemental_groups": [7],
        "read_only_root_filesystem": True,
        "capabilities_add": ["NET_BIND_SERVICE"],
        "capabilities_drop": ["ALL"],
        "seccomp_profile": {"type": "Localhost", "localhost_profile": "web.json"},
        "apparmor_profile": "web",
        "no_new_privileges": False,
        "sysctls": {"net.core.somaxconn": "1024"},
    },
    "runtime_class_name": "runc",
}


def test_every_field_of_the_full_specification_survives() -> None:
    spec = models.WorkloadSpec.model_validate(FULL)
    assert set(FULL) == set(models.WorkloadSpec.model_fields), "the example must name every field"
    message = api.WorkloadSpec.parse(bytes(spec_to_wire(spec)))
    assert spec_from_wire(message) == spec


@pytest.mark.parametrize(
    "rollout",
    [
        {"strategy": "BLUE_GREEN", "auto_promote": True, "scale_down_delay": "0s", "bake_time": "5s"},
        {"strategy": "Canary", "steps": [{"weight": 5, "replicas": 2, "pause": {}}, {"replicas": "50%"}]},
        {"strategy": "CANARY", "steps": [{"weight": 5, "pause": {"duration": "0s"}}]},
        {"strategy": "RECREATE", "max_failures": 0, "auto_rollback": False},
        {"max_failures": 2, "auto_rollback": True},
    ],
)
def test_every_strategy_survives(rollout: dict[str, Any]) -> None:
    spec = models.WorkloadSpec.model_validate({"image": "a", "rollout": rollout})
    assert spec_from_wire(api.WorkloadSpec.parse(bytes(spec_to_wire(spec)))) == spec


@given(
    image=st.sampled_from(["a", "nginx:alpine", "h:5000/x/y@sha256:" + "0" * 64]),
    replicas=st.integers(0, models.MAX_REPLICAS),
    grace_ms=st.integers(0, 10_000_000),
    retries=st.none() | st.integers(0, 100),
    surge=st.integers(0, 99),
    user=st.none() | st.integers(0, 2**31 - 1),
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_any_specification_survives(
    image: str,
    replicas: int,
    grace_ms: int,
    retries: int | None,
    surge: int,
    user: int | None,
    env: dict[str, str],
) -> None:
    env = {name: value.replace("\0", "") for name, value in env.items()}
    spec = models.WorkloadSpec.model_validate(
        {
            "image": image,
            "replicas": replicas,
            "env": env,
            "stop_grace_period": f"{grace_ms}ms",
            "restart_policy": {"max_retries": retries},
            "rollout": {"max_surge": surge},
            "security_context": {"run_as_user": user},
        }
    )
    assert spec_from_wire(api.WorkloadSpec.parse(bytes(spec_to_wire(spec)))) == spec


def test_an_unset_field_takes_the_default_of_the_model() -> None:
    spec = spec_from_wire(api.WorkloadSpec(image="nginx"))
    assert spec == models.WorkloadSpec(image="nginx")
    assert spec.replicas == 1


@pytest.mark.parametrize(
    ("message", "path", "words"),
    [
        (api.WorkloadSpec(), "spec.image", "required"),
        (api.WorkloadSpec(image="Not An Image"), "spec.image", "not an image reference"),
        (api.WorkloadSpec(image="a", replicas=-1), "spec.replicas", "greater than or equal to 0"),
        (api.WorkloadSpec(image="a", replicas=2**31 - 1), "spec.replicas", "less than or equal to 10000"),
        (api.WorkloadSpec(image="a", ports=[api.Port()]), "spec.ports[0].container_port", "required"),
        (
            api.WorkloadSpec(image="a", image_pull_policy=api.ImagePullPolicy(9)),
            "spec.image_pull_policy",
            "must be one of",
        ),
        (
            api.WorkloadSpec(
                image="a",
                rollout=api.RolloutStrategy(
                    strategy=api.RolloutStrategyStrategy.CANARY, steps=[api.CanaryStep()]
                ),
            ),
            "spec.rollout.steps[0]",
            "needs a weight or replicas",
        ),
        (
            api.WorkloadSpec(image="a", volumes=[api.Volume(name="v", mount_path="/v")]),
            "spec.volumes[0]",
            "exactly one of",
        ),
        (api.WorkloadSpec(image="a", liveness_probe=api.Probe()), "spec.liveness_probe", "exactly one of"),
    ],
)
def test_what_is_wrong_is_named(message: api.WorkloadSpec, path: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        spec_from_wire(message)
    (violation,) = caught.value.violations
    assert violation.path == path
    assert words in violation.description


def test_a_field_from_the_future_is_refused_with_its_place() -> None:
    port = api.Port.parse(bytes(api.Port(container_port=80)) + b"\xf8\x3f\x01")  # field 1023
    with pytest.raises(Invalid) as caught:
        spec_from_wire(api.WorkloadSpec(image="a", ports=[port]))
    assert caught.value.violations[0].path == "spec.ports[0]"


def test_both_sides_have_the_same_fields_all_the_way_down() -> None:
    def walk(message: type[betterproto2.Message], model: Any) -> None:
        names = {field.name for field in dataclasses.fields(message)}
        assert names == set(model.model_fields), f"{message.__name__} and {model.__name__}"
        for name, kind in message._betterproto.cls_by_field.items():
            if "." not in name and isinstance(kind, type) and issubclass(kind, betterproto2.Message):
                inner = getattr(models, kind.__name__, None)
                if inner is not None:
                    walk(kind, inner)

    walk(api.WorkloadSpec, models.WorkloadSpec)
