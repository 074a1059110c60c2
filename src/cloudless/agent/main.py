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
from cloudless.agent.config import AgentConfig, split_address
from cloudless.agent.daemon import choose
from cloudless.agent.ends import Availability, Ends
from cloudless.agent.exec import CommandRunner
from cloudless.agent.facts import FactsKeeper
from cloudless.agent.housekeeping import Housekeeping
from cloudless.agent.images import ImageKeeper
from cloudless.agent.journal import Journal
from cloudless.agent.limits import CONCURRENT_STARTS
from cloudless.agent.logs.store import LogStore
from cloudless.agent.network.port import Network
from cloudless.agent.node import Node
from cloudless.agent.output import ContainerLogs
from cloudless.agent.replica.tools import RunProbe, Tools
from cloudless.agent.reports import Reports
from cloudless.agent.runtime.port import Runtime
from cloudless.agent.services import AgentService, LocalAgentService
from cloudless.agent.session import Session
from cloudless.agent.sweep import ContainerSweeper
from cloudless.aio.clock import Clock
from cloudless.aio.supervise import Supervisor
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
    from cloudless.containerd.client import ContainerdClient

    with identity.locked(config.folder):
        me = identity.load_identity(config.folder, clock, new_id)
        chosen = await choose(config, clock, new_id)
        runtime = ContainerdRuntime(
            ContainerdClient(chosen.socket, clock=clock, new_id=new_id),
            node_id=me.node_id,
            folder=config.folder,
            clock=clock,
            new_id=new_id,
        )
        network = KernelNetwork(
            str(config.folder), config.folder / "network", network_range=config.network_range
        )
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
                    run_probe=prober.attempt,
                ) as running,
            ):
                keeping.start("private containerd", chosen.keep_running())
                yield running
        finally:
            prober.close()
            await runtime.close()
            await network.close()


@asynccontextmanager
async def assembled(
    config: AgentConfig,
    clock: Clock,
    *,
    new_id: Callable[[], str],
    me: identity.Identity,
    runtime: Runtime,
    network: Network,
    run_probe: RunProbe,
    listen: bool = True,
) -> AsyncIterator[Agent]:
    """Run the agent on this runtime and network; ``listen`` False leaves out every socket."""
    folder = config.folder
    journal = Journal.open(folder / "journal", me.node_id)
    store = LogStore(folder / "logs", folder / "bin")
    try:
        async with Supervisor("agent") as supervisor:
            facts = FactsKeeper(config, me.node_id, api_version(), lambda new: reports.describe(new))
            available = Availability(lambda: facts.runtime_changed(available))
            ends = Ends()
            reports = Reports(facts.facts, lambda replica_id: node.forget(replica_id))
            keeping = Housekeeping(
                config, folder=folder / "replicas", runtime=runtime, network=network, logs=store, clock=clock
            )
            node = Node(
                name=config.node_name,
                clock=clock,
                new_id=new_id,
                runtime=runtime,
                journal=journal,
                reports=reports,
                supervisor=supervisor,
                ends=ends,
                available=available,
                tidy=keeping.tidy,
                first_version=me.first_version,
            )
            images = ImageKeeper(runtime, supervisor)
            output = ContainerLogs(store, folder / "logs")
            tools = Tools(
                clock=clock,
                runtime=runtime,
                network=network,
                logs=output,
                images=images,
                sweeper=ContainerSweeper(runtime, available, clock, supervisor),
                ends=ends,
                available=available,
                run_probe=run_probe,
                slots=asyncio.Semaphore(CONCURRENT_STARTS),
                capabilities=lambda: facts.capabilities,
                seccomp_folder=config.seccomp_folder,
                folder=folder / "replicas",
                publish=node.publish,
                report=node.report,
            )
            runner = CommandRunner(runtime)

            def service(kind: type[AgentService]) -> AgentService:
                return kind(
                    node=node,
                    reports=reports,
                    runtime=runtime,
                    images=images,
                    logs=store,
                    output=output,
                    runner=runner,
                    spool=folder / "spool",
                    in_use=node.images_in_use,
                )

            over_link = service(AgentService)
            supervisor.start("facts", facts.run(runtime, clock))
            supervisor.start("node", node.run(tools))
            supervisor.start("leftover commands", keeping.end_leftover_commands(available))
            supervisor.start("housekeeping", keeping.run(node, node.images_in_use))
            async with (
                GuardedServer([over_link], name="agent link", limits=LINK_AGENT) as linked,
                GuardedServer(
                    [service(LocalAgentService)], name="agent", descriptors=_descriptors()
                ) as local,
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
                    session.start(supervisor)
                yield Agent(me, node, reports, over_link, session, supervisor, port)
    finally:
        store.close()
        journal.close()


def _descriptors() -> bytes:
    return files("cloudless.api").joinpath("descriptors.binpb").read_bytes()


def api_version() -> str:
    """The version that this node reports."""
    try:
        return version("cloudless")
    except PackageNotFoundError:
        return "0"
