"""Pulls images from registries, through containerd's CRI plugin.

The plugin does the work: download, check of digests, unpacking. A cancelled pull is
aborted and leaves nothing; so is one of which nothing arrives any more. There are no
retries here: who asked decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cloudless.aio.clock import Clock
from cloudless.api.runtime.v1 import AuthConfig, ImageServiceStub, ImageSpec, PullImageRequest
from cloudless.containerd import causes, limits, references
from cloudless.containerd.content import Content, Ingest
from cloudless.containerd.errors import PULL_RULES, ContainerdError, RegistryUnavailable
from cloudless.containerd.images import Image, Images
from cloudless.containerd.rpc import Connection

#: Registries that answer under another name than images carry.
HOSTS = {references.DEFAULT_REGISTRY: "registry-1.docker.io"}


@dataclass(frozen=True)
class Credentials:
    """Either a name with its password, or one of the tokens."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True)
class PullProgress:
    """What is arriving now. ``total_bytes`` grows while sizes become known; layers that are
    done leave the count, after the last one they are unpacked. ``begun``: whether anything
    has come. When several pulls run at once it tells of all of them together."""

    done_bytes: int
    total_bytes: int
    parts: int
    begun: bool = True


class Puller:
    """Pulls into this client's namespace, which must be the one that the CRI plugin uses."""

    def __init__(self, connection: Connection, images: Images, content: Content, *, clock: Clock) -> None:
        self._connection = connection
        self._stub = connection.stub(ImageServiceStub)
        self._images = images
        self._content = content
        self._clock = clock

    async def pull(
        self,
        reference: str,
        *,
        credentials: Credentials | None = None,
        on_progress: Callable[[PullProgress], None] | None = None,
        timeout_s: float = limits.PULL_TIMEOUT_S,
        stall_s: float = limits.PULL_STALL_S,
        begin_s: float = limits.PULL_BEGIN_S,
    ) -> Image:
        """Fetch and unpack an image, and describe it; present parts are not fetched again.

        It fails when nothing has come after ``begin_s``, or no more for ``stall_s``.

        Raises ``InvalidRequest`` (the reference), ``ImageNotFound``, ``RegistryUnauthorized``,
        ``RegistryUnavailable``, ``InvalidImage``, ``NoSpace``, ``Unavailable``, ``Failed``.
        """
        wanted = references.parse(reference)
        request = PullImageRequest(
            image=ImageSpec(image=wanted.name), auth=_auth(wanted.registry, credentials)
        )
        about = f"cannot pull {wanted.name}"
        await self._images.pin(wanted.name)  # what the tag may leave behind
        try:
            async with self._watched(on_progress, stall_s, begin_s):
                await self._connection.call(
                    self._stub.pull_image, request, about=about, timeout_s=timeout_s, rules=PULL_RULES
                )
        except ContainerdError as error:
            cause = causes.pull_cause(error.message.removeprefix(f"{about}: "))
            raise type(error)(f"{about}: {cause}") from error
        except TimeoutError:
            raise RegistryUnavailable(f"{about}: the registry has stopped sending") from None
        await self._images.pin(wanted.name)
        return await self._images.resolve(wanted.name)

    @asynccontextmanager
    async def _watched(
        self, report: Callable[[PullProgress], None] | None, stall_s: float, begin_s: float
    ) -> AsyncIterator[None]:
        """Report what arrives; raises ``TimeoutError`` when nothing does."""
        failure: ContainerdError | None = None
        async with asyncio.timeout(begin_s) as deadline, asyncio.TaskGroup() as group:
            poll = group.create_task(self._poll(report, deadline, stall_s), name="pull progress")
            try:
                yield
            except ContainerdError as error:
                failure = error  # raised below, so that the group does not wrap it
            finally:
                poll.cancel()
        if failure is not None:
            raise failure

    async def _poll(
        self, report: Callable[[PullProgress], None] | None, deadline: asyncio.Timeout, stall_s: float
    ) -> None:
        before: frozenset[Ingest] = frozenset()
        while True:
            try:
                now = frozenset(one for one in await self._content.ingests() if one.total_bytes > 0)
            except ContainerdError:
                now = before  # the pull itself will tell
            if now != before and not deadline.expired():
                # What is unpacked takes as long as it takes: the whole call has a deadline.
                deadline.reschedule(asyncio.get_running_loop().time() + stall_s if now else None)
            begun = bool(now) or deadline.when() is None
            before = now
            if report is not None:
                report(
                    PullProgress(
                        done_bytes=sum(part.offset_bytes for part in now),
                        total_bytes=sum(part.total_bytes for part in now),
                        parts=len(now),
                        begun=begun,
                    )
                )
            await self._clock.sleep(limits.PULL_PROGRESS_INTERVAL_S)


def _auth(registry: str, credentials: Credentials | None) -> AuthConfig | None:
    if credentials is None:
        return None
    # With the address they go to this registry only, not to where it may send us.
    return AuthConfig(
        username=credentials.username,
        password=credentials.password,
        server_address=f"https://{HOSTS.get(registry, registry)}",
        identity_token=credentials.identity_token,
        registry_token=credentials.registry_token,
    )
