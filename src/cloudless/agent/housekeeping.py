"""Keeps the node's disk clean: files of the gone, old logs, unused images, failed commands.

Nothing that belongs to an assigned replica, or to a container that nobody can place, is
ever touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from cloudless.agent.config import AgentConfig
from cloudless.agent.ends import Availability
from cloudless.agent.images import home_of
from cloudless.agent.limits import COLLECT_S, HOUSEKEEPING_S, LEFTOVERS_S, RETRY_BASE_S, RETRY_CAP_S
from cloudless.agent.logs.store import LogStore
from cloudless.agent.network.port import Network
from cloudless.agent.node import Node
from cloudless.agent.replica import volumes
from cloudless.agent.resources import read_disk
from cloudless.agent.runtime.execport import RunningExec
from cloudless.agent.runtime.port import Runtime, StoredImage
from cloudless.agent.tags import compare_tags
from cloudless.agent.traffic.switchboard import Switchboard
from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.domain.errors import CloudlessError

log = logging.getLogger(__name__)


class Housekeeping:
    """``folder`` holds the replicas' files, one folder each."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        folder: Path,
        runtime: Runtime,
        network: Network,
        switchboard: Switchboard,
        logs: LogStore,
        clock: Clock,
    ) -> None:
        self._config = config
        self._folder = folder
        self._runtime = runtime
        self._network = network
        self._switchboard = switchboard
        self._logs = logs
        self._clock = clock

    async def tidy(self, keep: frozenset[str]) -> None:
        """Remove networks and files of replicas that are not in ``keep``; failures are logged."""
        self._switchboard.keep(keep)
        try:
            removed = await self._network.collect(keep)
            files = await asyncio.to_thread(self._remove_files, keep)
        except (CloudlessError, OSError) as error:
            log.warning("cannot remove leftovers", extra={"why": str(error)})
            return
        if removed or files:
            log.info("removed leftovers", extra={"networks": list(removed), "files": files})

    async def end_leftover_commands(
        self, available: Availability, adopt: Callable[[tuple[RunningExec, ...]], None]
    ) -> None:
        """Commands that nobody waits for end: of an earlier life, or those that could not be ended.

        Detached ones run on, and are handed to ``adopt``. Looks again for ever.
        """
        backoff = Backoff(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
        while True:
            await available.wait()
            try:
                count, detached = await self._runtime.collect_execs()
            except (CloudlessError, OSError) as error:
                log.info("commands will be ended later", extra={"why": str(error)})
                await self._clock.sleep(backoff.next())
                continue
            backoff.reset()
            adopt(detached)
            if count:
                log.info("ended commands that were left", extra={"count": count})
            await self._clock.sleep(LEFTOVERS_S)

    async def run(self, node: Node, in_use: Callable[[], frozenset[str]]) -> None:
        """Look after logs and images for ever; after logs sooner when containers have begun."""
        begun: set[str] = set()
        left_s = HOUSEKEEPING_S
        with self._logs.listening(begun.add):
            while True:
                await self._clock.sleep(COLLECT_S)
                left_s -= COLLECT_S
                if not begun and left_s > 0:
                    continue
                begun.clear()
                try:
                    await self._collect_logs(node)
                    if left_s <= 0:
                        left_s = HOUSEKEEPING_S
                        await self._look_around(node, in_use)
                except (CloudlessError, OSError) as error:
                    log.warning("housekeeping will be done later", extra={"why": str(error)})

    async def _look_around(self, node: Node, in_use: Callable[[], frozenset[str]]) -> None:
        await compare_tags(node, self._runtime)
        if strays := await self._runtime.collect_strays():
            log.warning(
                "ended what was left of containers that were never finished",
                extra={"containers": list(strays)},
            )
        await self.collect_images(in_use)

    async def collect_images(self, in_use: Callable[[], frozenset[str]]) -> int:
        """Remove unused images, oldest first, while the disk is too full; returns how many.

        The node is not told which revisions of a workload are kept. What has the repository of
        an image in use may be one to go back to, so it goes last.
        """
        marks, data_dir = self._config.images, self._config.data_dir
        if (await asyncio.to_thread(read_disk, data_dir)).space_percent < marks.high_percent:
            return 0
        images = await self._runtime.images()
        removed = 0
        homes = {home_of(name) for name in in_use()}

        def urgency(image: StoredImage) -> tuple[bool, float, str]:
            made = image.created_at.timestamp() if image.created_at is not None else 0.0
            return home_of(image.name) in homes, made, image.name

        for image in sorted(images, key=urgency):
            used = in_use()  # asked again each time: a replica may have come meanwhile
            if image.digest in used or image.name in used:
                continue
            await self._runtime.remove_image(image.name)
            removed += 1
            log.info("removed an unused image", extra={"image": image.name})
            if (await asyncio.to_thread(read_disk, data_dir)).space_percent <= marks.low_percent:
                break
        return removed

    async def _collect_logs(self, node: Node) -> None:
        current = {replica_id: replica.seen.progress.attempt for replica_id, replica in node.replicas.items()}
        await self._logs.collect(
            current,
            self._clock.now().timestamp(),
            max_age_s=self._config.logs.keep_dead_s,
            max_bytes=self._config.logs.keep_dead_bytes,
        )

    def _remove_files(self, keep: frozenset[str]) -> int:
        if not self._folder.is_dir():
            return 0
        gone = [path for path in sorted(self._folder.iterdir()) if path.name not in keep]
        for path in gone:
            volumes.remove(path)
        return len(gone)
