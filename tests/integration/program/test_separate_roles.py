"""Coordinator and agent as two programs, the store an etcd; and a coordinator's successor."""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator

import pytest
from tests.integration.conftest import need_containerd
from tests.integration.program.census import leftovers
from tests.integration.program.served import Served, listens, until
from tests.integration.program.test_exec import groups, start
from tests.integration.program.test_exec_faults import GONE_S, client_process, close, gone
from tests.integration.program.test_lifecycle import manifest
from tests.integration.store.etcd_server import EtcdServer


@pytest.fixture
def parts(image_archive: pathlib.Path) -> Iterator[tuple[Served, Served, Served]]:
    """Two coordinators for one address, the first one running, and an agent."""
    need_containerd()
    parent = pathlib.Path(tempfile.mkdtemp(prefix="cls-"))
    etcd = EtcdServer(parent)
    etcd.start()
    store = ("--store", f"etcd://{etcd.address}", "--role", "coordinator")
    first = Served(parent / "first", *store)
    second = Served(parent / "second", *store, address=first.address)
    agent = Served(parent / "agent", "--role", "agent", address=first.address)
    try:
        first.start(ready=False)
        agent.start(ready=False)
        until(lambda: listens(agent.agent_address), "the agent listens")
        until(lambda: first.http("/readyz")[0] == 200, "the coordinator has a node")
        agent.cli("image", "import", str(image_archive))
        yield first, second, agent
    finally:
        for one in (first, second):
            one.kill(signal.SIGTERM)
        node_id = agent.node_id
        agent.end()
        etcd.kill()
        left = leftovers(agent.data_dir, node_id)
        shutil.rmtree(parent)
    assert not left, "\n".join(left)


def test_lifecycle_and_a_successor(parts: tuple[Served, Served, Served]) -> None:
    first, second, agent = parts
    agent.cli("apply", "-f", "-", stdin=manifest(name="web", replicas=2))
    before = agent.running("web")
    assert len(before) == 2

    first.kill()
    second.start(ready=False)
    until(lambda: second.http("/readyz")[0] == 200, "the successor has the node")
    agent.cli("scale", "web", "3")
    assert set(before) < set(agent.running("web"))
    agent.cli("apply", "-f", "-", stdin=manifest(name="web", replicas=3, env={"A": "1"}))
    assert not set(before) & set(agent.running("web"))

    agent.kill()
    running = set(asyncio.run(agent.list_running()))
    agent.start(ready=False)
    until(lambda: listens(agent.agent_address), "the agent is back")
    agent.cli("scale", "web", "4")
    assert running < set(agent.running("web"))
    assert {one["restarts"] for one in agent.replicas("web")} == {0}
    agent.cli("delete", "web", "--wait")
    assert not agent.running()


def test_an_exec_ends_with_its_coordinator(parts: tuple[Served, Served, Served]) -> None:
    """Alone: agent, containerd and client live on, and the program was written to hide."""
    first, second, agent = parts
    start(agent, "web")
    process = client_process(agent, "5901", "-i")
    since_s = time.monotonic()
    first.kill()
    gone("5901", since_s)
    assert close(process) == 125
    folder = agent.data_dir / "agent" / "execs"
    until(lambda: not list(folder.glob("*")), "no record is left", GONE_S)
    assert groups(agent) == []
    second.start(ready=False)
    until(lambda: second.http("/readyz")[0] == 200, "the successor has the node")
    until(lambda: agent.cli("exec", "web", "--", "true", code=None).code == 0, "exec works again")
