"""A container runtime that exists only in memory: for tests and simulation.

``MemoryMachine`` stands for the machine with its runtime daemon and outlives the
``MemoryRuntime`` objects that talk to it, as containers outlive an agent. A test says
what programs do, what the registry has, and where things break.
"""

from __future__ import annotations

import asyncio
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

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
from cloudless.agent.runtime.port import (
    Away,
    Back,
    ContainerWish,
    ExecRequest,
    ExecResult,
    Exited,
    LocalImage,
    OnProgress,
    OutOfMemory,
    PullProgress,
    RuntimeEvent,
    RuntimeInfo,
    StoredImage,
)
from cloudless.aio.clock import Clock
from cloudless.domain.workload import PullSecret
from cloudless.planning.node import ContainerFact, ContainerState


@dataclass(slots=True)
class Program:
    """What a process does: run for ever, or end by itself; ``deaf`` to which signals."""

    ends_after_s: float | None = None
    exit_code: int = 0
    out_of_memory: bool = False
    deaf: frozenset[int] = frozenset()
    cannot_execute: int = 0


@dataclass(slots=True)
class MemoryContainer:
    """A container of the machine, with the node it belongs to."""

    node_id: str
    wish: ContainerWish
    fact: ContainerFact
    program: Program
    signals: list[int] = field(default_factory=list)
    ending: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class RegistryImage:
    """What the registry has under a name; ``pull_s`` is how long a pull takes."""

    image: LocalImage
    pull_s: float = 0.0
    secret: PullSecret | None = None


async def _no_step(step: str) -> None:
    """The default hook: every step just happens."""


class MemoryMachine:
    """The machine: containers, images, registry; and the knobs of a test."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.containers: dict[str, MemoryContainer] = {}
        self.images: dict[str, LocalImage] = {}
        self.registry: dict[str, RegistryImage] = {}
        #: First word of the command -> what it does; unknown ones run for ever.
        self.programs: dict[str, Program] = {}
        #: Answers commands run beside containers.
        self.on_exec: Callable[[str, ExecRequest], Awaitable[ExecResult]] | None = None
        #: Awaited between the steps of create, start and delete, with the step's name.
        self.reached: Callable[[str], Awaitable[None]] = _no_step
        self.away = ""
        self.registry_away = False
        self.pulls = 0
        self.execs: set[int] = set()
        self.subscribers: list[asyncio.Queue[RuntimeEvent]] = []
        self._next_pid = 1000

    def add_image(self, name: str, *, pull_s: float = 0.0, **fields: object) -> LocalImage:
        """Put an image into the registry."""
        image = LocalImage(name=name, digest=f"sha256:{abs(hash(name)):064x}"[:71])
        image = replace(image, **fields)  # type: ignore[arg-type]
        self.registry[name] = RegistryImage(image, pull_s)
        return image

    def stop_answering(self, why: str = "containerd is down") -> None:
        """The daemon dies; containers run on, and nobody hears of their ends."""
        self.away = why
        self._tell(Away(why))

    def answer_again(self) -> None:
        """The daemon is back."""
        self.away = ""
        self._tell(Back())

    def lose_events(self) -> None:
        """A gap: subscribers must list again."""
        self._tell(Back())

    def end(
        self, container_id: str, exit_code: int, *, out_of_memory: bool = False, quiet: bool = False
    ) -> None:
        """A container's process ends; ``quiet`` loses the event."""
        container = self.containers[container_id]
        if container.fact.state is not ContainerState.RUNNING:
            return
        if container.ending is not None:
            container.ending.cancel()
        now = self.clock.now()
        container.fact = replace(
            container.fact, state=ContainerState.STOPPED, exit_code=exit_code, finished_at=now
        )
        if self.away or quiet:
            return
        if out_of_memory:
            self._tell(OutOfMemory(container_id))
        self._tell(Exited(container_id, exit_code, now))

    def running(self) -> list[MemoryContainer]:
        """Containers with a live process, by id."""
        return [
            container
            for _, container in sorted(self.containers.items())
            if container.fact.state is ContainerState.RUNNING
        ]

    def run(self, container: MemoryContainer) -> int:
        """Start the process of a container that is ready."""
        self._next_pid += 1
        now, program = self.clock.now(), container.program
        container.fact = replace(
            container.fact, state=ContainerState.RUNNING, pid=self._next_pid, started_at=now
        )
        if program.ends_after_s is not None:
            container.ending = asyncio.get_running_loop().call_later(
                program.ends_after_s,
                lambda: self.end(container.fact.id, program.exit_code, out_of_memory=program.out_of_memory),
            )
        return self._next_pid

    def _tell(self, event: RuntimeEvent) -> None:
        for subscriber in self.subscribers:
            subscriber.put_nowait(event)


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

    async def exec(self, container_id: str, request: ExecRequest) -> ExecResult:
        container = await self._own(container_id)
        if container.fact.state is not ContainerState.RUNNING:
            raise ContainerGone(f"container {container_id} does not run")
        number = len(self.machine.execs)
        self.machine.execs.add(number)
        try:
            if self.machine.on_exec is None:
                return ExecResult(0)
            async with asyncio.timeout(request.timeout_s):
                return await self.machine.on_exec(container_id, request)
        except TimeoutError:
            return ExecResult(128 + signals.SIGKILL, timed_out=True)
        finally:
            self.machine.execs.discard(number)

    async def collect_execs(self) -> int:
        left = len(self.machine.execs)
        self.machine.execs.clear()
        return left

    async def resolve(self, reference: str) -> LocalImage:
        await self._asked()
        image = self.machine.images.get(reference)
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
        self.machine.images[reference] = found.image
        return found.image

    async def images(self) -> tuple[StoredImage, ...]:
        await self._asked()
        return tuple(
            StoredImage(name, image.digest, image.size_bytes)
            for name, image in sorted(self.machine.images.items())
        )

    async def remove_image(self, reference: str) -> None:
        await self._asked()
        if self.machine.images.pop(reference, None) is None:
            raise ImageNotFound(f"image {reference} is not on this node")

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
