"""An independent client: grpcio with its own health and reflection stubs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

Reference = Callable[[str], Any]


def _method(channel: grpc.Channel, kind: str, name: str, message: Any) -> Any:
    make = getattr(channel, kind)
    return make(
        f"/demo.Echo/{name}",
        request_serializer=message.SerializeToString,
        response_deserializer=message.FromString,
    )


async def test_calls_of_every_shape(echo: Any, serve: Any, reference: Reference) -> None:
    message = reference("Everything")

    def calls(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            once = _method(channel, "unary_unary", "Once", message)
            assert once(message(text="hello"), timeout=5).text == "hello"
            many = _method(channel, "unary_stream", "Many", message)
            large = many(message(int32_value=300, raw=bytes(20_000)), timeout=10)
            assert [answer.int32_value for answer in large] == list(range(300))
            collect = _method(channel, "stream_unary", "Collect", message)
            numbers = (message(int32_value=number) for number in range(100))
            assert list(collect(numbers, timeout=5).int32_list) == list(range(100))
            talk = _method(channel, "stream_stream", "Talk", message)
            words = iter([message(text="a"), message(text="b"), message(text="bye")])
            assert [answer.text for answer in talk(words, timeout=5)] == ["a", "b"]
            for text, code in (
                ("missing", grpc.StatusCode.NOT_FOUND),
                ("bug", grpc.StatusCode.INTERNAL),
                ("wait", grpc.StatusCode.DEADLINE_EXCEEDED),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    once(message(text=text), timeout=0.2 if text == "wait" else 5)
                assert caught.value.code() is code

    async with serve(echo) as (_, port):
        await asyncio.to_thread(calls, port)


async def test_compression_is_refused_as_unimplemented(echo: Any, serve: Any, reference: Reference) -> None:
    message = reference("Everything")

    def call(port: int) -> None:
        options = [("grpc.default_compression_algorithm", 2)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                _method(channel, "unary_unary", "Once", message)(message(text="x" * 5000), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async with serve(echo) as (_, port):
        await asyncio.to_thread(call, port)


async def test_health_check_and_watch(echo: Any, serve: Any) -> None:
    status = health_pb2.HealthCheckResponse

    async with serve(echo) as (server, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        check = health_pb2.HealthCheckRequest
        assert (await stub.Check(check(), timeout=5)).status == status.NOT_SERVING
        server.health.set(True)
        assert (await stub.Check(check(service="demo.Echo"), timeout=5)).status == status.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            await stub.Check(check(service="none"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(check(service="demo.Echo"), timeout=5)
        assert (await watch.read()).status == status.SERVING
        server.health.set(False, "demo.Echo")
        assert (await watch.read()).status == status.NOT_SERVING
        watch.cancel()
        unknown = stub.Watch(check(service="none"), timeout=5)
        assert (await unknown.read()).status == status.SERVICE_UNKNOWN
        unknown.cancel()


def _describe(port: int) -> tuple[set[str], Any, Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        echo = pool.FindServiceByName("demo.Echo")
        health = pool.FindServiceByName("grpc.health.v1.Health")
        return set(database.get_services()), echo, health


async def test_reflection_describes_all_services(echo: Any, serve: Any) -> None:
    async with serve(echo) as (_, port):
        names, service, health = await asyncio.to_thread(_describe, port)
    assert names == {
        "demo.Echo",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert [method.name for method in service.methods] == ["Once", "Many", "Collect", "Talk"]
    assert service.methods_by_name["Once"].input_type.fields_by_name["time"].message_type.name == "Timestamp"
    assert health.methods_by_name["Watch"].server_streaming


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_answers_in_both_versions(version: str, echo: Any, serve: Any) -> None:
    request, response = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    async with serve(echo) as (_, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        call = ask(timeout=5)
        for question, kind in (
            (request(list_services=""), "list_services_response"),
            (request(file_containing_symbol="demo.Echo.Once"), "file_descriptor_response"),
            (request(file_by_filename="demo.proto"), "file_descriptor_response"),
            (request(all_extension_numbers_of_type="demo.Leaf"), "all_extension_numbers_response"),
            (request(file_containing_symbol="no.such.Thing"), "error_response"),
            (request(), "error_response"),
        ):
            await call.write(question)
            assert (await call.read()).WhichOneof("message_response") == kind
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
    assert reflection_pb2_grpc.ServerReflectionStub is not None


async def test_drain_lets_grpcio_finish_its_call(
    echo: Any, serve: Any, reference: Reference, eventually: Any
) -> None:
    message = reference("Everything")
    async with serve(echo) as (server, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = _method(channel, "unary_unary", "Once", message)(message(text="wait"), timeout=5)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(_finished(call))
            await eventually(lambda: echo.started == 1)
            draining = group.create_task(server.drain(5))
            await eventually(lambda: not server._listeners)
            echo.release.set()
        assert running.result().text == "wait"
        assert draining.done()


async def _finished(call: Any) -> Any:
    return await call


def test_the_demo_is_there(demo: ModuleType) -> None:
    assert demo.EchoStub is not None
