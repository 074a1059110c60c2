"""The machine of the runtime that exists only in memory: its containers, images, registry.

It outlives the ``MemoryRuntime`` objects that talk to it, as containers outlive an agent.
A test says here what programs do, what the registry has, and where things break.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from cloudless.agent.runtime.execport import ExecRequest, ExecResult
from cloudless.agent.runtime.memoryexec import MemoryExec, MemoryInput
from cloudless.agent.runtime.port import (
    Away,
    Back,
    ContainerWish,
    Exited,
    LocalImage,
    OutOfMemory,
    RuntimeEvent,
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
        #: What tags meant once, by its digest.
        self.pins: dict[str, LocalImage] = {}
        self.registry: dict[str, RegistryImage] = {}
        #: First word of the command -> what it does; unknown ones run for ever.
        self.programs: dict[str, Program] = {}
        #: Answers commands run beside containers.
        self.on_exec: Callable[[str, ExecRequest], Awaitable[ExecResult]] | None = None
        #: First word -> a program that is run with its input and output connected.
        self.commands: dict[str, Callable[[MemoryExec], Awaitable[int]]] = {}
        self.open_execs: dict[str, MemoryExec] = {}
        #: Programs that were started detached; a test ends them (``ended``).
        self.detached: list[MemoryExec] = []
        self.opened = 0
        #: What was written to containers' own input.
        self.inputs: dict[str, MemoryInput] = {}
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
