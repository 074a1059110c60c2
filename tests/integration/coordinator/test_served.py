"""Everything over sockets: the API, the health port, links, restarts, and leaving in order."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable
from contextlib import aclosing

import pytest
from tests.integration.coordinator.conftest import Served, Site, client
from tests.unit.coordinator.fakeagent import FakeAgent
from tests.unit.coordinator.fakelogs import FakeSource

from cloudless import api
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.domain.errors import Fatal, Invalid, NotFound, Unavailable
from cloudless.transport.codec import encode
from cloudless.transport.link import LinkRefused, dial_link
from cloudless.transport.listen import AddressInUse, InsecureListen
from cloudless.transport.server import GuardedServer

SPEC = api.WorkloadSpec(image="nginx:alpine", replicas=2)


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def ready(stub: api.CoordinatorServiceStub, name: str, replicas: int) -> api.Workload:
    async with asyncio.timeout(20):
        while True:
            workload = (await stub.get_workload(api.GetWorkloadRequest(name=name))).workload
            assert workload is not None
            assert workload.status is not None
            if workload.status.ready_replicas == replicas:
                return workload
            await asyncio.sleep(0.01)


async def fetch(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def test_a_workload_lives_and_dies_over_sockets(site: Site) -> None:
    agent = FakeAgent()
    async with site.serving() as serving, client(serving) as stub, site.node(serving, agent):
        await until(serving.ready)
        await stub.create_workload(api.CreateWorkloadRequest(name="web", spec=SPEC))
        workload = await ready(stub, "web", 2)
        assert workload.status is not None
        replica = workload.status.replicas[0]
        agent.logs.sources[replica.id] = FakeSource(workload.id, lines=[(1, b"hello")])
        async with aclosing(stub.stream_logs(api.StreamLogsRequest(name="web"))) as batches:  # type: ignore[type-var]
            lines = [chunk.lines async for batch in batches for chunk in batch.chunks if chunk.lines]
        assert [line.endswith(b"Z stdout F hello\n") for line in lines] == [True]
        answer = await stub.exec_command(api.ExecCommandRequest(name="web", command=["true"]))
        assert (answer.exit_code, answer.replica) == (3, "web/0")
        await stub.delete_workload(api.DeleteWorkloadRequest(name="web"))
        await until(lambda: not serving.coordinator.cache.cluster.workloads)
        with pytest.raises(NotFound) as missing:
            await stub.get_workload(api.GetWorkloadRequest(name="web"))
        assert missing.value.code == "CL-4040"


async def test_errors_cross_the_wire_with_their_fields(site: Site) -> None:
    async with site.serving() as serving, client(serving) as stub:
        bad = api.WorkloadSpec(image="Bad Image", replicas=-1)
        with pytest.raises(Invalid) as refused:
            await stub.create_workload(api.CreateWorkloadRequest(name="web", spec=bad))
        assert {violation.path for violation in refused.value.violations} == {"spec.image", "spec.replicas"}


async def test_a_message_of_two_mebibytes_is_refused(site: Site) -> None:
    import grpc

    huge = api.WorkloadSpec(image="nginx", args=["x" * 2**21])
    message = encode(api.CreateWorkloadRequest(name="web", spec=huge))

    def call(port: int) -> tuple[object, str]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                channel.unary_unary("/cloudless.api.CoordinatorService/CreateWorkload")(message, timeout=10)
            except grpc.RpcError as error:
                return error.code(), error.details()
        return None, ""

    async with site.serving() as serving, client(serving) as stub:
        code, details = await asyncio.to_thread(call, serving.api_port)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "at most" in details
        assert (await stub.list_workloads(api.ListWorkloadsRequest())).workloads == []


async def test_what_was_acknowledged_survives_a_restart(site: Site) -> None:
    agent = FakeAgent()
    async with site.serving() as serving, client(serving) as stub, site.node(serving, agent):
        await until(serving.ready)
        created = await stub.create_workload(api.CreateWorkloadRequest(name="web", spec=SPEC))
        before = await ready(stub, "web", 2)
        cluster = serving.coordinator.cluster_id
    async with site.serving() as serving, client(serving) as stub, site.node(serving, agent):
        after = await ready(stub, "web", 2)
        assert created.workload is not None
        assert before.status is not None
        assert after.status is not None
        assert after.id == created.workload.id
        assert after.resource_version == created.workload.resource_version
        assert [one.id for one in before.status.replicas] == [one.id for one in after.status.replicas]
        assert serving.coordinator.cluster_id == cluster


async def test_the_health_port(site: Site) -> None:
    agent = FakeAgent()
    async with site.serving() as serving, client(serving) as stub:
        assert (await fetch(serving.http_port, "/readyz"))[0] == 503
        assert (await fetch(serving.http_port, "/livez"))[0] == 200
        async with site.node(serving, agent):
            await until(serving.ready)
            assert (await fetch(serving.http_port, "/readyz"))[0] == 200
            status, text = await fetch(serving.http_port, "/health")
            assert status == 200
            assert '"status": "ok"' in text
            await stub.list_workloads(api.ListWorkloadsRequest())
            status, text = await fetch(serving.http_port, "/metrics")
            assert 'cloudless_requests_total{code="OK",method="ListWorkloads"} 1.0' in text
        assert (await fetch(serving.http_port, "/other"))[0] == 404
        assert (await fetch(serving.http_port, "/health", "POST"))[0] == 405


async def test_reflection_and_health_are_there(site: Site) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    def ask(port: int) -> tuple[int, set[str]]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = health.Check(health_pb2.HealthCheckRequest(service="cloudless.api.CoordinatorService"))
            return answer.status, set(ProtoReflectionDescriptorDatabase(channel).get_services())

    async with site.serving() as serving:
        status, services = await asyncio.to_thread(ask, serving.api_port)
    assert status == health_pb2.HealthCheckResponse.SERVING
    assert {"cloudless.api.CoordinatorService", "grpc.health.v1.Health"} <= services


async def test_a_second_agent_with_the_same_id_is_refused(site: Site) -> None:
    first, second = FakeAgent(), FakeAgent(session="other")
    async with site.serving() as serving, site.node(serving, first):
        await until(serving.ready)
        async with GuardedServer([Served(second)], name="copy") as server:
            with pytest.raises(LinkRefused, match="another agent"):
                await dial_link("127.0.0.1", serving.api_port, second.hello("control"), server)


async def test_a_node_that_goes_is_seen_at_once(site: Site) -> None:
    async with site.serving() as serving:
        node = serving.coordinator.cache.cluster.nodes
        async with site.node(serving, FakeAgent()):
            await until(serving.ready)
            await asyncio.sleep(2.1)  # a new coordinator gives nodes two seconds to dial in
        await until(lambda: node["id-n1"].phase.value == "DISCONNECTED", limit_s=5.0)


async def test_leaving_ends_watches_and_refuses_what_comes(site: Site) -> None:
    async with site.serving() as serving, client(serving) as stub:
        watch = stub.watch_workloads(api.WatchWorkloadsRequest())
        async with aclosing(watch):  # type: ignore[type-var]
            await anext(watch)  # type: ignore[arg-type]
            ending = asyncio.ensure_future(anext(watch))  # type: ignore[arg-type]
            port = serving.api_port
            await asyncio.sleep(0)
            serving.coordinator.health.draining = True
            assert (await fetch(serving.http_port, "/readyz"))[0] == 503
            ending.cancel()
            await asyncio.wait({ending})
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_watch_that_is_open_when_the_coordinator_stops_ends_with_unavailable(site: Site) -> None:
    stopped: asyncio.Event = asyncio.Event()
    watching: asyncio.Event = asyncio.Event()

    async def watch(port: int) -> None:
        from cloudless.transport.channel import connect

        channel = connect(f"127.0.0.1:{port}")
        messages = api.CoordinatorServiceStub(channel).watch_workloads(api.WatchWorkloadsRequest())
        try:
            async with aclosing(messages):  # type: ignore[type-var]
                async for _ in messages:
                    watching.set()
        except Unavailable:
            stopped.set()
        finally:
            channel.close()

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
        async with site.serving() as serving:
            tasks.create_task(watch(serving.api_port))
            await watching.wait()
        await stopped.wait()


async def test_a_data_directory_serves_one_coordinator(site: Site) -> None:
    async with site.serving():
        with pytest.raises(Fatal, match="in use") as refused:
            async with site.serving():
                pass
        assert "--data-dir" in refused.value.hint


async def test_addresses_that_cannot_be_used(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Site(tmp_path_factory.mktemp("other"), site.stack)
    async with site.serving() as serving:
        for field, port in (("api_address", serving.api_port), ("http_address", serving.http_port)):
            with pytest.raises(AddressInUse, match=str(port)):
                async with other.serving(**{field: f"127.0.0.1:{port}"}):
                    pass
    with pytest.raises(InsecureListen, match="without TLS"):
        async with other.serving(api_address="0.0.0.0:0"):
            pass


async def test_a_data_directory_of_another_cluster_is_refused(site: Site) -> None:
    async with site.serving():
        pass
    config = site.config()
    config.cluster_id_file.write_text("another\n")
    with pytest.raises(Fatal, match="another"):
        async with site.serving():
            pass


def test_settings_are_checked() -> None:
    from pathlib import Path

    from pydantic import ValidationError

    for field, value in (
        ("api_address", "8080"),
        ("http_address", "a:b"),
        ("store", "mysql://x"),
        ("store", "etcd://"),
        ("unknown", "x"),
    ):
        with pytest.raises(ValidationError, match=field):
            CoordinatorConfig(data_dir=Path("x"), **{field: value})  # type: ignore[arg-type]
    assert CoordinatorConfig(data_dir=Path("/d")).store_url == "embedded:///d/store"
    assert CoordinatorConfig(data_dir=Path("/d"), store="memory").store_kind == "memory"
