"""What nobody should send: refused with the field's name, and nothing is half done."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served
from tests.integration.program.test_lifecycle import manifest

import cloudless
from cloudless import api

#: What a manifest says, and what the answer names.
BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "../x"}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"name": "x" * 300}, "name"),
    ({"name": "Web"}, "name"),
    ({"name": ""}, "name"),
    ({"namespace": "../x"}, "namespace"),
    ({"image": ""}, "image"),
    ({"image": "team/UPPER:1"}, "image"),
    ({"image": "a b"}, "image"),
    ({"image": "x@sha256:12"}, "image"),
    ({"replicas": -1}, "replicas"),
    ({"replicas": 10**9}, "replicas"),
    ({"replicas": "many"}, "replicas"),
    ({"replica": 2}, "replica"),
    ({"env": {"A=B": "1"}}, "env"),
    ({"env": {f"V{n}": "x" for n in range(100_000)}}, "larger"),
    ({"args": ["x" * (2 * 1024 * 1024)]}, "larger"),
    ({"ports": [{"container_port": 80}, {"container_port": 80}]}, "ports"),
    ({"ports": [{"container_port": 0}]}, "container_port"),
    ({"ports": [{"container_port": 80, "host_port": 70000}]}, "host_port"),
    ({"volumes": [{"mount_path": "/data"}]}, "volumes"),
    ({"volumes": [{"mount_path": "data", "tmpfs": {}}]}, "mount_path"),
    ({"volumes": [{"name": "v", "mount_path": "/data", "host_path": {"path": "../etc"}}]}, "host_path"),
    ({"stop_grace_period": "soon"}, "stop_grace_period"),
    ({"stop_grace_period": "-1s"}, "stop_grace_period"),
    ({"resources": {"limits": {"memory": "lots"}}}, "memory"),
    ({"resources": {"limits": {"cpu": "-1"}}}, "cpu"),
    ({"rollout": {"strategy": "BLUE"}}, "strategy"),
    ({"security_context": {"run_as_user": -1}}, "run_as_user"),
    ({"readiness_probe": {"period": "1s"}}, "readiness_probe"),
]


@pytest.mark.parametrize(("fields", "named"), BAD, ids=lambda value: str(value)[:40])
def test_manifests(program: Served, fields: dict[str, Any], named: str) -> None:
    text = manifest(**{"name": "bad", **fields})
    result = program.cli("apply", "-f", "-", "--no-wait", stdin=text, code=None)
    assert result.code in (1, 2), result
    assert result.err.startswith("error: ")
    assert named in result.err
    assert len(result.err) < 4000, "an error is for people"
    assert nothing_there(program)


def nothing_there(program: Served) -> bool:
    return not program.cli("get", "workloads", "-A", "-o", "json").json["items"]


def spec(**fields: Any) -> api.WorkloadSpec:
    return api.WorkloadSpec(image=IMAGE, command=["sleep", "1000"], **fields)


#: The same past the command line's own checks: straight to the coordinator.
RAW: list[tuple[api.CreateWorkloadRequest, str]] = [
    (api.CreateWorkloadRequest(name="web"), "spec"),
    (api.CreateWorkloadRequest(name="web", spec=api.WorkloadSpec()), "spec.image"),
    (api.CreateWorkloadRequest(name="../x", spec=spec()), "name"),
    (api.CreateWorkloadRequest(name="x\0", spec=spec()), "name"),
    (api.CreateWorkloadRequest(name="x" * 300, spec=spec()), "name"),
    (api.CreateWorkloadRequest(name="Web", spec=spec()), "name"),
    (api.CreateWorkloadRequest(name="web", namespace="no/no", spec=spec()), "namespace"),
    (api.CreateWorkloadRequest(name="web", spec=spec(replicas=-1)), "spec.replicas"),
    (api.CreateWorkloadRequest(name="web", spec=spec(replicas=2**31 - 1)), "spec.replicas"),
    (api.CreateWorkloadRequest(name="web", spec=spec(env={f"V{n}": "" for n in range(50_000)})), "spec.env"),
    (
        api.CreateWorkloadRequest(
            name="web", spec=spec(ports=[api.Port(container_port=80), api.Port(container_port=80)])
        ),
        "spec.ports",
    ),
    (
        api.CreateWorkloadRequest(name="web", spec=spec(volumes=[api.Volume(name="v", mount_path="/data")])),
        "spec.volumes[0]",
    ),
    (api.CreateWorkloadRequest(name="web", spec=spec(), labels={"a b": "c"}), "labels"),
    (api.CreateWorkloadRequest(name="web", spec=spec(), request_id="x" * 10_000), "request_id"),
]


@pytest.mark.parametrize(("request_", "named"), RAW, ids=lambda value: str(value)[:60])
async def test_calls(program: Served, request_: api.CreateWorkloadRequest, named: str) -> None:
    async with program.client() as client:
        with pytest.raises(cloudless.CloudlessError) as caught:
            await client._call.unary(client._stub.create_workload, request_)
        assert isinstance(caught.value, cloudless.Invalid), caught.value
        paths = [violation.path for violation in caught.value.violations]
        # What is refused while it is decoded has the path in its text.
        assert any(path.startswith(named) for path in paths or [str(caught.value)]), caught.value
        assert len(str(caught.value)) < 4000
        assert not await client.list()


@pytest.mark.parametrize(
    "env",
    [{"A": "x" * (2 * 1024 * 1024)}, {f"V{n}": "" for n in range(100_000)}],
    ids=["2 MiB", "10^5 entries"],
)
async def test_more_than_a_message_may_hold(program: Served, env: dict[str, str]) -> None:
    async with program.client() as client:
        request = api.CreateWorkloadRequest(name="web", spec=spec(env=env))
        with pytest.raises(cloudless.CloudlessError, match="bytes") as caught:
            await client._call.unary(client._stub.create_workload, request)
        assert caught.value.code == "CL-4290", caught.value.code
        assert not await client.list()


def test_files_that_are_no_manifests(program: Served) -> None:
    for text, named in (
        ("{", ":1"),
        ("kind: Workload\nname: web\nimage: a\n  b: c\n", ":"),
        ("kind: Pod\nname: web\n", "kind"),
        ("", ""),
        ("\x00\x01", ""),
        (json.dumps([1, 2]), ""),
    ):
        result = program.cli("apply", "-f", "-", stdin=text, code=None)
        assert result.code in (1, 2), (text, result)
        assert named in result.err
    assert program.cli("apply", "-f", "/no/such/file", code=None).code in (1, 2, 5)


def test_several_files_are_all_or_nothing(program: Served) -> None:
    text = manifest(name="good") + "\n---\n" + manifest(name="Bad")
    assert ":3:" in program.cli("apply", "-f", "-", stdin=text, code=None).err
    assert nothing_there(program)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("get", "workload", "nobody"), 5),
        (("scale", "nobody", "2"), 5),
        (("delete", "nobody"), 5),
        (("logs", "nobody"), 5),
        (("exec", "nobody", "--", "true"), 125),
        (("update", "nobody", "--image", "x:1"), 5),
        (("scale", "nobody", "-1"), 1),
        (("frobnicate",), 2),
        (("get", "workloads", "-o", "nonsense"), 2),
        (("get", "workloads", "-l", "a in ("), 1),
    ],
)
def test_command_lines(program: Served, words: tuple[str, ...], code: int) -> None:
    result = program.cli(*words, code=code)
    assert result.err.startswith(("error: ", "usage: ")), result.err


def test_a_command_that_is_not_in_the_image(tidy: Served) -> None:
    result = tidy.cli("run", "web", IMAGE, "--", "/bin/nonexistent", code=3)
    assert "command not found: /bin/nonexistent" in result.err
    (replica,) = tidy.replicas("web")
    assert replica["last_exit"]["code"] == 127
    assert "command not found: /bin/nonexistent" in tidy.cli("events").out
    assert "command not found: /bin/nonexistent" in tidy.cli("describe", "workload", "web").out


def test_a_program_that_ends_at_once(tidy: Served) -> None:
    result = tidy.cli("run", "web", IMAGE, "--", "sh", "-c", "echo giving up; exit 3", code=3)
    assert "exit code 3" in result.err
    assert "| giving up" in result.err


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        ("nope.invalid/none:1", "no such host nope.invalid"),
        ("127.0.0.1:1/none:1", "127.0.0.1:1: connection refused"),
    ],
)
def test_images_that_do_not_come(tidy: Served, image: str, cause: str) -> None:
    result = tidy.cli("run", "web", image, code=3)
    assert f"cannot pull {image}: {cause}" in result.err
    lines = result.err.splitlines()
    assert len(lines) == len(set(lines)), "no line is told twice"
    events = tidy.cli("events").out.splitlines()
    warnings = [line for line in events if "Warning" in line and "replica/web" in line and image in line]
    assert len(warnings) == 1
