"""``Runtime`` on a containerd: the agent's real one.

Containers carry this node's id as a label; what does not is never listed, signalled or
deleted. The record is written before the snapshot, or containerd's collector might take
the snapshot in between.
"""

from __future__ import annotations

import asyncio
import pathlib
import signal as signals
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace

from cloudless.agent.limits import INFO_TIMEOUT_S, KILL_WAIT_S
from cloudless.agent.logs.capture import holding
from cloudless.agent.runtime import translate
from cloudless.agent.runtime.errors import ImageNotFound, NotEnforced, StartFailed
from cloudless.agent.runtime.execport import (
    ExecRequest,
    ExecResult,
    ExecWish,
    Room,
    RunningExec,
)
from cloudless.agent.runtime.execs import Execs
from cloudless.agent.runtime.inputs import ContainerInput, Inputs
from cloudless.agent.runtime.oom import group_of, killed_for_memory
from cloudless.agent.runtime.port import (
    Away,
    Back,
    ContainerWish,
    Exited,
    LocalImage,
    OnProgress,
    OutOfMemory,
    PullProgress,
    RuntimeEvent,
    RuntimeInfo,
    StoredImage,
)
from cloudless.agent.runtime.translate import translated
from cloudless.aio.clock import Clock
from cloudless.containerd import errors, events, host, oci, plan, runtimes
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.execgroups import find_hierarchy
from cloudless.containerd.images import Image, is_tag
from cloudless.containerd.pull import Credentials
from cloudless.containerd.pull import PullProgress as Arriving
from cloudless.containerd.references import pinned
from cloudless.containerd.snapshots import Mount
from cloudless.domain.workload import PullSecret
from cloudless.planning.node import ContainerFact

#: Images whose description is kept at hand; the rest is asked for again.
MAX_KNOWN_IMAGES = 256
#: What a container ends with when SIGKILL ended it, or its last child.
KILLED = 128 + signals.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=False)
class _Ready:
    """What ``create`` has prepared and ``start`` needs."""

    mounts: tuple[Mount, ...]
    log_uri: str
    runtime: runtimes.Runtime
    terminal: bool


class ContainerdRuntime:
    """``folder`` is the agent's own: execs' pipes, spooled archives, wrapper scripts. ``close`` it."""

    def __init__(
        self,
        client: ContainerdClient,
        *,
        node_id: str,
        folder: pathlib.Path,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._client = client
        self._node_id = node_id
        self._folder = folder
        self._clock = clock
        self._host = host.probe()
        groups = find_hierarchy()
        self._classes = runtimes.probe(folder / "runtimes", groups=groups)
        self._known: dict[str, Image] = {}
        #: Made but not started yet: root file system, log and runtime.
        self._ready: dict[str, _Ready] = {}
        self._inputs = Inputs(folder / "runtimes" / runtimes.INPUTS)
        self._execs = Execs(
            client,
            folder=folder / "execs",
            clock=clock,
            new_id=new_id,
            hierarchy=groups,
            parent=group_of(node_id, ""),
        )

    async def list(self) -> tuple[ContainerFact, ...]:
        with translated():
            records = await self._client.containers.list(f'labels."{translate.NODE_LABEL}"=={self._node_id}')
            tasks = {task.container_id: task for task in await self._client.tasks.list()} if records else {}
        found = (translate.fact(record, tasks.get(record.id)) for record in records)
        return tuple(fact for fact in found if fact is not None)

    async def create(self, wish: ContainerWish) -> None:
        client = self._client
        runtime = self._runtime_class(wish.spec.runtime_class_name)
        if wish.spec.stdin and not wish.spec.tty and runtime.name != runtimes.RUNC.name:
            raise NotEnforced(f"stdin without tty: runtime class {runtime.name} cannot give it")
        if wish.spec.stdin or wish.spec.tty:
            wish = replace(wish, log_uri=holding(wish.log_uri, self._inputs.make(wish.id)))
        with translated():
            image = self._known.get(wish.image.name)
            if image is None or image.digest != wish.image.digest:
                image = await client.images.resolve(wish.image.name)
                if image.digest != wish.image.digest:  # the tag has moved since the image was chosen
                    image = await client.images.resolve(pinned(wish.image.name, wish.image.digest))
                self._remember(image)
            user = await self._user(wish, image)
            spec = oci.build_spec(translate.container_plan(wish, user, self._host, self._node_id))
            try:
                await client.containers.create(
                    wish.id,
                    image=image.name,
                    spec=spec,
                    snapshot_key=wish.id,
                    labels=translate.labels(wish, self._node_id),
                    runtime=runtime,
                )
            except errors.AlreadyExists:  # an earlier try was cut short here, or it is another's
                if not await self._is_ours(wish.id):
                    raise StartFailed(f"container id {wish.id} is taken by somebody else") from None
            try:
                mounts = await client.snapshots.prepare(wish.id, image.chain_id)
            except errors.AlreadyExists:
                mounts = await client.snapshots.mounts(wish.id)
            except errors.NotFound:
                self._known.pop(image.name, None)
                raise ImageNotFound(f"image {image.name} is not on this node any more") from None
        self._ready[wish.id] = _Ready(mounts, wish.log_uri, runtime, terminal=wish.spec.tty)
        self._execs.know_spec(wish.id, spec)

    async def start(self, container_id: str) -> int:
        client = self._client
        with translated():
            ready = self._ready.pop(container_id, None)
            ready = ready if ready is not None else await self._recall(container_id)
            with self._inputs.held(container_id) as stdin:
                try:
                    await client.tasks.create(
                        container_id,
                        ready.mounts,
                        log_uri=ready.log_uri,
                        terminal=ready.terminal,
                        stdin=str(stdin) if stdin is not None and ready.terminal else "",
                        runtime=ready.runtime,
                    )
                except errors.AlreadyExists:
                    task = await client.tasks.get(container_id)
                    if task.status.name == "RUNNING":
                        return task.pid
                return await client.tasks.start(container_id)

    async def kill(self, container_id: str, signal: int, *, everyone: bool = False) -> None:
        with translated():
            await self._client.tasks.kill(container_id, signal, all_processes=everyone)

    async def delete(self, container_id: str) -> None:
        self._ready.pop(container_id, None)
        self._execs.forget_spec(container_id)
        self._inputs.remove(container_id)
        client = self._client
        with translated():
            if not await self._is_ours(container_id):
                return
            try:
                await client.tasks.delete(container_id)
            except errors.PreconditionFailed:
                await self._kill_and_delete(container_id)
            except (errors.NotFound, errors.ShimLost):
                pass  # never started, or died with its shim
            # The record goes last: it alone says that the rest is ours.
            for remove in (client.snapshots.remove, client.containers.delete):
                with suppress(errors.NotFound):
                    await remove(container_id)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        async with aclosing(self._follow()) as stream:
            yield stream

    async def exec(
        self,
        container_id: str,
        request: ExecRequest,
        *,
        starts: asyncio.Semaphore | None = None,
        began: Callable[[RunningExec], None] | None = None,
        room: Room | None = None,
    ) -> ExecResult:
        with translated():
            return await self._execs.run(container_id, request, starts, began, room)

    def open_exec(self, container_id: str, wish: ExecWish) -> AbstractAsyncContextManager[RunningExec]:
        return self._execs.open(container_id, wish)

    @asynccontextmanager
    async def attach(self, container_id: str) -> AsyncIterator[ContainerInput]:
        with closing(self._inputs.join(container_id)) as writer:
            yield ContainerInput(self._client, self._inputs, container_id, writer)

    async def collect_execs(self) -> tuple[int, tuple[RunningExec, ...]]:
        with translated():
            return await self._execs.collect()

    async def collect_strays(self) -> tuple[str, ...]:
        with translated():
            return await self._client.strays.collect(translate.CONTAINER_PREFIX)

    async def resolve(self, reference: str) -> LocalImage:
        with translated():
            image = await self._client.images.resolve(reference)
        self._remember(image)
        return translate.local_image(image)

    async def pull(self, reference: str, secret: PullSecret | None, on_progress: OnProgress) -> LocalImage:
        credentials = Credentials(secret.username, secret.password) if secret is not None else None

        def arriving(now: Arriving) -> None:
            stage = PullProgress("downloading", now.done_bytes, now.total_bytes)
            idle = PullProgress("unpacking" if now.begun else "resolving")
            on_progress(stage if now.parts else idle)

        owners = self._client.image_owners
        with translated():
            others = await owners.of_others(self._node_id)
            image = await self._client.puller.pull(reference, credentials=credentials, on_progress=arriving)
            await owners.claim((image,), self._node_id, others)
        self._remember(image)
        return translate.local_image(image)

    async def images(self) -> tuple[StoredImage, ...]:
        with translated():
            records = await self._client.images.list()
        found = []
        for record in records:
            if not is_tag(record.name) and any(
                is_tag(other.name) and other.digest == record.digest for other in records
            ):
                continue
            found.append(
                StoredImage(
                    record.name, record.digest, await self._size_bytes(record.name), record.created_at
                )
            )
        return tuple(found)

    async def remove_image(self, reference: str) -> None:
        with translated():
            for name in await self._client.images.delete(reference):
                self._known.pop(name, None)

    async def import_archive(self, path: str, name: str) -> tuple[LocalImage, ...]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owners = self._client.image_owners
        with translated():
            others = await owners.of_others(self._node_id)
            images = await self._client.importer.import_archive(
                pathlib.Path(path), spool_dir=self._folder, name=name
            )
            await owners.claim(images, self._node_id, others)
        for image in images:
            self._remember(image)
        return tuple(translate.local_image(image) for image in images)

    async def info(self) -> RuntimeInfo:
        with translated():
            version = await self._client.version(timeout_s=INFO_TIMEOUT_S)
        return RuntimeInfo(
            version=version.version,
            runtime_classes=tuple(
                sorted(name for name, kind in self._classes.items() if isinstance(kind, runtimes.Runtime))
            ),
            seccomp=self._host.seccomp,
            apparmor=self._host.apparmor,
        )

    async def close(self) -> None:
        self._client.close()

    async def _follow(self) -> AsyncGenerator[RuntimeEvent, None]:
        async with aclosing(self._client.events.follow()) as stream:
            async for event in stream:
                match event:
                    case events.Gap():
                        yield Back()
                    case events.Lost():
                        yield Away(event.why)
                    case events.TaskExited(exec_id=""):
                        if event.exit_code == KILLED and killed_for_memory(
                            group_of(self._node_id, event.container_id)
                        ):
                            yield OutOfMemory(event.container_id)
                        yield Exited(
                            event.container_id, event.exit_code, event.exited_at or self._clock.now()
                        )
                    case events.TaskOomKilled():
                        yield OutOfMemory(event.container_id)

    async def _is_ours(self, container_id: str) -> bool:
        try:
            record = await self._client.containers.get(container_id)
        except errors.NotFound:
            return False
        return record.labels.get(translate.NODE_LABEL) == self._node_id

    async def _recall(self, container_id: str) -> _Ready:
        """What ``create`` of an earlier life prepared."""
        record = await self._client.containers.get(container_id)
        mounts = await self._client.snapshots.mounts(container_id)
        terminal = bool(record.spec_dict().get("process", {}).get("terminal"))
        return _Ready(
            mounts, record.labels.get(translate.LOG_LABEL, ""), self._runtime_class(""), terminal=terminal
        )

    async def _kill_and_delete(self, container_id: str) -> None:
        with suppress(errors.NotFound):  # it ended meanwhile
            await self._client.tasks.kill(container_id, signals.SIGKILL, all_processes=True)
        await self._client.tasks.wait(container_id, timeout_s=KILL_WAIT_S)
        await self._client.tasks.delete(container_id)

    async def _user(self, wish: ContainerWish, image: Image) -> plan.User:
        security = wish.spec.security_context
        text = image.config.user if security.run_as_user is None else str(security.run_as_user)
        try:
            user = await self._client.accounts.in_image(image.chain_id, text)
        except errors.InvalidRequest as error:
            raise NotEnforced(error.message) from None
        return translate.identity(security, user)

    def _runtime_class(self, name: str) -> runtimes.Runtime:
        found = self._classes.get(name or runtimes.RUNC.name)
        if isinstance(found, runtimes.Runtime):
            return found
        why = found.reason if isinstance(found, runtimes.Missing) else "it is not known"
        raise NotEnforced(f"runtime_class_name {name or runtimes.RUNC.name}: {why}")

    async def _size_bytes(self, name: str) -> int:
        try:
            return (await self._client.images.resolve(name)).size_bytes
        except (errors.ImageNotFound, errors.InvalidImage, errors.InvalidRequest):
            return 0  # not for this platform, or incomplete

    def _remember(self, image: Image) -> None:
        while len(self._known) >= MAX_KNOWN_IMAGES:
            self._known.pop(next(iter(self._known)))
        self._known[image.name] = image
