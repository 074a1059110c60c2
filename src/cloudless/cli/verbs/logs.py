"""Show what the replicas of a workload write.

With several replicas each line begins with the name of its replica, in a colour that
stays the same. -f goes on with new lines; Ctrl-C leaves. Control sequences do not reach
a terminal unless --raw is given."""

from __future__ import annotations

import argparse
import datetime
import sys
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.output.plain import time_text
from cloudless.cli.parsing import UsageError, seconds
from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    from cloudless import api

#: Lines per replica that --follow begins with.
FOLLOW_TAIL = 10
_COLORS = ("cyan", "green", "magenta", "yellow", "blue", "red")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="a workload, or NAME/ORDINAL for one replica")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    parser.add_argument(
        "--tail", metavar="N", help="newest lines per replica; all by default, 10 with --follow"
    )
    parser.add_argument("--since", metavar="TIME", type=seconds, help="only of the last TIME, for example 5m")
    parser.add_argument("-t", "--timestamps", action="store_true", help="begin lines with their time")
    parser.add_argument("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    parser.add_argument(
        "--prefix", choices=("auto", "always", "never"), default="auto", help="name the replica"
    )
    parser.add_argument("--raw", action="store_true", help="pass control sequences on")


async def run(context: Context) -> int:
    """Copy lines to stdout."""
    arguments = context.arguments
    tail = _tail(arguments)
    async with context.client() as client:
        from cloudless.cli.naming import parse_name, suggesting

        named = parse_name(arguments.name)
        if named.replica and arguments.replica:
            raise UsageError("name the replica once: NAME/ORDINAL or --replica")
        replica = arguments.replica or named.replica
        async with suggesting(client, named.workload):
            workload = await client.get(named.workload)
        since = None
        if arguments.since is not None:
            since = context.clock.now() - datetime.timedelta(seconds=arguments.since)
        several = not replica and max(len(workload.replicas), workload.status.desired_replicas) > 1
        prefixed = arguments.prefix == "always" or (arguments.prefix == "auto" and several)
        writer = LineWriter(
            context.out, prefixed=prefixed, timestamps=arguments.timestamps, raw=arguments.raw
        )
        stream = client.logs(
            workload.name,
            namespace=workload.namespace,
            replica=replica,
            follow=arguments.follow,
            tail=tail,
            since=since,
        )
        async with stream as lines:
            async for line in lines:
                writer.write(line.message)
    return exits.OK


def _tail(arguments: argparse.Namespace) -> int | None:
    text = arguments.tail
    if text is None:
        return FOLLOW_TAIL if arguments.follow and arguments.since is None else None
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--tail {text!r} is not a number of lines or all")
    return int(text)


class LineWriter:
    """Entries as lines: bytes as they are on a pipe, harmless text on a terminal."""

    def __init__(self, terminal: Terminal, *, prefixed: bool, timestamps: bool, raw: bool) -> None:
        self._terminal = terminal
        self._prefixed = prefixed
        self._timestamps = timestamps
        self._neutral = terminal.is_terminal and not raw
        self._width = 0
        self._middle: dict[str, bool] = {}
        self._bytes = getattr(terminal.stream, "buffer", None)

    def write(self, entry: api.LogEntry) -> None:
        """Write one entry; long lines that came in pieces are put together again."""
        goes_on = self._middle.get(entry.container_id, False) and not entry.gap_bytes
        head = "" if goes_on and not self._prefixed else self._head(entry)
        if entry.gap_bytes:
            gap = f"[{entry.gap_bytes} bytes were rotated away]"
            self._emit(self._head(entry).encode() + self._terminal.paint(gap, "dim").encode() + b"\n")
            return
        self._middle[entry.container_id] = entry.partial
        line = entry.line
        if self._neutral:
            line = neutral(line.decode("utf-8", "replace"), tabs=True).encode()
        end = b"" if entry.partial and not self._prefixed else b"\n"
        self._emit(head.encode() + line + end)

    def _head(self, entry: api.LogEntry) -> str:
        head = ""
        if self._prefixed:
            name = neutral(entry.replica)
            self._width = max(self._width, len(name))
            head = self._terminal.paint(name, color_of(name)) + " " * (self._width - len(name)) + " | "
        if self._timestamps and entry.at is not None:
            head += self._terminal.paint(time_text(entry.at), "dim") + " "
        return head

    def _emit(self, data: bytes) -> None:
        if self._bytes is None:
            self._terminal.stream.write(data.decode("utf-8", "replace"))
            return
        sys.stdout.flush()
        self._bytes.write(data)
        self._bytes.flush()


def color_of(replica: str) -> str:
    """The same colour for the same ordinal, always.

    >>> color_of("web/0"), color_of("web/6")
    ('cyan', 'cyan')
    """
    ordinal = replica.rpartition("/")[2]
    return _COLORS[(int(ordinal) if ordinal.isdigit() else sum(replica.encode())) % len(_COLORS)]
