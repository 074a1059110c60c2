"""Lists, their pages, and watches."""

from __future__ import annotations

import pytest
from tests.unit.coordinator.world import Stream, World

from cloudless import api
from cloudless.api.google.protobuf import FieldMask
from cloudless.coordinator import limits
from cloudless.coordinator.state import snapshots
from cloudless.domain.errors import Invalid, NotFound, OutOfRange

Type = api.WatchWorkloadsResponseType


async def listed(world: World, **fields: object) -> api.ListWorkloadsResponse:
    request = api.ListWorkloadsRequest(**fields)  # type: ignore[arg-type]
    return await world.call("list_workloads", request)  # type: ignore[no-any-return]


def names(answer: api.ListWorkloadsResponse) -> list[str]:
    return [f"{workload.namespace}/{workload.name}" for workload in answer.workloads]


# -- pages -----------------------------------------------------------------------------


async def test_lists_are_in_order_and_by_namespace(bare: World) -> None:
    for name, namespace in (("b", "default"), ("a", "default"), ("a", "prod"), ("a-b", "default")):
        await bare.create(name, 0, namespace=namespace)
    assert names(await listed(bare)) == ["default/a", "default/a-b", "default/b", "prod/a"]
    assert names(await listed(bare, namespace="prod")) == ["prod/a"]
    assert names(await listed(bare, namespace="pro")) == []


async def test_selectors(bare: World) -> None:
    await bare.create("one", 0, labels={"app": "web", "tier": "front"})
    await bare.create("two", 0, labels={"app": "web"})
    await bare.create("three", 0)
    for selector, found in (
        ("app=web", ["one", "two"]),
        ("app=web,tier", ["one"]),
        ("!app", ["three"]),
        ("app in (web,api),tier!=front", ["two"]),
    ):
        answer = await listed(bare, label_selector=selector)
        assert sorted(workload.name for workload in answer.workloads) == sorted(found), selector
    with pytest.raises(Invalid, match="label_selector"):
        await listed(bare, label_selector="a=b=c")


async def test_pages_show_one_revision_whatever_is_written_between(bare: World) -> None:
    for number in range(7):
        await bare.create(f"w{number}", 0, labels={"old": "yes"})
    first = await listed(bare, page_size=3)
    await bare.create("w2-new", 0)
    await bare.delete("w5")
    await bare.until_gone("w5")
    await bare.scale("w4", 9)
    seen = names(first)
    token = first.next_page_token
    generations = []
    while token:
        page = await listed(bare, page_size=3, page_token=token)
        assert page.resource_version == first.resource_version
        seen += names(page)
        generations += [workload.generation for workload in page.workloads]
        token = page.next_page_token
    assert seen == [f"default/w{number}" for number in range(7)]
    assert set(generations) == {1}, "as it was at the revision of the first page"
    assert "default/w5" not in names(await listed(bare))


async def test_pages_go_on_after_the_snapshot_was_dropped(
    bare: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "KEPT_SNAPSHOTS", 1)
    for number in range(5):
        await bare.create(f"w{number}", 0)
    first = await listed(bare, page_size=2)
    for name in ("x", "y"):
        await bare.create(name, 0)
        await listed(bare, page_size=1)
    rest = await listed(bare, page_size=10, page_token=first.next_page_token)
    assert names(rest) == [f"default/w{number}" for number in (2, 3, 4)]


async def test_a_page_of_a_forgotten_revision_is_out_of_range(bare: World) -> None:
    for number in range(3):
        await bare.create(f"w{number}", 0)
    await bare.settle()
    first = await listed(bare, page_size=1)
    await bare.kill()
    await bare.start()
    for number in range(3):
        await bare.create(f"x{number}", 0)
    await bare.store.compact(bare.coordinator.cache.revision)
    with pytest.raises(OutOfRange, match="no longer kept"):
        await listed(bare, page_token=first.next_page_token)


async def test_a_token_that_was_not_given_out_is_refused(bare: World) -> None:
    for number in range(3):
        await bare.create(f"w{number}", 0)
    token = (await listed(bare, page_size=1)).next_page_token
    last = "A" if token[20] != "A" else "B"
    for wrong in ("x", "!", token[:-4], token[:20] + last + token[21:], "A" * 5000, "é"):
        with pytest.raises(Invalid, match="page_token"):
            await listed(bare, page_token=wrong)
    with pytest.raises(Invalid, match="other filters"):
        await listed(bare, page_token=token, namespace="prod")
    with pytest.raises(Invalid, match="other filters"):
        await bare.call("list_nodes", api.ListNodesRequest(page_token=token))


async def test_page_sizes(bare: World) -> None:
    for size in (-1, limits.MAX_PAGE_SIZE + 1):
        with pytest.raises(Invalid, match="page_size"):
            await listed(bare, page_size=size)


async def test_a_page_is_bounded_in_bytes(bare: World) -> None:
    big = {f"V{number}": "x" * 2000 for number in range(60)}
    for number in range(12):
        await bare.create(f"w{number:02}", 0, env=big)
    first = await listed(bare)
    assert 1 < len(first.workloads) < 12
    rest = await listed(bare, page_token=first.next_page_token)
    assert len(first.workloads) + len(rest.workloads) == 12


async def test_replicas_are_paged_and_filtered(world: World) -> None:
    await world.join("n2")
    await world.create("web", 5)
    await world.create("api", 2)
    await world.until_ready("web", 5)
    await world.until_ready("api", 2)
    seen: list[str] = []
    token = ""
    while True:
        request = api.ListReplicasRequest(page_size=3, page_token=token)
        page = await world.call("list_replicas", request)
        seen += [f"{replica.workload}/{replica.ordinal}" for replica in page.replicas]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["api/0", "api/1", *(f"web/{number}" for number in range(5))]
    one = await world.call("list_replicas", api.ListReplicasRequest(name="api"))
    assert [replica.ordinal for replica in one.replicas] == [0, 1]
    there = await world.call("list_replicas", api.ListReplicasRequest(node="n1"))
    here = await world.call("list_replicas", api.ListReplicasRequest(node="n2"))
    assert len(there.replicas) + len(here.replicas) == 7
    assert {replica.node for replica in here.replicas} <= {"n2"}
    with pytest.raises(NotFound):
        await world.call("list_replicas", api.ListReplicasRequest(name="nobody"))
    with pytest.raises(NotFound):
        await world.call("list_replicas", api.ListReplicasRequest(node="nowhere"))


async def test_events_are_paged_and_filtered(world: World) -> None:
    for name in ("one", "two"):
        await world.create(name, 2)
        await world.until_ready(name, 2)
        await world.pass_time(10)
    everything = await world.call("list_events", api.ListEventsRequest())
    paged: list[str] = []
    token = ""
    while True:
        page = await world.call("list_events", api.ListEventsRequest(page_size=2, page_token=token))
        paged += [event.id for event in page.events]
        token = page.next_page_token
        if not token:
            break
    assert paged == [event.id for event in everything.events]
    mine = await world.call("list_events", api.ListEventsRequest(name="two", kind="replica"))
    assert {(event.name, event.kind) for event in mine.events} == {("two", "replica")}
    since = next(event.at for event in everything.events if event.name == "two")
    later = await world.call("list_events", api.ListEventsRequest(since=since))
    assert {event.name for event in later.events} == {"two"}
    with pytest.raises(Invalid, match="kind"):
        await world.call("list_events", api.ListEventsRequest(kind="cluster"))


# -- watches ---------------------------------------------------------------------------


async def changes_until_bookmark(stream: Stream) -> list[tuple[str, str]]:
    found = []
    while (message := await stream.next()).type is not Type.BOOKMARK:
        found.append((message.type.name, message.workload.name))
    return found


async def test_a_watch_shows_what_is_and_then_what_changes(bare: World) -> None:
    await bare.create("one", 0)
    await bare.settle()
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest()) as stream:
        assert await changes_until_bookmark(stream) == [("ADDED", "one")]
        await bare.create("two", 0)
        message = await stream.next()
        assert (message.type, message.workload.name) == (Type.ADDED, "two")
        while (message := await stream.next()).workload.status.observed_generation == 0:
            pass
        await bare.scale("one", 2)
        while (message := await stream.next()).workload.name != "one":
            pass
        assert (message.type, message.workload.generation) == (Type.MODIFIED, 2)
        await bare.delete("two")
        while (message := await stream.next()).type is not Type.DELETED:
            pass
        assert message.workload.name == "two"


async def test_a_watch_resumes_where_it_stopped(bare: World) -> None:
    await bare.create("one", 0)
    await bare.create("two", 0)
    await bare.settle()
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest()) as stream:
        await stream.next()
        await stream.next()
        version = (await stream.next()).resource_version
    await bare.scale("one", 0, request_id="nothing")
    await bare.delete("two")
    await bare.until_gone("two")
    await bare.create("three", 0)
    await bare.settle()
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest(resource_version=version)) as stream:
        assert sorted(await changes_until_bookmark(stream)) == [("ADDED", "three"), ("DELETED", "two")]


async def test_a_watch_may_start_at_a_list(bare: World) -> None:
    await bare.create("one", 0)
    await bare.settle()
    version = (await listed(bare)).resource_version
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest(resource_version=version)) as stream:
        assert await changes_until_bookmark(stream) == []
        await bare.create("two", 0)
        assert (await stream.next()).workload.name == "two"


async def test_a_version_that_is_too_old_is_out_of_range(bare: World) -> None:
    await bare.create("one", 0)
    version = (await listed(bare)).resource_version
    await bare.create("two", 0)
    await bare.kill()
    await bare.start()
    request = api.WatchWorkloadsRequest(resource_version=version)
    async with bare.stream("watch_workloads", request) as stream:
        with pytest.raises(OutOfRange, match="too old"):
            await stream.next()
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest(resource_version="no")) as stream:
        with pytest.raises(Invalid, match="resource_version"):
            await stream.next()


async def test_a_watch_with_a_selector_tells_who_enters_and_leaves(bare: World) -> None:
    await bare.create("one", 0, labels={"app": "web"})
    await bare.create("two", 0)
    await bare.settle()
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest(label_selector="app=web")) as stream:
        assert await changes_until_bookmark(stream) == [("ADDED", "one")]
        labels = FieldMask(paths=["labels"])
        enter = api.UpdateWorkloadRequest(name="two", labels={"app": "web"}, update_mask=labels)
        await bare.call("update_workload", enter)
        message = await stream.next()
        assert (message.type, message.workload.name) == (Type.ADDED, "two")
        await bare.call("update_workload", api.UpdateWorkloadRequest(name="one", update_mask=labels))
        message = await stream.next()
        assert (message.type, message.workload.name) == (Type.DELETED, "one")
        version = message.resource_version
    resumed = api.WatchWorkloadsRequest(label_selector="app=web", resource_version=version)
    await bare.call("update_workload", api.UpdateWorkloadRequest(name="two", update_mask=labels))
    async with bare.stream("watch_workloads", resumed) as stream:
        assert await changes_until_bookmark(stream) == [("DELETED", "two")]


async def test_a_slow_reader_gets_the_newest_state_only(world: World) -> None:
    async with world.stream("watch_workloads", api.WatchWorkloadsRequest()) as stream:
        await stream.next()
        await world.create("web", 1)
        for replicas in range(2, 12):
            await world.scale("web", replicas)
        await world.until_ready("web", 11)
        message = await stream.next()
        assert message.workload.generation == 11
        assert message.workload.status.ready_replicas == 11


async def test_an_idle_watch_gets_bookmarks(bare: World) -> None:
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest(name="nobody")) as stream:
        first = await stream.next()
        await bare.create("other", 0)
        message = await stream.next()
        assert message.type is Type.BOOKMARK
        assert int(message.resource_version) > int(first.resource_version)


async def test_a_closed_watch_leaves_nothing_behind(bare: World) -> None:
    before = len(bare.coordinator.cache._subscribers)
    async with bare.stream("watch_workloads", api.WatchWorkloadsRequest()) as stream:
        await stream.next()
        assert len(bare.coordinator.cache._subscribers) == before + 1
    assert len(bare.coordinator.cache._subscribers) == before


async def test_events_are_watched(bare: World) -> None:
    async with bare.stream("watch_events", api.WatchEventsRequest(kind="workload")) as stream:
        version = (await stream.next()).resource_version
        await bare.create("web", 0)
        reasons = [(await stream.next()).event.reason for _ in range(2)]
        assert reasons[0] == "RevisionCreated"
    resumed = api.WatchEventsRequest(kind="workload", resource_version=version)
    async with bare.stream("watch_events", resumed) as stream:
        assert (await stream.next()).event is None
        first = await stream.next()
        assert first.event.reason == "RevisionCreated"
    between = api.WatchEventsRequest(kind="workload", resource_version=first.resource_version)
    async with bare.stream("watch_events", between) as stream:
        await stream.next()
        seen = [(await stream.next()).event.reason for _ in range(2)]
    assert reasons[1] in seen, "events of one revision are not lost between"


async def test_a_watch_is_filtered_by_namespace_and_name(bare: World) -> None:
    await bare.create("one", 0)
    await bare.create("one", 0, namespace="prod")
    await bare.create("two", 0, namespace="prod")
    await bare.settle()
    by_namespace = api.WatchWorkloadsRequest(namespace="prod")
    async with bare.stream("watch_workloads", by_namespace) as stream:
        assert await changes_until_bookmark(stream) == [("ADDED", "one"), ("ADDED", "two")]
    by_name = api.WatchWorkloadsRequest(namespace="prod", name="two")
    async with bare.stream("watch_workloads", by_name) as stream:
        assert await changes_until_bookmark(stream) == [("ADDED", "two")]
        await bare.scale("one", 1)
        await bare.scale("two", 1, namespace="prod")
        assert (await stream.next()).workload.name == "two"


async def test_lists_of_one_namespace(world: World) -> None:
    await world.create("web", 1)
    await world.create("web", 1, namespace="prod")
    await world.until_ready()
    await world.settle()
    replicas = await world.call("list_replicas", api.ListReplicasRequest(namespace="prod"))
    assert [replica.namespace for replica in replicas.replicas] == ["prod"]
    named = await world.call("list_replicas", api.ListReplicasRequest(namespace="prod", name="web"))
    assert named == replicas
    events = await world.call("list_events", api.ListEventsRequest(namespace="prod"))
    assert {event.namespace for event in events.events} == {"prod"}
    revisions = api.ListRevisionsRequest(namespace="prod", name="web")
    assert len((await world.call("list_revisions", revisions)).revisions) == 1
    with pytest.raises(NotFound, match="nowhere/web"):
        await world.call("list_revisions", api.ListRevisionsRequest(namespace="nowhere", name="web"))


async def test_nodes_are_paged_and_filtered(world: World) -> None:
    for name in ("n2", "n3"):
        await world.join(name, labels={"disk": "ssd"})
    first = await world.call("list_nodes", api.ListNodesRequest(page_size=2))
    assert [node.name for node in first.nodes] == ["n1", "n2"]
    request = api.ListNodesRequest(page_size=2, page_token=first.next_page_token)
    rest = await world.call("list_nodes", request)
    assert ([node.name for node in rest.nodes], rest.next_page_token) == (["n3"], "")
    chosen = await world.call("list_nodes", api.ListNodesRequest(label_selector="disk=ssd"))
    assert [node.name for node in chosen.nodes] == ["n2", "n3"]


async def test_watched_events_are_filtered(bare: World) -> None:
    request = api.WatchEventsRequest(namespace="prod", name="two")
    async with bare.stream("watch_events", request) as stream:
        await stream.next()
        await bare.create("two", 0)
        await bare.create("one", 0, namespace="prod")
        await bare.create("two", 0, namespace="prod")
        event = (await stream.next()).event
        assert (event.namespace, event.name) == ("prod", "two")


async def test_nobody_makes_a_token_from_what_is_shown(bare: World) -> None:
    from cloudless.coordinator.services.paging import PageTokens, Position

    await bare.create("a", 0)
    info = await bare.call("get_info", api.GetInfoRequest())
    forged = PageTokens(info.cluster_id).write(Position(1, ("default", "")), "ListWorkloads", "", "")
    with pytest.raises(Invalid, match="not given out"):
        await listed(bare, page_token=forged)
