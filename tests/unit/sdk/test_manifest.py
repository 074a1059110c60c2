"""Good files: both forms, JSON, folders; and out is in, for every specification."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import cloudless
from cloudless.domain.workload import WorkloadSpec
from cloudless.sdk.manifest.editing import put
from cloudless.sdk.manifest.files import read_paths
from cloudless.sdk.manifest.reading import read_text
from cloudless.sdk.manifest.schema import manifest_schema
from cloudless.sdk.manifest.writing import dump_yaml, manifest_of
from cloudless.wire.spec import spec_from_wire, spec_to_wire

EXAMPLE = """
kind: Workload
name: web
image: 127.0.0.1:5000/web:1.4
replicas: 3
ports: [{container_port: 80, publish: 8088}]
resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 128Mi}}
readiness_probe: {http: {path: /, port: 80}, period: 1s}
rollout: {strategy: ROLLING_UPDATE, max_surge: 1, max_unavailable: 0}
"""
LONG = """
kind: Workload
namespace: shop
name: web
labels: {app: web}
status: {whatever: the coordinator wrote}
generation: 4
spec:
  image: web:1.4
  env: {ANSWER: "42", NOT_A_BOOL: "no"}
"""


def only(text: str):
    (manifest,) = read_text(text, "test.yaml")
    return manifest


def test_the_short_form():
    manifest = only(EXAMPLE)
    spec = manifest.workload.spec
    assert manifest.place == "test.yaml:2"
    assert (spec.replicas, spec.ports[0].publish, spec.rollout.max_surge) == (3, 8088, "1")
    assert spec.resources.requests.cpu_millicores == 100
    assert spec.resources.limits.memory_bytes == 128 * 2**20


def test_the_long_form_with_what_the_coordinator_wrote():
    workload = only(LONG).workload
    assert (workload.namespace, workload.labels) == ("shop", {"app": "web"})
    assert workload.spec.env == {"ANSWER": "42", "NOT_A_BOOL": "no"}


def test_yaml_is_version_1_2():
    spec = only(
        EXAMPLE + "env: {A: no, B: '22', C: 22:22, D: 0777x, E: 2026-01-02}\nargs: [off, 1_000, ~x]\n"
    ).workload.spec
    assert spec.env == {"A": "no", "B": "22", "C": "22:22", "D": "0777x", "E": "2026-01-02"}
    assert spec.args == ("off", "1_000", "~x")


def test_aliases_are_allowed():
    spec = only(
        EXAMPLE.replace("web:1.4", "web") + "liveness_probe: &p {tcp: {port: 80}}\nstartup_probe: *p\n"
    ).workload.spec
    assert spec.liveness_probe == spec.startup_probe


def test_json_with_tabs_and_two_part_escapes(tmp_path):
    path = tmp_path / "web.json"
    path.write_text(
        '{"kind": "Workload",\n\t"name": "web",\t"image": "a\\/b", "env": {"S": "\\ud83d\\ude00 \\u00fc"}}'
    )
    (manifest,) = read_paths([str(path)])
    assert manifest.workload.spec.image == "a/b"
    assert manifest.workload.spec.env == {"S": "\U0001f600 ü"}


def test_a_list_as_get_prints_it():
    whole = {"items": [{"kind": "Workload", "name": name, "spec": {"image": "x"}} for name in ("a", "b")]}
    found = list(read_text(json.dumps(whole), "x"))
    assert [manifest.workload.name for manifest in found] == ["a", "b"]


def test_folders_and_standard_input(tmp_path):
    (tmp_path / "b.yml").write_text(EXAMPLE)
    (tmp_path / "a.yaml").write_text(EXAMPLE.replace("name: web", "name: api") + "---\n" + LONG)
    (tmp_path / "notes.txt").write_text("not read")
    found = read_paths([str(tmp_path)])
    assert [manifest.workload.name for manifest in found] == ["api", "web", "web"]
    piped = read_paths(["-"], io.BytesIO(b"\xef\xbb\xbf" + EXAMPLE.encode()))
    assert piped[0].place == "standard input:2"


def test_the_context_it_is_pinned_to():
    assert only(EXAMPLE + "context: prod\n").context == "prod"


# Out is in.

texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
durations = st.integers(0, 10**9).map(lambda ms: f"{ms}ms")
ports = st.integers(1, 65535)
amounts = st.fixed_dictionaries(
    {}, optional={"cpu_millicores": st.integers(0, 10**6), "storage_bytes": st.integers(0, 2**50)}
)
probes = st.one_of(
    st.fixed_dictionaries({"tcp": st.fixed_dictionaries({"port": ports})}),
    st.fixed_dictionaries(
        {"exec": st.fixed_dictionaries({"command": st.lists(texts, min_size=1, max_size=3)})}
    ),
    st.fixed_dictionaries(
        {"http": st.fixed_dictionaries({"port": ports}, optional={"headers": st.just({"X-A": "b"})})},
        optional={
            "period": st.integers(100, 10**6).map(lambda ms: f"{ms}ms"),
            "failure_threshold": st.integers(1, 9),
        },
    ),
)
counts = st.one_of(st.integers(0, 99).map(str), st.integers(0, 100).map(lambda n: f"{n}%"))
volumes = st.builds(
    lambda name, source: {"name": name, "mount_path": f"/{name}", **source},
    names,
    st.sampled_from(
        [
            {"tmpfs": {}},
            {"empty_dir": {"size_bytes": 1500}},
            {"empty_dir": {}},
            {"host_path": {"path": "/srv"}},
        ]
    ),
)
specs = st.fixed_dictionaries(
    {"image": st.sampled_from(["web", "web:1.4", "h:5000/a/b@sha256:" + "0" * 64])},
    optional={
        "command": st.lists(texts, max_size=3),
        "args": st.lists(texts, max_size=3),
        "env": st.dictionaries(
            st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,9}", fullmatch=True), texts, max_size=4
        ),
        "working_dir": st.just("/srv/app"),
        "replicas": st.integers(0, 10000),
        "resources": st.fixed_dictionaries({"requests": amounts}),
        "placement": st.fixed_dictionaries(
            {},
            optional={
                "regions": st.lists(names, max_size=2),
                "node_selector": st.dictionaries(names, names, max_size=2),
                "affinity": st.lists(
                    st.fixed_dictionaries(
                        {"selector": st.just("app=web")}, optional={"required": st.booleans()}
                    ),
                    max_size=2,
                ),
                "tolerations": st.lists(st.fixed_dictionaries({}, optional={"key": names}), max_size=2),
            },
        ),
        "restart_policy": st.fixed_dictionaries(
            {"policy": st.sampled_from(["ALWAYS", "ON_FAILURE"])},
            optional={
                "max_retries": st.integers(0, 99),
                "backoff": st.fixed_dictionaries({"base": durations}),
            },
        ),
        "rollout": st.fixed_dictionaries({}, optional={"max_surge": counts, "max_unavailable": counts}),
        "volumes": st.lists(volumes, max_size=3, unique_by=lambda volume: volume["name"]),
        "ports": st.lists(
            st.fixed_dictionaries({"container_port": ports}, optional={"protocol": st.just("UDP")}),
            max_size=3,
            unique_by=lambda port: port["container_port"],
        ),
        "liveness_probe": probes,
        "readiness_probe": probes,
        "startup_probe": probes,
        "stop_grace_period": durations,
        "stop_signal": st.sampled_from(["SIGINT", "SIGTERM"]),
        "image_pull_policy": st.sampled_from(["ALWAYS", "NEVER"]),
        "security_context": st.fixed_dictionaries(
            {},
            optional={
                "run_as_user": st.integers(0, 9999),
                "no_new_privileges": st.booleans(),
                "read_only_root_filesystem": st.booleans(),
                "capabilities_add": st.lists(st.sampled_from(["CHOWN", "NET_RAW"]), max_size=2),
            },
        ),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs, st.dictionaries(names, names, max_size=2), st.dictionaries(texts, texts, max_size=2))
def test_out_is_in(fields, labels, annotations):
    try:
        spec = WorkloadSpec.model_validate(fields)
    except ValidationError:
        return
    spec = spec_from_wire(spec_to_wire(spec))
    before = cloudless.Workload("web", labels=labels, annotations=annotations, spec=spec)
    after = only(dump_yaml(manifest_of(before))).workload
    assert after.spec == spec
    assert (after.labels, after.annotations) == (before.labels, before.annotations)
    assert after.message.spec == before.message.spec


# The schema.

VALIDATOR = jsonschema.Draft7Validator(manifest_schema())


def values(text: str):
    from cloudless.sdk.manifest.located import read_documents

    (document,) = read_documents(text, "x")
    return document.value


def test_the_schema_is_draft_7():
    jsonschema.Draft7Validator.check_schema(manifest_schema())


@pytest.mark.parametrize("text", [EXAMPLE, LONG])
def test_the_schema_takes_the_examples(text):
    assert [error.message for error in VALIDATOR.iter_errors(values(text))] == []


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs)
def test_the_schema_takes_what_is_written(fields):
    try:
        spec = WorkloadSpec.model_validate(fields)
    except ValidationError:
        return
    VALIDATOR.validate(manifest_of(cloudless.Workload("web", spec=spec)))


@pytest.mark.parametrize(
    "change",
    [
        "replcias: 3",
        "replicas: -1",
        "replicas: '3'",
        "ports: [{container_port: 70000}]",
        "ports: [{host_port: 1}]",
        "readiness_probe: {tcp: {port: 1}, period: soon}",
        "readiness_probe: {tcp: {port: 1}, http: {port: 1}}",
        "readiness_probe: {period: 1s}",
        "rollout: {max_surge: lots}",
        "resources: {limits: {memory: 64MB}}",
        "resources: {limits: {cpu: fast}}",
        "restart_policy: {policy: SOMETIMES}",
        "env: {PORT: 8080}",
        "stop_grace_period: 30",
    ],
)
def test_the_schema_refuses_mistakes(change):
    document = values(f"kind: Workload\nname: web\nimage: web:1\n{change}\n")
    assert not VALIDATOR.is_valid(document)
    long = {"kind": "Workload", "name": "web"} | {
        "spec": {k: v for k, v in document.items() if k not in ("kind", "name")}
    }
    assert not VALIDATOR.is_valid(long)


@pytest.mark.parametrize(
    "text",
    ["kind: Pod\nname: a\nimage: b\n", "kind: Workload\nimage: b\n", "kind: Workload\nname: A\nimage: b\n"],
)
def test_the_schema_refuses_wrong_heads(text):
    assert not VALIDATOR.is_valid(values(text))


# Single fields.


def test_put():
    spec = {"image": "a", "ports": [{"container_port": 80}], "resources": {"limits": {"memory_bytes": 5}}}
    assert put(spec, "rollout.max_surge", "2") == "rollout"
    assert put(spec, "ports[0].host_port", "8080") == "ports"
    assert put(spec, "resources.limits.memory", "64Mi") == "resources"
    assert put(spec, "env.A", "'1'") == "env"
    assert put(spec, "placement.node_selector[example.com/disk]", "ssd") == "placement"
    assert put(spec, "image", "") == "image"
    assert spec == {
        "ports": [{"container_port": 80, "host_port": 8080}],
        "rollout": {"max_surge": 2},
        "resources": {"limits": {"memory": "64Mi"}},
        "env": {"A": "1"},
        "placement": {"node_selector": {"example.com/disk": "ssd"}},
    }


@pytest.mark.parametrize("path", ["", ".", "a..b", "a[", "[0]", "image.x", "ports[5].x", "x" * 600])
def test_put_refuses_paths_that_are_none(path):
    with pytest.raises(cloudless.Invalid):
        put({"image": "a", "ports": []}, path, "1")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, cloudless;"
        "heavy = {'asyncio', 'pydantic', 'grpclib', 'betterproto2', 'ruamel', 'cloudless.sdk'};"
        "found = heavy & set(sys.modules); assert not found, found;"
        "assert cloudless.NotFound.__name__ == 'NotFound'; assert 'connect' in dir(cloudless)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src", "PATH": "/usr/bin"})
