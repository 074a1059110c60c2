"""What happens to tasks, as it happens; and a word when something may have been missed.

containerd keeps no events: what happens while nobody is subscribed is lost. So each
new subscription, the first included, begins with ``Gap``: whoever reads must list what
is there, and may then trust the events until the next ``Gap``.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from grpclib.client import Stream
from grpclib.const import Cardinality

from cloudless.aio.backoff import Backoff
from cloudless.aio.clock import Clock
from cloudless.api.containerd.events import (
    TaskCreate,
    TaskDelete,
    TaskExecStarted,
    TaskExit,
    TaskOom,
    TaskStart,
)
from cloudless.api.containerd.services.events.v1 import Envelope, EventsStub, PublishRequest, SubscribeRequest
from cloudless.api.google.protobuf import Any as AnyMessage
from cloudless.containerd import limits
from cloudless.containerd.errors import ContainerdError, Unavailable
from cloudless.containerd.rpc import Connection, sorting
from cloudless.containerd.tasks import known_time

#: A subscription is proved by hearing what we publish here ourselves.
PROOF_TOPIC = "/cloudless/subscribed"
PROOF_TYPE = "cloudless/subscribed"
SUBSCRIBE_ROUTE = "/containerd.services.events.v1.Events/Subscribe"


@dataclass(frozen=True)
class Gap:
    """A new subscription stands: list everything now. What came before may be missing."""


@dataclass(frozen=True)
class Lost:
    """The subscription ended, or could not be made: nothing is heard until the next ``Gap``."""

    why: str


@dataclass(frozen=True)
class TaskCreated:
    """A shim and a container exist; the process waits."""

    container_id: str
    pid: int


@dataclass(frozen=True)
class TaskStarted:
    """The container's first process runs."""

    container_id: str
    pid: int


@dataclass(frozen=True)
class TaskExited:
    """A process ended; ``exec_id`` is empty for the container's first one."""

    container_id: str
    exec_id: str
    pid: int
    exit_code: int
    exited_at: datetime.datetime | None


@dataclass(frozen=True)
class TaskOomKilled:
    """Something in the container was killed for want of memory; comes before its exit."""

    container_id: str


@dataclass(frozen=True)
class TaskDeleted:
    """A process' remains were removed; ``exec_id`` is empty for the container's first one."""

    container_id: str
    exec_id: str
    exit_code: int


@dataclass(frozen=True)
class ExecStarted:
    """A further process runs."""

    container_id: str
    exec_id: str
    pid: int


Event = Gap | Lost | TaskCreated | TaskStarted | TaskExited | TaskOomKilled | TaskDeleted | ExecStarted


class Events:
    """Subscribes to the tasks of this client's namespace."""

    def __init__(self, connection: Connection, *, clock: Clock, new_id: Callable[[], str]) -> None:
        self._connection = connection
        self._stub = connection.stub(EventsStub)
        self._clock = clock
        self._new_id = new_id
        namespace = f"namespace=={connection.namespace}"
        self._filters = [f"{namespace},topic~=^/tasks/", f'{namespace},topic=="{PROOF_TOPIC}"']

    async def follow(self) -> AsyncGenerator[Event, None]:
        """Events for ever, across restarts of the daemon; close the iterator (``aclosing``)."""
        backoff = Backoff(base_s=limits.RECONNECT_BASE_S, cap_s=limits.RECONNECT_CAP_S)
        while True:
            try:
                async with aclosing(self._subscribe()) as events:
                    async for event in events:
                        backoff.reset()
                        yield event
                yield Lost("containerd ended the subscription")
            except Unavailable as error:
                yield Lost(error.message)
            await self._clock.sleep(backoff.next())

    async def _subscribe(self) -> AsyncGenerator[Event, None]:
        """One subscription, until it ends. Raises ``Unavailable``."""
        with sorting("subscribe to events"):
            # By hand and not by the stub: our request must have left before the proof does.
            async with self._connection.channel.request(
                SUBSCRIBE_ROUTE,
                Cardinality.UNARY_STREAM,
                SubscribeRequest,
                Envelope,
                metadata=self._connection.metadata,
            ) as stream:
                await stream.send_message(SubscribeRequest(filters=self._filters), end=True)
                async with asyncio.timeout(limits.SUBSCRIBE_PROOF_S):
                    early = await self._prove(stream)
                yield Gap()
                for event in early:
                    yield event
                while (envelope := await stream.recv_message()) is not None:
                    if (event_now := read_event(envelope)) is not None:
                        yield event_now

    async def _prove(self, stream: Stream[SubscribeRequest, Envelope]) -> list[Event]:
        """Return when the subscription has heard what we publish; with what else it heard."""
        proof = self._new_id().encode()
        heard: list[Event] | ContainerdError = []
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self._publish(proof), name="prove subscription")
            try:
                with sorting("subscribe to events"):
                    heard = await _hear(stream, proof)
            except ContainerdError as error:
                heard = error  # raised below, so that the group does not wrap it
            finally:
                publishing.cancel()
        if isinstance(heard, ContainerdError):
            raise heard
        return heard

    async def _publish(self, proof: bytes) -> None:
        """Again and again until cancelled: the daemon may take the first before our subscription."""
        event = AnyMessage(type_url=PROOF_TYPE, value=proof)
        while True:
            with contextlib.suppress(ContainerdError):  # the subscription itself will tell
                await self._connection.call(
                    self._stub.publish,
                    PublishRequest(topic=PROOF_TOPIC, event=event),
                    about="prove subscription",
                )
            await self._clock.sleep(limits.SUBSCRIBE_PROBE_INTERVAL_S)


async def _hear(stream: Stream[SubscribeRequest, Envelope], proof: bytes) -> list[Event]:
    heard: list[Event] = []
    while (envelope := await stream.recv_message()) is not None:
        if envelope.topic == PROOF_TOPIC and _payload(envelope) == proof:
            return heard
        if (event := read_event(envelope)) is not None:
            heard.append(event)
    raise Unavailable("subscribe to events: containerd ended the subscription")


def read_event(envelope: Envelope) -> Event | None:
    """The typed event; ``None`` for topics that mean nothing to us."""
    read = _READERS.get(envelope.topic)
    return None if read is None else read(_payload(envelope))


def _payload(envelope: Envelope) -> bytes:
    return envelope.event.value if envelope.event is not None else b""


def _created(data: bytes) -> Event:
    message = TaskCreate.parse(data)
    return TaskCreated(message.container_id, message.pid)


def _started(data: bytes) -> Event:
    message = TaskStart.parse(data)
    return TaskStarted(message.container_id, message.pid)


def _exited(data: bytes) -> Event:
    message = TaskExit.parse(data)
    exec_id = "" if message.id == message.container_id else message.id
    exited_at = known_time(message.exited_at)
    return TaskExited(message.container_id, exec_id, message.pid, message.exit_status, exited_at)


def _oom(data: bytes) -> Event:
    return TaskOomKilled(TaskOom.parse(data).container_id)


def _deleted(data: bytes) -> Event:
    message = TaskDelete.parse(data)
    exec_id = "" if message.id == message.container_id else message.id
    return TaskDeleted(message.container_id, exec_id, message.exit_status)


def _exec_started(data: bytes) -> Event:
    message = TaskExecStarted.parse(data)
    return ExecStarted(message.container_id, message.exec_id, message.pid)


_READERS: dict[str, Callable[[bytes], Event]] = {
    "/tasks/create": _created,
    "/tasks/start": _started,
    "/tasks/exit": _exited,
    "/tasks/oom": _oom,
    "/tasks/delete": _deleted,
    "/tasks/exec-started": _exec_started,
}
