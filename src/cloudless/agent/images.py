"""Images of this node: made present for replicas, listed and removed for people, collected.

Replicas that need the same image share one pull. Nothing that a container of this node
runs from, or an assigned replica needs, is ever collected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from cloudless.agent.limits import CONCURRENT_PULLS, CONCURRENT_PULLS_OF_REGISTRY
from cloudless.agent.runtime.errors import ImageNotFound, RegistryAway, RegistryDenied
from cloudless.agent.runtime.port import (
    LocalImage,
    OnProgress,
    PullProgress,
    Runtime,
)
from cloudless.aio.supervise import Supervisor
from cloudless.containerd import references
from cloudless.containerd.errors import InvalidRequest
from cloudless.domain.errors import CloudlessError, Invalid
from cloudless.domain.workload import ImagePullPolicy, PullSecret, WorkloadSpec

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Pull:
    """A pull under way and who waits for it."""

    outcome: asyncio.Future[LocalImage]
    task: asyncio.Task[None] | None = None
    listeners: list[OnProgress] = field(default_factory=list)
    waiting: int = 0


class ImageKeeper:
    """Pulls run as children of ``supervisor``; a pull that nobody waits for any more is stopped."""

    def __init__(self, runtime: Runtime, supervisor: Supervisor) -> None:
        self._runtime = runtime
        self._supervisor = supervisor
        self._pulls: dict[tuple[str, PullSecret | None], _Pull] = {}
        self._slots = asyncio.Semaphore(CONCURRENT_PULLS)
        # A registry's own slots are there while somebody uses them.
        self._of_registry: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._numbers = 0

    async def ensure(
        self,
        spec: WorkloadSpec,
        digest: str,
        on_progress: OnProgress,
        *,
        pull: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> LocalImage:
        """The image that a replica runs; ``digest`` pins it and then no newer one is asked for.

        ``pull`` asks the registry even when the image is there, as the policy ALWAYS does; the
        policy NEVER stays never. An imported image that no registry gives is run as it is then,
        and ``tell`` says so. Raises what ``Runtime.pull`` raises; ``ImageNotFound`` also when it
        may not be pulled.
        """
        reference = pinned(spec.image, digest) if digest else spec.image
        policy = spec.pull_policy
        falls_back = pull and not digest and policy is ImagePullPolicy.IF_NOT_PRESENT
        if pull and policy is not ImagePullPolicy.NEVER:
            policy = ImagePullPolicy.ALWAYS
        if digest or policy is not ImagePullPolicy.ALWAYS:
            for candidate in dict.fromkeys((reference, spec.image)):
                found = await self._find(candidate)
                if found is not None and (not digest or found.digest == digest):
                    return found
        if policy is ImagePullPolicy.NEVER:
            raise ImageNotFound(f"image {reference} is not on this node, and image_pull_policy is NEVER")
        try:
            return await self.pull(reference, secret_for(reference, spec.pull_secrets), on_progress)
        except (RegistryAway, RegistryDenied, ImageNotFound) as error:
            own = await self._find(spec.image) if falls_back else None
            if own is None or not own.imported:
                raise
            tell(f"{error.message}; {own.name} was imported to this node and is run as it is here")
            return own

    async def pull(self, reference: str, secret: PullSecret | None, on_progress: OnProgress) -> LocalImage:
        """Pull, or wait for the same pull that somebody else began. Raises as ``Runtime.pull``."""
        key = (reference, secret)
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull(asyncio.get_running_loop().create_future())
            self._numbers += 1
            pull.task = self._supervisor.start(f"pull {self._numbers} {reference}", self._pull(key, pull))
        pull.listeners.append(on_progress)
        pull.waiting += 1
        try:
            return await asyncio.shield(pull.outcome)
        finally:
            pull.listeners.remove(on_progress)
            pull.waiting -= 1
            if pull.waiting == 0 and not pull.outcome.done():
                self._forget(key, pull)
                assert pull.task is not None
                pull.task.cancel()

    async def _pull(self, key: tuple[str, PullSecret | None], pull: _Pull) -> None:
        def progress(now: PullProgress) -> None:
            for listener in tuple(pull.listeners):
                listener(now)

        try:
            async with self._slots_of(key[0]), self._slots:
                pull.outcome.set_result(await self._runtime.pull(*key, progress))
        except CloudlessError as error:
            pull.outcome.set_exception(error)
            pull.outcome.exception()  # whoever waits gets it; perhaps nobody does any more
        finally:
            self._forget(key, pull)

    def _slots_of(self, reference: str) -> asyncio.Semaphore:
        registry = _parse(reference).registry
        slots = self._of_registry.get(registry)
        if slots is None:
            slots = self._of_registry[registry] = asyncio.Semaphore(CONCURRENT_PULLS_OF_REGISTRY)
        return slots

    def _forget(self, key: tuple[str, PullSecret | None], pull: _Pull) -> None:
        if self._pulls.get(key) is pull:
            del self._pulls[key]

    async def _find(self, reference: str) -> LocalImage | None:
        try:
            return await self._runtime.resolve(reference)
        except ImageNotFound:
            return None


def pinned(reference: str, digest: str) -> str:
    """The reference of exactly this image.

    >>> pinned("nginx:alpine", "sha256:" + "0" * 64)[:40]
    'docker.io/library/nginx@sha256:000000000'
    """
    return f"{_parse(reference).home}@{digest}"


def full_name(reference: str) -> str:
    """The name under which the runtime stores an image.

    >>> full_name("nginx")
    'docker.io/library/nginx:latest'
    """
    return _parse(reference).name


def home_of(reference: str) -> str:
    """Registry and repository of a name; of a bare digest or another program's name just that.

    >>> home_of("nginx:alpine"), home_of("sha256:00")
    ('docker.io/library/nginx', 'sha256:00')
    """
    if reference.startswith("sha256:"):
        return reference
    try:
        return references.parse(reference).home
    except InvalidRequest:
        return reference


def secret_for(reference: str, secrets: tuple[PullSecret, ...]) -> PullSecret | None:
    """The credentials for the registry of an image; None when there are none."""
    registry = _parse(reference).registry
    return next((secret for secret in secrets if _host(secret.server) == registry), None)


def _host(server: str) -> str:
    host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _parse(reference: str) -> references.Reference:
    try:
        return references.parse(reference)
    except InvalidRequest as error:
        raise Invalid.field("image", error.message) from None
