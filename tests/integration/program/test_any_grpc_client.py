"""Calls from a client that knows nothing of us but reflection, as grpcurl does them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, until

COORDINATOR = "cloudless.api.CoordinatorService"
AGENT = "cloudless.api.AgentService"
DEADLINE_S = 20.0
SLEEPER = {"image": IMAGE, "command": ["sleep", "1000"], "stop_grace_period": "0s"}


class Reflected:
    """JSON in, JSON out, with messages built from what the server says of itself."""

    def __init__(self, address: str, version: str = "v1") -> None:
        self.channel = grpc.insecure_channel(address)
        self._pool = descriptor_pool.DescriptorPool()
        self._known: set[str] = set()
        self._ask = self.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )

    def services(self) -> list[str]:
        (answer,) = self._ask(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=DEADLINE_S
        )
        return [one.name for one in answer.list_services_response.service]

    def _learn(self, **wanted: str) -> None:
        (answer,) = self._ask(iter([reflection_pb2.ServerReflectionRequest(**wanted)]), timeout=DEADLINE_S)
        assert not answer.HasField("error_response"), answer
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(data)
            for data in answer.file_descriptor_response.file_descriptor_proto
        ]
        for file in files:
            if file.name not in self._known:
                self._known.add(file.name)
                for needed in file.dependency:
                    if needed not in self._known:
                        self._learn(file_by_filename=needed)
                self._pool.Add(file)

    def call(self, service: str, method: str, text: str) -> Iterator[dict[str, Any]]:
        """Every answer; the method may stream or not."""
        self._learn(file_containing_symbol=service)
        found = self._pool.FindServiceByName(service).methods_by_name[method]
        answer = message_factory.GetMessageClass(found.output_type)
        request = json_format.Parse(text, message_factory.GetMessageClass(found.input_type)())
        invoke = self.channel.unary_stream(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        for message in invoke(request, timeout=DEADLINE_S):
            yield json_format.MessageToDict(message, preserving_proto_field_name=True)

    def one(self, service: str, method: str, **fields: Any) -> dict[str, Any]:
        (answer,) = self.call(service, method, json.dumps(fields))
        return answer


@pytest.fixture(params=["v1", "v1alpha"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_services_are_listed(program: Served, version: str) -> None:
    assert {COORDINATOR, "grpc.health.v1.Health"} <= set(Reflected(program.address, version).services())
    assert AGENT in Reflected(program.agent_address, version).services()


def test_create_get_and_follow_logs(tidy: Served, version: str) -> None:
    coordinator, agent = Reflected(tidy.address, version), Reflected(tidy.agent_address, version)
    counting = ["sh", "-c", "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done"]
    spec = {"image": IMAGE, "replicas": 2, "command": counting, "stop_grace_period": "0s"}
    created = coordinator.one(COORDINATOR, "CreateWorkload", namespace="default", name="test", spec=spec)[
        "workload"
    ]
    assert (created["name"], created["spec"]["replicas"]) == ("test", 2)

    def get() -> dict[str, Any] | None:
        found = coordinator.one(COORDINATOR, "GetWorkload", namespace="default", name="test")["workload"]
        return found if found.get("status", {}).get("available_replicas") == 2 else None

    found = until(get, "two replicas are available")
    assert found["status"]["ready_replicas"] == 2
    containers = {one["container_id"] for one in found["status"]["replicas"]}
    assert containers == {one.container_id for one in tidy.running("test")}
    request = json.dumps({"container_id": containers.pop(), "follow": True})
    lines: list[str] = []
    for answer in agent.call(AGENT, "StreamLogs", request):
        lines.append(base64.b64decode(answer["line"]).decode().rstrip())
        if len(lines) == 5:
            break
    assert lines == [f"line {number}" for number in range(1, 6)]


def test_batches_of_logs(tidy: Served) -> None:
    coordinator = Reflected(tidy.address)
    spec = {"image": IMAGE, "replicas": 2, "command": ["sh", "-c", "echo one; echo two >&2; exec sleep 1000"]}
    coordinator.one(COORDINATOR, "CreateWorkload", namespace="default", name="test", spec=spec)
    until(lambda: len(tidy.running("test")) == 2, "both run")
    seen: dict[str, list[tuple[str, str]]] = {}
    sources: dict[str, int] = {}
    for batch in coordinator.call(COORDINATOR, "StreamLogs", json.dumps({"name": "test", "follow": True})):
        for chunk in batch.get("chunks", []):
            if "source" in chunk:
                sources[chunk["replica_id"]] = chunk["source"].get("ordinal", 0)
            for line in base64.b64decode(chunk.get("lines", "")).splitlines():
                time_text, stream, tag, text = line.decode().split(" ", 3)
                assert (len(time_text), tag) == (30, "F")
                seen.setdefault(chunk["replica_id"], []).append((stream, text))
        if sum(map(len, seen.values())) == 4:
            break
    assert sorted(sources.values()) == [0, 1]
    assert all(sorted(lines) == [("stderr", "two"), ("stdout", "one")] for lines in seen.values())


def test_health(program: Served) -> None:
    code, text = program.http("/health")
    assert (code, json.loads(text)["status"]) == (200, "ok")
    for address, service in ((program.address, COORDINATOR), (program.agent_address, AGENT)):
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", service):
                answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_S)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, name)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Check(health_pb2.HealthCheckRequest(service="no.such"), timeout=DEADLINE_S)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def raw(address: str, path: str, data: bytes) -> grpc.RpcError:
    """Send bytes as they are; the error that comes back."""
    same: Callable[[bytes], bytes] = bytes
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(path, request_serializer=same, response_deserializer=same)
        with pytest.raises(grpc.RpcError) as caught:
            call(data, timeout=DEADLINE_S)
    return caught.value


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x0a\xff\xff\xff\xff\x0f", "INVALID_ARGUMENT"),  # a length that is longer than the message
        (b"\x08\x01", "INVALID_ARGUMENT"),  # a number where the namespace is
        (b"\x0a\x02\xff\xfe", "INVALID_ARGUMENT"),  # not UTF-8
        (b"\x12\x04test\x1a\x02\x10\xff", "INVALID_ARGUMENT"),  # cut off in the middle
        (b"\x00", "INVALID_ARGUMENT"),  # field 0
        (b"", "INVALID_ARGUMENT"),  # no name
        (b"\x0a" + b"\x80\x80\x80\x01" + b"x" * 0x200000, "RESOURCE_EXHAUSTED"),  # 2 MiB
    ],
)
def test_bytes_of_the_wrong_kind(program: Served, data: bytes, code: str) -> None:
    error = raw(program.address, f"/{COORDINATOR}/CreateWorkload", data)
    assert error.code().name == code, error.details()
    assert "Traceback" not in error.details()


def test_unknown_methods_and_services(program: Served) -> None:
    for path in (f"/{COORDINATOR}/NoSuch", "/no.Such/Method", "/"):
        assert raw(program.address, path, b"").code().name == "UNIMPLEMENTED", path
