"""The agent put together: reads as a table of contents of the role.

``cli.serve`` enters ``agent``; tests enter ``assembled`` with a runtime and a network of
their own. Leaving ends the agent and nothing else: replicas run on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from cloudless.agent import identity
from cloudless.agent.config import AgentConfig
from cloudless.agent.daemon import choose
from cloudless.agent.ends import Availability, Ends
from cloudless.agent.exec import CommandRunner
from cloudless.agent.execs.attach import Attachments
from cloudless.agent.execs.limits import CONCURRENT_STARTS as CONCURRENT_PROGRAM_STARTS
from cloudless.agent.execs.limits import MAX_PROGRAMS
from cloudless.agent.execs.listing import ExecListing
from cloudless.agent.execs.places import Places
from cloudless.agent.execs.registry import ExecRegistry
from cloudless.agent.execs.service import Programs
from cloudless.agent.facts import FactsKeeper
from cloudless.agent.forwarding.dialler import Dialler
from cloudless.agent.forwarding.forwarder import Forwarder
from cloudless.agent.housekeeping import Housekeeping
from cloudless.agent.images import ImageKeeper
from cloudless.agent.journal import Journal
from cloudless.agent.limits import CONCURRENT_STARTS
from cloudless.agent.loggers import LoggerWatch
from cloudless.agent.logs.store import LogStore
from cloudless.agent.network.port import Network
from cloudless.agent.node import Node
from cloudless.agent.output import ContainerLogs
from cloudless.agent.protection import protect
from cloudless.agent.replica.tools import RunProbe, Tools
from cloudless.agent.reports import Reports
from cloudless.agent.runtime.port import Runtime
from cloudless.agent.services import AgentService, LocalAgentService
from cloudless.agent.session import Session
from cloudless.agent.sweep import ContainerSweeper
from cloudless.agent.traffic.port import Traffic
from cloudless.agent.traffic.switchboard import Switchboard
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
from cloudless.domain.address import split_address
from cloudless.transport.codec import CompiledCodec
from cloudless.transport.limits import LINK_AGENT
from cloudless.transport.server import GuardedServer


@dataclass(frozen=True)
class Agent:
    """A running agent. ``wait`` raises what makes it end."""

    identity: identity.Identity
    node: Node
    reports: Reports
    service: AgentService
    session: Session
    supervisor: Supervisor
    #: Port of the local address.
    port: int

    async def wait(self) -> None:
        """Return never; raises the failure of any part."""
        await self.supervisor.wait()


@asynccontextmanager
async def agent(config: AgentConfig, clock: Clock, *, new_id: Callable[[], str]) -> AsyncIterator[Agent]:
    """Run the agent with a real containerd and the kernel's network.

    Raises ``Fatal`` (``NoContainerd``, ``DataDirTaken``, an address in use) when it cannot start.
    """
    # Heavy rooms are imported only where they are used.
    from cloudless.agent.network.kernel import KernelNetwork
    from cloudless.agent.probing.prober import Prober
    from cloudless.agent.runtime.containerd import ContainerdRuntime
    from cloudless.agent.traffic.kernel import KernelTraffic
    from cloudless.containerd.client import ContainerdClient

    with identity.locked(config.folder):
        protect()
        me = identity.load_identity(config.folder, clock, new_id)
        chosen = await choose(config, clock, new_id)
        runtime = ContainerdRuntime(
            ContainerdClient(chosen.socket, codec=CompiledCodec(answers=True), clock=clock, new_id=new_id),
            node_id=me.node_id,
            folder=config.folder,
            clock=clock,
            new_id=new_id,
        )
        network = KernelNetwork(
            str(config.folder), config.folder / "network", network_range=config.network_range
        )
        traffic = KernelTraffic(str(config.folder))
        prober = Prober()
        try:
            async with (
                Supervisor("containerd") as keeping,
                assembled(
                    config,
                    clock,
                    new_id=new_id,
                    me=me,
                    runtime=runtime,
                    network=network,
                    traffic=traffic,
                    run_probe=prober.attempt,
                ) as running,
            ):
                keeping.start("private containerd", chosen.keep_running())
                yield running
        finally:
            prober.close()
            await runtime.close()
            await network.close()
            await traffic.close()


@asynccontextmanager
async def assembled(
    config: AgentConfig,
    clock: Clock,
    *,
    new_id: Callable[[], str],
    me: identity.Identity,
    runtime: Runtime,
    network: Network,
    traffic: Traffic,
    run_probe: RunProbe,
    listen: bool = True,
) -> AsyncIterator[Agent]:
    """Run the agent on this runtime, network and traffic; ``listen`` False leaves out every socket."""
    surroundings = Surroundings(config, clock, new_id, me, runtime, network, traffic, run_probe)
    journal = Journal.open(config.folder / "journal", me.node_id)
    kept = config.logs
    logs = LogStore(
        config.folder / "logs", config.folder / "bin", file_bytes=kept.file_bytes, files=kept.files
    )
    dialler = Dialler()
    try:
        async with Supervisor("agent") as supervisor:
            parts = Parts(surroundings, journal, logs, dialler, supervisor)
            await parts.switchboard.adopt(journal.known(), journal.traffic)
            parts.start()
            over_link, local_service = parts.service(AgentService), parts.service(LocalAgentService)
            async with (
                GuardedServer([over_link], name="agent link", limits=LINK_AGENT) as linked,
                GuardedServer([local_service], name="agent", descriptors=_descriptors()) as local,
            ):
                session = Session(
                    address=config.coordinator_address,
                    node_id=me.node_id,
                    node_name=config.node_name,
                    session=new_id(),
                    server=linked,
                    clock=clock,
                    chance=random.SystemRandom(),
                )
                port = 0
                if listen:
                    port = await local.listen(*split_address(config.agent_address))
                    local.health.set(True)
                    session.start(supervisor)
                yield Agent(me, parts.node, parts.reports, over_link, session, supervisor, port)
    finally:
        dialler.close()
        logs.close()
        journal.close()


@dataclass(frozen=True)
class Surroundings:
    """What an agent is put into."""

    config: AgentConfig
    clock: Clock
    new_id: Callable[[], str]
    me: identity.Identity
    runtime: Runtime
    network: Network
    traffic: Traffic
    run_probe: RunProbe


class Parts:
    """The agent's parts and how they know each other; ``start`` makes them live."""

    def __init__(
        self,
        around: Surroundings,
        journal: Journal,
        logs: LogStore,
        dialler: Dialler,
        supervisor: Supervisor,
    ) -> None:
        config, clock, runtime = around.config, around.clock, around.runtime
        self._around = around
        self._supervisor = supervisor
        self.facts = FactsKeeper(
            config, around.me.node_id, running_version(), lambda new: self.reports.describe(new)
        )
        self.available = Availability(lambda: self.facts.runtime_changed(self.available))
        self.reports = Reports(self.facts.facts, lambda replica_id: self.node.forget(replica_id))
        self.images = ImageKeeper(runtime, supervisor)
        self.logs = ContainerLogs(logs, config.folder / "logs", clock)
        self.log_store = logs
        self.switchboard = Switchboard(
            around.traffic,
            around.network,
            clock,
            lambda *event: self.node.report(*event),
            config.publish_addresses,
        )
        self.keeping = Housekeeping(
            config,
            folder=config.folder / "replicas",
            runtime=runtime,
            network=around.network,
            switchboard=self.switchboard,
            logs=logs,
            clock=clock,
        )
        ends = Ends()
        self.node = Node(
            name=config.node_name,
            clock=clock,
            new_id=around.new_id,
            runtime=runtime,
            journal=journal,
            reports=self.reports,
            supervisor=supervisor,
            ends=ends,
            available=self.available,
            switchboard=self.switchboard,
            tidy=self.keeping.tidy,
            first_version=around.me.first_version,
        )
        self.forwarder = Forwarder(self.node, dialler)
        self.attachments = Attachments(self.node, runtime, logs, node_name=config.node_name)
        self._run_programs()
        self.tools = self._tools(ends)

    def start(self) -> None:
        """Begin to look after the node."""
        start, around = self._supervisor.start, self._around
        start("facts", self.facts.run(around.runtime, around.clock))
        start("traffic", self.switchboard.run())
        start("node", self.node.run(self.tools))
        start("leftover commands", self.keeping.end_leftover_commands(self.available, self.programs.adopt))
        start("loggers", LoggerWatch(self.log_store, self.node, around.clock, self.node.report).run())
        start("housekeeping", self.keeping.run(self.node, self.node.images_in_use))

    def service(self, kind: type[AgentService]) -> AgentService:
        """One face of the service."""
        return kind(
            node=self.node,
            reports=self.reports,
            runtime=self._around.runtime,
            images=self.images,
            logs=self.log_store,
            clock=self._around.clock,
            output=self.logs,
            runner=self.runner,
            forwarder=self.forwarder,
            programs=self.programs,
            listing=self.listing,
            attachments=self.attachments,
            spool=self._around.config.folder / "spool",
            in_use=self.node.images_in_use,
        )

    def _run_programs(self) -> None:
        """What runs programs beside those of replicas: buffered or with input and output."""
        runtime, tasks, name = self._around.runtime, self._supervisor, self._around.config.node_name
        places = Places(MAX_PROGRAMS, "programs run in containers of this node")
        starts = asyncio.Semaphore(CONCURRENT_PROGRAM_STARTS)
        registry = ExecRegistry(tasks)
        self.runner = CommandRunner(runtime, places, starts, registry)
        self.programs = Programs(
            self.node, runtime, tasks, node_name=name, places=places, starts=starts, registry=registry
        )
        self.listing = ExecListing(self.node, registry, node_name=name)

    def _tools(self, ends: Ends) -> Tools:
        around = self._around
        return Tools(
            clock=around.clock,
            runtime=around.runtime,
            network=around.network,
            logs=self.logs,
            images=self.images,
            sweeper=ContainerSweeper(around.runtime, self.available, around.clock, self._supervisor),
            ends=ends,
            available=self.available,
            run_probe=around.run_probe,
            slots=asyncio.Semaphore(CONCURRENT_STARTS),
            capabilities=lambda: self.facts.capabilities,
            seccomp_folder=around.config.seccomp_folder,
            folder=around.config.folder / "replicas",
            publish=self.node.publish,
            report=self.node.report,
            switchboard=self.switchboard,
            node_name=around.config.node_name,
            private=around.config.private_folders,
        )


def _descriptors() -> bytes:
    return files("cloudless.api").joinpath("descriptors.binpb").read_bytes()


def running_version() -> str:
    """The version that this node reports."""
    try:
        return version("cloudless")
    except PackageNotFoundError:
        return "0"
