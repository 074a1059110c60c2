"""Published ports at the coordinator: one owner in the cluster, drained as the newest wish says."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from tests.unit.coordinator.world import World

from cloudless import api
from cloudless.api.google import protobuf
from cloudless.coordinator.services.publishing import PublishedElsewhere
from cloudless.domain.errors import AlreadyExists


def publish(port: int, address: str = "", protocol: int = 0) -> list[api.Port]:
    kind = api.PortProtocol(protocol)
    return [
        api.Port(container_port=81),
        api.Port(container_port=80, publish=port, publish_address=address, protocol=kind),
    ]


async def update(world: World, name: str, *paths: str, **fields: Any) -> None:
    spec = api.WorkloadSpec(image="nginx:alpine", **fields)
    mask = protobuf.FieldMask(paths=list(paths))
    await world.call("update_workload", api.UpdateWorkloadRequest(name=name, spec=spec, update_mask=mask))


async def test_a_published_port_belongs_to_one_workload(bare: World) -> None:
    await bare.create("web", ports=publish(8088))
    for address in ("", "127.0.0.1", "0.0.0.0"):
        with pytest.raises(PublishedElsewhere) as caught:
            await bare.create("other", ports=publish(8088, address))
        (violation,) = caught.value.violations
        assert violation.path == "spec.ports[1].publish"
        assert violation.description.endswith("is published by workload default/web")
    assert (await bare.call("list_workloads", api.ListWorkloadsRequest())).workloads[1:] == []
    await bare.create("elsewhere", ports=publish(8088, "127.0.0.2"))
    await bare.create("udp", ports=publish(8088, protocol=2))
    with pytest.raises(AlreadyExists):
        await bare.create("web", ports=publish(8088))


async def test_an_update_cannot_take_it_either_and_a_dry_run_says_so(bare: World) -> None:
    await bare.create("web", ports=publish(8088))
    await bare.create("other")
    with pytest.raises(PublishedElsewhere):
        await update(bare, "other", "spec.ports", ports=publish(8088))
    request = api.CreateWorkloadRequest(
        name="third", spec=api.WorkloadSpec(image="nginx:alpine", ports=publish(8088)), dry_run=True
    )
    with pytest.raises(PublishedElsewhere):
        await bare.call("create_workload", request)
    await update(bare, "web", "spec.ports", ports=publish(8089))
    await update(bare, "other", "spec.ports", ports=publish(8088))


async def test_a_repeated_request_gets_its_first_answer(bare: World) -> None:
    first = await bare.create("web", ports=publish(8088), request_id="once")
    assert (await bare.create("web", ports=publish(8088), request_id="once")).id == first.id


async def test_it_is_free_once_its_workload_is_gone(world: World) -> None:
    await world.create("web", ports=publish(8088))
    await world.until_ready()
    await world.delete()
    with pytest.raises(PublishedElsewhere, match="default/web, which is being deleted"):
        await world.create("other", ports=publish(8088))
    await world.until_gone()
    await world.create("other", ports=publish(8088))


async def test_the_newest_drain_time_reaches_the_node_with_the_order_to_stop(world: World) -> None:
    agent = world.agents["n1"]
    await world.create("web", ports=publish(8088))
    await world.until_ready()
    drain_time = datetime.timedelta(seconds=42)
    rollout = api.RolloutStrategy(drain_time=drain_time)
    await update(world, "web", "spec.rollout.drain_time", rollout=rollout)
    agent.stop_replicas = False
    await world.scale("web", 0)
    await world.until(lambda: any(not one.run for one in agent.assignments.values()))
    (told,) = agent.assignments.values()
    assert told.spec is not None
    assert told.spec.rollout is not None
    assert told.spec.rollout.drain_time == drain_time
