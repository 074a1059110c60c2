"""Exec and Attach from a client that is not ours: grpcio, with what protoc makes of our protos.

And nonsense in place of their messages, and of those of Forward and StreamLogs.
"""

from __future__ import annotations

import importlib
import importlib.resources
import pathlib
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
from tests.integration.program.census import open_files
from tests.integration.program.served import Served, until
from tests.integration.program.test_exec import groups, pids_with, records, start
from tests.integration.program.test_lifecycle import manifest

from cloudless import api

ROOT = pathlib.Path(__file__).parents[3]
LIMIT_S = 20.0
#: For a call that lasts while many others come and go.
LONG_S = 300.0
COORDINATOR, AGENT = "cloudless.api.CoordinatorService", "cloudless.api.AgentService"
#: What may be said of nonsense; anything else would be a bug of the server.
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
#: Of Forward and StreamLogs besides: a port on which nobody listens; what is no nonsense by chance.
ANSWERED = REFUSED | {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.OK}
READER = 'while read -r line; do echo "got $line"; done; echo over >&2; exit 9'
ECHO = "nc -ll -p 9000 -e cat & while read -r line; do echo $line; done"


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """exec.proto, compiled here and now, in a pool that nobody else uses."""
    folder = tmp_path_factory.mktemp("compiled")
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    # Under another package, or it would meet our own descriptors in protobuf's one pool.
    text = (ROOT / "protos" / "cloudless" / "api" / "exec.proto").read_text()
    (folder / "foreign_exec.proto").write_text(
        text.replace("package cloudless.api;", "package foreign.exec;")
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{well_known}"),
            *(f"--python_out={folder}", "foreign_exec.proto"),
        ],
        check=True,
    )
    sys.path.insert(0, str(folder))
    yield importlib.import_module("foreign_exec_pb2")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def web(serve: Callable[..., Served]) -> Served:
    made = serve(name="exec-foreign")
    start(made, "web")
    return made


class Foreign:
    """One call; ``say`` something, ``next`` what comes."""

    def __init__(
        self, address: str, service: str, messages: ModuleType, method: str = "Exec", limit_s: float = LIMIT_S
    ) -> None:
        self._outbox: queue.Queue[Any] = queue.Queue()
        self._messages = messages
        self._channel = grpc.insecure_channel(address)
        call = self._channel.stream_stream(
            f"/{service}/{method}",
            request_serializer=lambda message: (
                message if isinstance(message, bytes) else message.SerializeToString()
            ),
            response_deserializer=(
                messages.ExecResponse.FromString if method in ("Exec", "Attach") else bytes
            ),
        )
        self.answers = call(iter(self._outbox.get, None), timeout=limit_s)

    def say(self, **fields: Any) -> None:
        self._outbox.put(self._messages.ExecRequest(**fields))

    def say_bytes(self, data: bytes) -> None:
        self._outbox.put(data)

    def end(self) -> None:
        self._outbox.put(None)

    def next(self) -> Any:
        return next(self.answers)

    def close(self) -> None:
        self.answers.cancel()
        self.end()
        self._channel.close()


@pytest.fixture
def call(web: Served, messages: ModuleType) -> Iterator[Callable[..., Foreign]]:
    made: list[Foreign] = []

    def begin(service: str = COORDINATOR, method: str = "Exec", limit_s: float = LIMIT_S) -> Foreign:
        address = web.address if service == COORDINATOR else web.agent_address
        made.append(Foreign(address, service, messages, method, limit_s))
        return made[-1]

    yield begin
    for one in made:
        one.close()


@pytest.mark.parametrize("service", [COORDINATOR, AGENT])
def test_a_conversation(
    web: Served, call: Callable[..., Foreign], messages: ModuleType, service: str
) -> None:
    foreign = call(service)
    where = {"name": "web"} if service == COORDINATOR else {"replica": web.replicas("web")[0]["id"]}
    command = ["sh", "-c", "cat; echo end >&2; exit 5"]
    foreign.say(start=messages.ExecStart(command=command, stdin=True, **where))
    started = foreign.next().started
    assert (started.replica, started.node) == ("web/0", "node-1")
    foreign.say(stdin=b"hello")
    assert foreign.next().stdout == b"hello"
    foreign.say(stdin_close=messages.ExecStdinClose())
    assert foreign.next().stderr == b"end\n"
    assert foreign.next().exit.exit_code == 5
    with pytest.raises(StopIteration):
        foreign.next()
    assert foreign.answers.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("service", [COORDINATOR, AGENT])
def test_a_conversation_with_a_replicas_own_program(
    web: Served, call: Callable[..., Foreign], messages: ModuleType, service: str
) -> None:
    name = f"reader-{service == AGENT:d}"
    text = manifest(name=name, command=["sh", "-c", READER], stdin=True, restart_policy={"policy": "NEVER"})
    web.cli("apply", "-f", "-", "-q", stdin=text)
    where = {"name": name} if service == COORDINATOR else {"replica": web.replicas(name)[0]["id"]}
    onlooker = call(service, "Attach")
    onlooker.say(attach=messages.AttachStart(**where))
    assert onlooker.next().started.replica == f"{name}/0"
    foreign = call(service, "Attach")
    foreign.say(attach=messages.AttachStart(stdin=True, **where))
    started = foreign.next().started
    assert (started.replica, started.node, started.tty) == (f"{name}/0", "node-1", False)
    foreign.say(stdin=b"one\n")
    assert [one.next().stdout for one in (foreign, onlooker)] == [b"got one\n"] * 2
    foreign.answers.cancel()
    again = call(service, "Attach")
    again.say(attach=messages.AttachStart(stdin=True, tail_lines=1, **where))
    assert again.next().started.container_id == started.container_id, "who leaves changes nothing"
    assert again.next().stdout == b"got one\n"
    again.say(stdin_close=messages.ExecStdinClose())
    for one in (again, onlooker):
        assert one.next().stderr == b"over\n"
        assert one.next().exit.exit_code == 9
        with pytest.raises(StopIteration):
            one.next()
        assert one.answers.code() is grpc.StatusCode.OK


def test_half_close_of_the_call_is_the_end_of_input(
    call: Callable[..., Foreign], messages: ModuleType
) -> None:
    foreign = call()
    foreign.say(start=messages.ExecStart(name="web", command=["sh", "-c", "cat; exit 6"], stdin=True))
    foreign.say(stdin=b"all")
    foreign.end()
    kinds = [answer.WhichOneof("output") for answer in foreign.answers]
    assert kinds == ["started", "stdout", "exit"]


def test_cancelling_ends_the_program(call: Callable[..., Foreign], messages: ModuleType) -> None:
    foreign = call()
    foreign.say(start=messages.ExecStart(name="web", command=["sleep", "7701"]))
    assert foreign.next().started.exec_id
    until(lambda: pids_with("7701"), "it runs")
    foreign.answers.cancel()
    until(lambda: not pids_with("7701"), "it is gone")


def test_nonsense_is_refused_and_leaves_nothing(
    web: Served, call: Callable[..., Foreign], messages: ModuleType
) -> None:
    """Random bytes instead of a start, and after a good one."""
    chance = random.Random(4)
    good = messages.ExecRequest(start=messages.ExecStart(name="web", command=["sleep", "7702"], stdin=True))
    valid = [
        messages.ExecRequest(stdin=b"x").SerializeToString(),
        messages.ExecRequest(resize=messages.TerminalSize(rows=1, columns=1)).SerializeToString(),
        messages.ExecRequest(signal=28).SerializeToString(),
        good.SerializeToString(),
    ]
    before = open_files(web)
    codes: set[grpc.StatusCode] = set()
    for number in range(150):
        foreign = call()
        if number % 2:
            foreign.say_bytes(good.SerializeToString())
        for _ in range(4):
            foreign.say_bytes(nonsense(chance, valid))
        foreign.say_bytes(b"\xff" * 20)
        threading.Timer(0.0, foreign.end).start()
        try:
            for _ in foreign.answers:
                pass
            codes.add(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            codes.add(error.code())
        foreign.close()
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    assert codes <= REFUSED
    until(lambda: not pids_with("7702"), "all programs are gone")
    assert records(web) == []
    assert groups(web) == []
    until(lambda: open_files(web) <= before + 3, "its files are closed")
    assert web.cli("exec", "web", "--", "echo", "fine").out == "fine\n"


def goods(method: str, replica: str) -> list[bytes]:
    """A good first message of a method, for both services, and what may follow it."""
    where: dict[str, Any] = {"name": "echo"} if not replica else {"replica": replica}
    if method == "Attach":
        begin = api.ExecRequest(attach=api.AttachStart(stdin=True, tail_lines=3, **where))
        resize = api.ExecRequest(resize=api.TerminalSize(rows=1, columns=1))
        return [bytes(begin), bytes(api.ExecRequest(stdin=b"x\n")), bytes(resize)]
    if method == "Forward":
        target = api.ForwardTarget(port=9000, **where)
        return [bytes(api.ForwardRequest(target=target)), bytes(api.ForwardRequest(data=b"x" * 50))]
    if replica:
        return [bytes(api.StreamLogsRequest(tail_lines=3, include=["x"], **where))]
    cursors = [api.LogCursor(replica_id=f"r{number}", cursor="1.2.3") for number in range(3)]
    resume = api.LogResume(cursors=cursors)
    return [bytes(api.StreamLogsRequest(resume=resume, **where)), bytes(api.StreamLogsRequest(**where))]


@pytest.mark.parametrize("service", [COORDINATOR, AGENT])
@pytest.mark.parametrize("method", ["Attach", "Forward", "StreamLogs"])
def test_nonsense_harms_nobody_else(
    web: Served, call: Callable[..., Foreign], messages: ModuleType, service: str, method: str
) -> None:
    """Random bytes as the first message and after a good one; a stream on the side goes on."""
    text = manifest(name="echo", command=["sh", "-c", ECHO], stdin=True)
    web.cli("apply", "-f", "-", "-q", stdin=text)
    (replica,) = web.replicas("echo")
    valid = goods(method, replica["id"] if service == AGENT else "")
    aside = call(limit_s=LONG_S)
    aside.say(start=messages.ExecStart(name="web", command=["cat"], stdin=True))
    assert aside.next().started.replica == "web/0"
    chance, codes = random.Random(5), set[grpc.StatusCode]()
    before = open_files(web)
    for number in range(60):
        foreign = call(service, method)
        if number % 2 and method != "StreamLogs":
            foreign.say_bytes(valid[0])
        for _ in range(1 if method == "StreamLogs" else 4):
            foreign.say_bytes(nonsense(chance, valid))
        if method != "StreamLogs":
            foreign.say_bytes(b"\xff" * 20)
        foreign.end()
        try:
            for _ in foreign.answers:
                pass
            codes.add(foreign.answers.code())
        except grpc.RpcError as error:
            codes.add(error.code())
        foreign.close()
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    assert codes <= ANSWERED
    aside.say(stdin=b"still here")
    assert aside.next().stdout == b"still here"
    until(lambda: open_files(web) <= before + 3, "its files are closed")
    assert web.replicas("echo")[0]["restarts"] == 0
    assert web.replicas("echo")[0]["id"] == replica["id"]


def nonsense(chance: random.Random, valid: list[bytes]) -> bytes:
    """Noise, or a message that was cut, mixed or turned around somewhere."""
    base = bytearray(chance.choice(valid))
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 40))
    if kind == 1:
        return bytes(base[: chance.randrange(len(base))])
    if kind == 2:
        return bytes(base) + chance.choice(valid)
    for _ in range(chance.randrange(1, 4)):
        base[chance.randrange(len(base))] = chance.randrange(256)
    return bytes(base)
