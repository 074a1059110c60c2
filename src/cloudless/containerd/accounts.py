"""Looks up users in images and running containers; see ``users`` for the rules.

The answer for an image never changes, so it is remembered: only the first container
of an image pays for a view of its files.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

from cloudless.aio.clock import Clock
from cloudless.containerd import limits
from cloudless.containerd.errors import Failed, NotFound
from cloudless.containerd.leases import Leases
from cloudless.containerd.plan import User
from cloudless.containerd.rootfs import layer_folders, read_container, read_layers
from cloudless.containerd.snapshots import Snapshots
from cloudless.containerd.users import resolve_user

PASSWD = "/etc/passwd"
GROUP = "/etc/group"
LEASE_LENGTH = datetime.timedelta(minutes=5)


class Accounts:
    """Resolves "user[:group]"; see ``plan.User``."""

    def __init__(
        self, snapshots: Snapshots, leases: Leases, *, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._snapshots = snapshots
        self._leases = leases
        self._clock = clock
        self._new_id = new_id
        self._known: dict[tuple[str, str], User] = {}

    async def in_image(self, chain_id: str, user: str) -> User:
        """Who ``user`` is in the image with these layers. Raises ``InvalidRequest``, ``InvalidImage``."""
        key = (chain_id, user)
        known = self._known.get(key)
        if known is None:
            known = resolve_user(user, *await self._read_image(chain_id))
            if len(self._known) >= limits.MAX_CACHED_USERS:
                self._known.pop(next(iter(self._known)))
            self._known[key] = known
        return known

    async def in_container(self, pid: int, user: str) -> User:
        """Who ``user`` is in the container of the process ``pid``. Raises as ``in_image``; ``NotFound``."""

        def read() -> tuple[bytes, bytes]:
            passwd = read_container(pid, PASSWD, limits.MAX_ACCOUNT_FILE_BYTES)
            group = read_container(pid, GROUP, limits.MAX_ACCOUNT_FILE_BYTES)
            return passwd or b"", group or b""

        try:
            async with asyncio.timeout(limits.CALL_TIMEOUT_S):
                return resolve_user(user, *await asyncio.to_thread(read))
        except FileNotFoundError as error:
            raise NotFound(f"process {pid} is gone") from error
        except OSError as error:
            raise Failed(f"cannot read the accounts of process {pid}: {error}") from error

    async def _read_image(self, chain_id: str) -> tuple[bytes, bytes]:
        key = f"cloudless-view-{self._new_id()}"
        until = self._clock.now() + LEASE_LENGTH
        async with self._leases.hold(key, until=until) as lease:
            mounts = await self._snapshots.view(key, chain_id, lease=lease)
            try:
                folders = layer_folders(mounts)
                passwd = await asyncio.to_thread(read_layers, folders, PASSWD, limits.MAX_ACCOUNT_FILE_BYTES)
                group = await asyncio.to_thread(read_layers, folders, GROUP, limits.MAX_ACCOUNT_FILE_BYTES)
            finally:
                await self._snapshots.remove(key)
        return passwd or b"", group or b""
