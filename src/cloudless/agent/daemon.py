"""Which containerd this node uses: the system's, one at a given socket, or a private child.

A private one lives in ``DATA_DIR/containerd``, outlives the agent, and is started again
when it dies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cloudless.agent.config import AgentConfig
from cloudless.agent.limits import INFO_TIMEOUT_S, RETRY_BASE_S, RETRY_CAP_S
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.containerd import errors
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.daemon import PrivateDaemon
from cloudless.domain.errors import Fatal

log = logging.getLogger(__name__)

SYSTEM_SOCKET = Path("/run/containerd/containerd.sock")


class NoContainerd(Fatal):
    """No container runtime can be used on this machine."""

    code = "CL-1008"


class ContainerdChoice:
    """``socket`` is where it answers; ``keep_running`` looks after a private one."""

    def __init__(self, socket: Path, daemon: PrivateDaemon | None, clock: Clock) -> None:
        self.socket = socket
        self.daemon = daemon
        self._clock = clock

    async def keep_running(self) -> None:
        """Start a private daemon again whenever it ends; returns at once without one."""
        if self.daemon is None:
            return
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            await self.daemon.wait()
            log.warning("the private containerd has ended, starting it again")
            try:
                await self.daemon.start()
                backoff.reset()
            except errors.ContainerdError as error:
                log.warning("cannot start the private containerd", extra={"why": error.message})
                await self._clock.sleep(backoff.next())


async def choose(config: AgentConfig, clock: Clock, new_id: Callable[[], str]) -> ContainerdChoice:
    """Find or start the containerd to use. Raises ``NoContainerd``."""
    if config.containerd == "auto" and await _answers(SYSTEM_SOCKET, clock, new_id):
        return ContainerdChoice(SYSTEM_SOCKET, None, clock)
    if config.containerd not in ("auto", "private"):
        socket = Path(config.containerd)
        if not await _answers(socket, clock, new_id):
            log.warning("waiting for containerd, which does not answer", extra={"socket": str(socket)})
        return ContainerdChoice(socket, None, clock)
    daemon = PrivateDaemon(config.data_dir.absolute() / "containerd", clock=clock)
    try:
        await daemon.start()
    except errors.ContainerdError as error:
        raise NoContainerd(
            f"cannot run a private containerd: {error.message}",
            hint="install containerd and run as root, or name the socket of one with --containerd",
        ) from error
    except OSError as error:
        raise NoContainerd(
            f"cannot run a private containerd: {error}", hint="run as root, or choose another --data-dir"
        ) from error
    return ContainerdChoice(daemon.socket, daemon, clock)


async def _answers(socket: Path, clock: Clock, new_id: Callable[[], str]) -> bool:
    async with ContainerdClient(socket, clock=clock, new_id=new_id) as client:
        try:
            await client.version(timeout_s=INFO_TIMEOUT_S)
        except errors.ContainerdError:
            return False
    return True
