"""A coordinator from its parts: this page reads as the table of contents of the room.

``coordinator`` is entered by ``cloudless serve`` (and by tests); the block it yields is
the coordinator's life. On leaving it says that it is not ready, lets calls end, ends the
links and loops, gives the leadership back, and closes the store, in this order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files

from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.coordinator.config import CoordinatorConfig
from cloudless.coordinator.control.apply import Applier
from cloudless.coordinator.control.leadership import Seat
from cloudless.coordinator.control.loop import ControlLoop
from cloudless.coordinator.control.retention import Retention
from cloudless.coordinator.health import Health
from cloudless.coordinator.identity import check_identity, cluster_identity
from cloudless.coordinator.limits import DRAIN_S
from cloudless.coordinator.links import LinkSync
from cloudless.coordinator.nodes import NodeTable
from cloudless.coordinator.services.closing import Closing
from cloudless.coordinator.services.context import About, Context
from cloudless.coordinator.services.paging import PageTokens
from cloudless.coordinator.services.service import CoordinatorService
from cloudless.coordinator.services.views import WorkloadViews
from cloudless.coordinator.state.cache import WatchCache
from cloudless.coordinator.state.codec import Codec
from cloudless.coordinator.state.snapshots import Snapshots
from cloudless.coordinator.state.typed import TypedStore, domain_errors
from cloudless.domain.address import split_address
from cloudless.domain.errors import Fatal
from cloudless.store.port import Store
from cloudless.store.url import open_store
from cloudless.telemetry.http import Pages, serve_pages
from cloudless.telemetry.metrics import Metrics
from cloudless.transport.listen import listen_error
from cloudless.transport.server import GuardedServer


@dataclass(frozen=True, slots=True)
class Coordinator:
    """What the one who started it may ask of a running coordinator."""

    service: CoordinatorService
    nodes: NodeTable
    health: Health
    seat: Seat
    closing: Closing
    control: ControlLoop
    cache: WatchCache
    cluster_id: str
    tasks: Supervisor

    async def wait(self) -> None:
        """Wait until something fails for good; raises its error."""
        await self.tasks.wait()


@dataclass(frozen=True, slots=True)
class Serving:
    """A coordinator that listens; ports are the real ones."""

    coordinator: Coordinator
    api_port: int
    http_port: int

    def ready(self) -> bool:
        """Whether workloads that are created now can run."""
        return self.coordinator.health.ready()

    async def wait(self) -> None:
        """Wait until something fails for good; raises its error."""
        await self.coordinator.wait()


@asynccontextmanager
async def coordinator(
    config: CoordinatorConfig, clock: Clock, *, new_id: Callable[[], str]
) -> AsyncIterator[Serving]:
    """A coordinator that serves its API and its health port.

    Raises ``Fatal`` (address in use, data directory in use, another cluster's store), and
    at the end whatever ended it.
    """
    _prepare(config)
    async with AsyncExitStack() as stack:
        with domain_errors():
            store = await stack.enter_async_context(open_store(config.store_url, clock, new_id=new_id))
        parts = await stack.enter_async_context(running(store, clock, new_id=new_id, kind=config.store_kind))
        if config.store_kind != "memory":
            check_identity(config.cluster_id_file, parts.cluster_id)
        metrics, health = parts.health.metrics, parts.health
        server = await stack.enter_async_context(
            GuardedServer(
                [parts.service],
                name="coordinator",
                descriptors=files("cloudless.api").joinpath("descriptors.binpb").read_bytes(),
                on_call=metrics.count_call,
                links=parts.nodes,
            )
        )
        api_port = await server.listen(*split_address(config.api_address))
        http_port = await stack.enter_async_context(_health_port(config, health))
        server.health.set(True)
        try:
            yield Serving(parts, api_port, http_port)
        finally:
            health.draining = True
            parts.closing.begin()
            await server.drain(DRAIN_S)


@asynccontextmanager
async def running(
    store: Store, clock: Clock, *, new_id: Callable[[], str], kind: str = "memory"
) -> AsyncIterator[Coordinator]:
    """A coordinator on an open store, without any socket: state, control, links, services."""
    metrics, codec = Metrics(), Codec()
    typed = TypedStore(store, codec, clock, metrics.count_store)
    cluster = await cluster_identity(typed, clock, new_id)
    cluster_id = cluster.id
    about = About(cluster_id, kind, clock.now())

    cache = WatchCache(store, codec, clock)
    seat = Seat(store, clock, candidate=new_id(), metrics=metrics)
    nodes = NodeTable(lambda: seat.leading)
    control = ControlLoop(
        cache, Applier(typed, cache.facts, new_id), seat, nodes.sessions, clock, new_id, metrics
    )
    links = LinkSync(typed, cache, lambda: seat.epoch, clock, new_id)
    retention = Retention(typed, cache, seat, clock, compacts=not store.exclusive and kind == "etcd")
    health = Health(store, cache, seat, control, metrics, clock, about, nodes.sessions)
    context = Context(
        typed=typed,
        cache=cache,
        snapshots=Snapshots(cache, typed),
        views=WorkloadViews(cache, clock),
        tokens=PageTokens(cluster.secret or cluster_id),
        nodes=nodes,
        closing=Closing(),
        leading=lambda: seat.leading,
        clock=clock,
        new_id=new_id,
        about=about,
    )

    async with Supervisor("state") as state:
        state.start("cache", cache.run())
        await cache.wait_filled()
        state.start("resync", cache.resync())
        async with (
            Supervisor("leadership") as leading,
            Supervisor("rollouts") as rollouts,
            Supervisor("coordinator") as tasks,
            Supervisor("links") as channels,
        ):
            nodes.open(channels, links, control.nodes_changed)
            control.rollouts.open(rollouts)
            tasks.start("control", control.run())
            tasks.start("replan", control.replan())
            tasks.start("retention", retention.run())
            tasks.start("lag", health.measure_lag())
            tasks.start("failures", _first_failure(state, leading, rollouts, channels))
            leading.start("seat", seat.run(control.leading_began, lambda: _stand_down(control, nodes)))
            service = CoordinatorService(context)
            try:
                yield Coordinator(
                    service, nodes, health, seat, context.closing, control, cache, cluster_id, tasks
                )
            finally:
                nodes.close()


def _stand_down(control: ControlLoop, nodes: NodeTable) -> None:
    """This process leads no longer."""
    control.leading_ended()
    nodes.disconnect_all()


async def _first_failure(*owners: Supervisor) -> None:
    """Raise the first error of any owner: a part that failed ends the coordinator."""
    async with Supervisor("failures") as waits:
        for owner in owners:
            waits.start(owner.name, owner.wait())
        await waits.wait()


def _prepare(config: CoordinatorConfig) -> None:
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Fatal(
            f"cannot use {config.data_dir}: {error.strerror or error}", hint="choose another --data-dir"
        ) from None


@asynccontextmanager
async def _health_port(config: CoordinatorConfig, health: Health) -> AsyncIterator[int]:
    host, port = split_address(config.http_address)
    pages = Pages(health.health, health.livez, health.readyz, health.metrics_text)
    stack = AsyncExitStack()
    try:
        bound = await stack.enter_async_context(serve_pages(host, port, pages))
    except OSError as error:
        raise listen_error(error, host, port) from None
    async with stack:
        yield bound
