"""Lead local ports to ports of a workload's replicas, until Ctrl-C.

LOCAL:PORT listens on LOCAL; :PORT chooses a local port that is free; PORT is the same on
both sides. Each connection goes to a ready replica, so the port outlives the replicas
behind it."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from cloudless.cli import exits
from cloudless.cli.context import PATIENCE_S, Context
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain.errors import CloudlessError, NotFound
from cloudless.domain.names import means_replica, ordinal_of

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload

#: The same failure of many connections is told this often, in seconds.
REPEAT_S = 2.0


class Pair(NamedTuple):
    """A local port (0: any) and the replica's port it leads to."""

    local: int
    remote: int


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="a workload, or NAME/ORDINAL for one replica")
    parser.add_argument("ports", metavar="[LOCAL:]PORT", nargs="+", help="for example 8080:80, :80 or 80")
    parser.add_argument("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    # Not --address, which is the coordinator's.
    parser.add_argument(
        "--bind", metavar="HOST", default="127.0.0.1", help="local address to listen on, 127.0.0.1 by default"
    )


async def run(context: Context) -> int:
    """Listen and carry until interrupted."""
    from cloudless.aio.supervise import Supervisor
    from cloudless.cli.naming import on_target

    arguments = context.arguments
    pairs = [parse_pair(text) for text in arguments.ports]
    async with context.client() as client, AsyncExitStack() as stack:

        async def find(name: str, replica: str) -> tuple[Workload, str]:
            return await client.get(name), replica

        workload, which = await on_target(client, arguments.name, arguments.replica, find)
        _check_replica(context, workload, which)
        client.patience_s = PATIENCE_S
        ports = []
        for pair in pairs:
            told = Failures(context.err, f"{workload.name} {pair.remote}")
            forward = client.forward(
                workload.name,
                pair.remote,
                namespace=workload.namespace,
                replica=which,
                host=arguments.bind,
                local_port=pair.local,
                on_error=told.tell,
            )
            ports.append(await stack.enter_async_context(forward))
        tasks = await stack.enter_async_context(Supervisor("forwarded ports"))
        for pair, port in zip(pairs, ports, strict=True):
            where = f"{workload.name}/{which}" if ordinal_of(which) is not None else workload.name
            context.err.line(f"forwarding {port.address} -> {neutral(where)} {pair.remote}")
            tasks.start(port.address, port.wait())
        context.err.stream.flush()
        await tasks.wait()
    return exits.OK


def parse_pair(text: str) -> Pair:
    """A pair of ports as people write it; raises ``UsageError``.

    >>> parse_pair("8080:80"), parse_pair(":80"), parse_pair("80")
    (Pair(local=8080, remote=80), Pair(local=0, remote=80), Pair(local=80, remote=80))
    """
    local, colon, remote = text.rpartition(":")
    if not colon:
        local = remote
    numbers = [_port(word) for word in (local or "0", remote)]
    if numbers[0] is None or not numbers[1] or (colon and local == "0"):
        raise UsageError(
            f"{text!r} is no pair of ports; write LOCAL:PORT, :PORT or PORT, each from 1 to 65535",
            hint="cloudless port-forward web 8080:80",
        )
    return Pair(numbers[0], numbers[1])


def _port(word: str) -> int | None:
    plain = word.isascii() and word.isdigit() and len(word) <= 5
    return int(word) if plain and int(word) < 65536 else None


def _check_replica(context: Context, workload: Workload, which: str) -> None:
    """Raise ``NotFound`` for a replica that is not there; say so when nobody is ready yet."""
    replicas = workload.replicas
    if which and not any(means_replica(which, one.ordinal, one.id) for one in replicas):
        there = ", ".join(str(one.ordinal) for one in replicas) or "none"
        raise NotFound(f"workload {workload.name} has no replica {which} (there are: {there})")
    if not which and not any(one.ready for one in replicas):
        context.err.line(f"no replica of {workload.name} is ready yet: connections fail until one is")


class Failures:
    """Tells why connections fail: each reason at once, repeats of it now and then."""

    def __init__(self, terminal: Terminal, target: str) -> None:
        self._terminal = terminal
        self._target = target
        self._said: dict[str, float] = {}
        self._more = 0

    def tell(self, peer: str, error: CloudlessError) -> None:
        """One more connection has failed."""
        now_s = asyncio.get_running_loop().time()
        self._said = {text: at_s for text, at_s in self._said.items() if now_s - at_s < REPEAT_S}
        if error.message in self._said:
            self._more += 1
            return
        self._said[error.message] = now_s
        more, self._more = self._more, 0
        also = f" (and {more} more before)" if more else ""
        line = f"connection from {peer} to {self._target}: {neutral(error.message)}{also}"
        self._terminal.line(line)
        self._terminal.stream.flush()
