"""``Programs``: runs what callers of Exec ask for, within this node's limits.

``AgentService`` calls ``serve``. Each program is a session of its own, a task of the
agent's; ``keep`` looks after what earlier lives of the agent left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any

from cloudless import api
from cloudless.agent.execs.find import find_replica, name_of
from cloudless.agent.execs.limits import MAX_DETACHED, MAX_DETACHED_OF_CALLER
from cloudless.agent.execs.messages import first, inputs, member_of, size_of, wish_of
from cloudless.agent.execs.places import Places
from cloudless.agent.execs.registry import ExecRegistry
from cloudless.agent.execs.session import Session, exit_of
from cloudless.agent.node import Node
from cloudless.agent.runtime.errors import CannotExecute, ContainerGone
from cloudless.agent.runtime.execport import ExecWish, RunningExec
from cloudless.agent.runtime.port import Runtime
from cloudless.aio.supervise import Supervisor
from cloudless.domain.errors import CloudlessError, Invalid
from cloudless.transport.context import be_patient, watch_peer

log = logging.getLogger(__name__)


class Programs:
    """All programs that people run on this node; ``tasks`` is the agent's supervisor.

    ``places`` and ``starts`` are shared with buffered commands.
    """

    def __init__(
        self,
        node: Node,
        runtime: Runtime,
        tasks: Supervisor,
        *,
        node_name: str,
        places: Places,
        starts: asyncio.Semaphore,
        registry: ExecRegistry,
    ) -> None:
        self._node = node
        self._node_name = node_name
        self._runtime = runtime
        self._tasks = tasks
        #: A session has its place until it has ended, also when its caller has gone.
        self._places = places
        self._starts = starts
        self._registry = registry
        self._detached = Places(
            MAX_DETACHED, "detached programs run on this node", of_caller=MAX_DETACHED_OF_CALLER
        )
        self._number = 0

    async def serve(
        self, messages: AsyncIterator[api.ExecRequest], caller: str = ""
    ) -> AsyncGenerator[api.ExecResponse, None]:
        """One call of Exec; close it with ``aclosing``. ``caller`` is who is to have asked.

        Raises ``Invalid``, ``NotFound``, ``Exhausted``, ``NotEnforced``, and ``Unavailable``
        when containerd goes away before the program has ended.
        """
        be_patient()
        watch_peer()
        start = (await first(messages, "start")).start
        assert start is not None
        wish, timeout_s = wish_of(start)
        replica = await find_replica(self._node, start.container_id, start.replica, start.name, "start")
        about = api.ExecStarted(
            replica=name_of(replica),
            replica_id=replica.id,
            container_id=replica.container_id or "",
            node=self._node_name,
            tty=wish.tty,
        )
        if wish.detach:
            try:
                about.exec_id = await self._detach(about.container_id, wish, caller)
                yield api.ExecResponse(started=about)
            except CannotExecute as error:
                yield api.ExecResponse(exit=exit_of(error))
            return
        session = Session(
            self._runtime,
            about.container_id,
            wish,
            starts=self._starts,
            registry=self._registry,
            timeout_s=timeout_s,
        )
        self._begin(session)
        try:
            async with aclosing(self._talk(session, about, messages, stdin=wish.stdin)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            session.leave()

    def adopt(self, processes: tuple[RunningExec, ...]) -> None:
        """Look after detached programs that an earlier life started, or that were lost sight of.

        These are all there are beside those that are looked after.
        """
        for process in processes:
            self._detached.add()
            self._keep(process, "")
        self._registry.forget_lost()

    def _begin(self, session: Session) -> None:
        self._places.take()
        self._start("exec", session.run()).add_done_callback(lambda _: self._places.give_back())

    async def _talk(
        self,
        session: Session,
        about: api.ExecStarted,
        messages: AsyncIterator[api.ExecRequest],
        *,
        stdin: bool,
    ) -> AsyncGenerator[api.ExecResponse, None]:
        process = await session.started()
        async with Supervisor("exec") as tasks:
            if process is not None:
                about.exec_id = process.exec_id
                yield api.ExecResponse(started=about)
                tasks.start("input", _feed(session, process, messages, stdin=stdin))
            async with aclosing(session.outputs()) as outputs:
                async for output in outputs:
                    yield output

    async def _detach(self, container_id: str, wish: ExecWish, caller: str) -> str:
        # Before the first await: others look for a place meanwhile.
        self._detached.take(caller)
        kept = False
        try:
            async with self._starts, self._runtime.open_exec(container_id, wish) as process:
                self._keep(process, caller)
                kept = True
        finally:
            if not kept:
                self._detached.give_back(caller)
        return process.exec_id

    def _keep(self, process: RunningExec, caller: str) -> None:
        """Look after a detached program that has its place; it is given back with its end."""
        self._registry.add(process)
        task = self._start("detached", self._until_ended(process))
        task.add_done_callback(lambda _: self._detached.give_back(caller))

    async def _until_ended(self, process: RunningExec) -> None:
        """Wait for a detached program; its record goes with its end."""
        try:
            await process.wait()
        except CloudlessError as error:
            # Its record is still there: it is found again when the runtime answers.
            log.info("a detached program is lost sight of", extra={"why": str(error)})
            self._registry.lose(process)
        else:
            self._registry.remove(process)

    def _start(self, kind: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._number += 1
        return self._tasks.start(f"{kind} {self._number}", work)


async def _feed(
    session: Session, process: RunningExec, messages: AsyncIterator[api.ExecRequest], *, stdin: bool
) -> None:
    """Carry out what the caller sends; what is wrong with it ends the call."""
    try:
        async with aclosing(inputs(messages)) as checked:
            async for message in checked:
                if message.stdin is not None and not stdin:
                    raise Invalid.field("stdin", "needs start.stdin")
                await _obey(process, message)
        await process.close_stdin()
    except ContainerGone:
        return  # how it ended is told by its exit
    except CloudlessError as error:
        await session.fail(error)


async def _obey(process: RunningExec, message: api.ExecRequest) -> None:
    match member_of(message):
        case "stdin":
            await process.write_stdin(message.stdin or b"")
        case "stdin_close":
            await process.close_stdin()
        case "resize":
            assert message.resize is not None
            await process.resize(*size_of(message.resize, "resize"))
        case "signal":
            await process.signal(message.signal or 0)
        case kind:
            raise Invalid.field(kind, "comes first, and once")
