"""A container runtime that exists only in memory: for tests and simulation.

``memorymachine`` holds what is there; a ``MemoryRuntime`` is what an agent sees of it.
"""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace

from cloudless.agent.runtime.errors import (
    BadImage,
    CannotExecute,
    ContainerGone,
    ImageNotFound,
    NotEnforced,
    RegistryAway,
    RegistryDenied,
    RuntimeAway,
    StartFailed,
)
from cloudless.agent.runtime.execport import (
    ExecRequest,
    ExecResult,
    ExecWish,
    Room,
    RunningExec,
)
from cloudless.agent.runtime.memoryexec import MemoryExec, MemoryInput
from cloudless.agent.runtime.memorymachine import MemoryContainer, MemoryMachine, Program
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
from cloudless.aio.supervise import Supervisor
from cloudless.containerd.references import parse, pinned
from cloudless.domain.workload import PullSecret
from cloudless.planning.node import ContainerFact, ContainerState


class MemoryRuntime:
    """``Runtime`` on a ``MemoryMachine``; a second one for the same node adopts what is there."""

    def __init__(self, machine: MemoryMachine, node_id: str = "node-1") -> None:
        self.machine = machine
        self.node_id = node_id

    async def list(self) -> tuple[ContainerFact, ...]:
        await self._asked()
        own = sorted(self.machine.containers.items())
        return tuple(container.fact for _, container in own if container.node_id == self.node_id)

    async def create(self, wish: ContainerWish) -> None:
        await self._asked()
        if wish.image.name not in self.machine.images:
            raise ImageNotFound(f"image {wish.image.name} is not on this node")
        security = wish.spec.security_context
        user = security.run_as_user if security.run_as_user is not None else wish.image.user or "0"
        if security.run_as_non_root and str(user).partition(":")[0] in ("0", "root"):
            raise NotEnforced("run_as_non_root: the container would run as root")
        await self.machine.reached("create")
        if wish.id in self.machine.containers and not self._is_own(wish.id):
            raise StartFailed(f"container id {wish.id} is taken by somebody else")
        fact = ContainerFact(
            id=wish.id,
            replica_id=wish.replica_id,
            workload_id=wish.workload_id,
            attempt=wish.attempt,
            state=ContainerState.RECORDED,
            restarts=wish.restarts,
            spec_hash=wish.spec.template_hash,
            image_digest=wish.image.digest,
        )
        program = self.machine.programs.get(wish.argv[0] if wish.argv else "", Program())
        self.machine.containers.setdefault(wish.id, MemoryContainer(self.node_id, wish, fact, program))
        await self.machine.reached("create:recorded")

    async def start(self, container_id: str) -> int:
        container = await self._own(container_id)
        if container.fact.state is ContainerState.RUNNING:
            return container.fact.pid
        if container.program.cannot_execute:
            command = container.wish.argv[0]
            raise CannotExecute(f"exec: {command!r}: not found", container.program.cannot_execute)
        await self.machine.reached("start")
        container.fact = replace(container.fact, state=ContainerState.CREATED)
        await self.machine.reached("start:created")
        pid = self.machine.run(container)
        await self.machine.reached("start:running")
        return pid

    async def kill(self, container_id: str, signal: int, *, everyone: bool = False) -> None:
        container = await self._own(container_id)
        if container.fact.state is not ContainerState.RUNNING:
            raise ContainerGone(f"container {container_id} does not run")
        container.signals.append(signal)
        if signal == signals.SIGKILL or signal not in container.program.deaf:
            self.machine.end(container_id, 128 + signal)

    async def delete(self, container_id: str) -> None:
        await self._asked()
        container = self.machine.containers.get(container_id)
        if container is None or container.node_id != self.node_id:
            return
        self.machine.end(container_id, 128 + signals.SIGKILL)
        await self.machine.reached("delete")
        container.fact = replace(container.fact, state=ContainerState.RECORDED)
        await self.machine.reached("delete:task")
        self.machine.containers.pop(container_id, None)
        await self.machine.reached("delete:record")

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RuntimeEvent]]:
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue()
        queue.put_nowait(Away(self.machine.away) if self.machine.away else Back())
        self.machine.subscribers.append(queue)

        async def follow() -> AsyncIterator[RuntimeEvent]:
            while True:
                event = await queue.get()
                foreign = isinstance(event, Exited | OutOfMemory) and not self._is_own(event.container_id)
                if not foreign:
                    yield event

        stream = follow()
        try:
            yield stream
        finally:
            self.machine.subscribers.remove(queue)
            await stream.aclose()  # type: ignore[attr-defined]

    async def exec(
        self,
        container_id: str,
        request: ExecRequest,
        *,
        starts: asyncio.Semaphore | None = None,
        began: Callable[[RunningExec], None] | None = None,
        room: Room | None = None,
    ) -> ExecResult:
        async with starts or nullcontext():
            pass  # it starts in no time
        container = await self._own(container_id)
        if container.fact.state is not ContainerState.RUNNING:
            raise ContainerGone(f"container {container_id} does not run")
        number = len(self.machine.execs)
        self.machine.execs.add(number)
        wish = ExecWish(request.argv, request.env, request.cwd, request.user, bool(request.stdin))
        running = self._open(container_id, wish)
        if began is not None:
            began(running)
        try:
            if self.machine.on_exec is None:
                return ExecResult(0)
            async with asyncio.timeout(request.timeout_s):
                result = await self._play(running, self.machine.on_exec(container_id, request))
                return result if room is None else _kept(result, room)
        except TimeoutError:
            return ExecResult(128 + signals.SIGKILL, timed_out=True)
        finally:
            running.finish(0)
            self.machine.execs.discard(number)

    @asynccontextmanager
    async def open_exec(self, container_id: str, wish: ExecWish) -> AsyncIterator[MemoryExec]:
        container = await self._own(container_id)
        if container.fact.state is not ContainerState.RUNNING:
            raise ContainerGone(f"container {container_id} does not run")
        program = self.machine.commands.get(wish.argv[0])
        if program is None:
            raise CannotExecute(f"command not found: {wish.argv[0]}", 127)
        running = self._open(container_id, wish)
        if wish.detach:
            self.machine.detached.append(running)
            yield running
            return
        self.machine.open_execs[running.exec_id] = running
        try:
            async with Supervisor(running.exec_id) as tasks:
                tasks.start("program", running.play(program))
                yield running
        finally:
            del self.machine.open_execs[running.exec_id]

    def _open(self, container_id: str, wish: ExecWish) -> MemoryExec:
        self.machine.opened += 1
        return MemoryExec(f"x-{self.machine.opened}", wish, container_id, self.machine.clock.now())

    async def _play(self, running: MemoryExec, result: Awaitable[ExecResult]) -> ExecResult:
        """What a buffered command leaves, unless it is ended before."""

        async def settle() -> ExecResult | Exception:
            try:
                return await result
            except Exception as error:
                return error  # as it is, not in a group

        async with asyncio.TaskGroup() as group:
            work, ended = group.create_task(settle()), group.create_task(running.signalled.wait())
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not work.done():
                work.cancel()
                return ExecResult(128 + running.signals[-1])
        end = work.result()
        if isinstance(end, Exception):
            raise end
        return end

    @asynccontextmanager
    async def attach(self, container_id: str) -> AsyncIterator[MemoryInput]:
        container = await self._own(container_id)
        spec = container.wish.spec
        if container.fact.state is not ContainerState.RUNNING or not (spec.stdin or spec.tty):
            raise ContainerGone(f"container {container_id} does not read its input")
        yield self.machine.inputs.setdefault(container_id, MemoryInput())

    async def collect_execs(self) -> tuple[int, tuple[MemoryExec, ...]]:
        left = len(self.machine.execs)
        self.machine.execs.clear()
        return left, ()

    async def collect_strays(self) -> tuple[str, ...]:
        await self._asked()
        return ()

    async def resolve(self, reference: str) -> LocalImage:
        await self._asked()
        images, wanted = self.machine.images, parse(reference)
        image = images.get(reference) or self.machine.pins.get(reference)
        for name, other in images.items():
            lends = other.imported or parse(name).home == wanted.home
            if image is None and lends and other.digest == wanted.digest:
                image = self.machine.pins[wanted.name] = other
        if image is None:
            raise ImageNotFound(f"image {reference} is not on this node")
        return image

    async def pull(self, reference: str, secret: PullSecret | None, on_progress: OnProgress) -> LocalImage:
        await self._asked()
        self.machine.pulls += 1
        if self.machine.registry_away:
            raise RegistryAway(f"pull {reference}: connection refused")
        found = self.machine.registry.get(reference)
        if found is None:
            raise ImageNotFound(f"pull {reference}: not found")
        if found.secret is not None and found.secret != secret:
            raise RegistryDenied(f"pull {reference}: 401 Unauthorized")
        on_progress(PullProgress("downloading", 0, found.image.size_bytes))
        await self.machine.clock.sleep(found.pull_s)
        for image in (self.machine.images.get(reference), found.image):
            if image is not None:
                self.machine.pins[pinned(reference, image.digest)] = image
        self.machine.images[reference] = found.image
        return found.image

    async def images(self) -> tuple[StoredImage, ...]:
        await self._asked()
        tagged = {image.digest for image in self.machine.images.values()}
        left = {name: image for name, image in self.machine.pins.items() if image.digest not in tagged}
        return tuple(
            StoredImage(name, image.digest, image.size_bytes)
            for name, image in sorted((self.machine.images | left).items())
        )

    async def remove_image(self, reference: str) -> None:
        await self._asked()
        images, pins = self.machine.images, self.machine.pins
        image = images.pop(reference, None) or pins.pop(reference, None)
        if image is None:
            raise ImageNotFound(f"image {reference} is not on this node")
        if all(other.digest != image.digest for other in images.values()):
            self.machine.pins = {name: one for name, one in pins.items() if one.digest != image.digest}

    async def import_archive(self, path: str, name: str) -> tuple[LocalImage, ...]:
        await self._asked()
        raise BadImage("this runtime takes no archives")

    async def info(self) -> RuntimeInfo:
        await self._asked()
        return RuntimeInfo(version="memory")

    async def close(self) -> None:
        return

    async def _asked(self) -> None:
        # A real daemon answers later, never at once: others run meanwhile.
        await asyncio.sleep(0)
        if self.machine.away:
            raise RuntimeAway(self.machine.away)

    async def _own(self, container_id: str) -> MemoryContainer:
        await self._asked()
        if not self._is_own(container_id):
            raise ContainerGone(f"container {container_id} does not exist")
        return self.machine.containers[container_id]

    def _is_own(self, container_id: str) -> bool:
        container = self.machine.containers.get(container_id)
        return container is not None and container.node_id == self.node_id


def _kept(result: ExecResult, room: Room) -> ExecResult:
    """As much of its output as there is room for."""
    out, err = (data[: room.take(len(data))] for data in (result.stdout, result.stderr))
    return replace(
        result,
        stdout=out,
        stderr=err,
        stdout_truncated=result.stdout_truncated or len(out) < len(result.stdout),
        stderr_truncated=result.stderr_truncated or len(err) < len(result.stderr),
    )
