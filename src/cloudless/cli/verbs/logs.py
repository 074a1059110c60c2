"""Show what the replicas of a workload write, or of all workloads with some labels.

With several replicas each line begins with the name of its replica, in a colour that
stays the same. -f goes on with new lines, over restarts and new replicas; Ctrl-C leaves.
On a terminal control sequences are made harmless and grey lines tell what happened; on a
pipe there are just the bytes, and what is missing or late is told on stderr."""

from __future__ import annotations

import argparse
import asyncio
import datetime
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.context import PATIENCE_S, Context
from cloudless.cli.parsing import UsageError, byte_count
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain.errors import CloudlessError, NotFound
from cloudless.sdk.limits import MAX_LOG_COUNT

if TYPE_CHECKING:
    from cloudless.cli.logs.rendering import Renderer
    from cloudless.cli.logs.writing import BlockWriter
    from cloudless.sdk.client import Client
    from cloudless.sdk.logbatch import LogBatch
    from cloudless.sdk.logs import LogStream

#: Lines per replica that --follow begins with.
FOLLOW_TAIL = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", default="", help="a workload, or NAME/ORDINAL for one replica")
    add("-l", "--selector", metavar="LABELS", default="", help="instead: all workloads with such labels")
    add("-f", "--follow", action="store_true", help="go on with new lines")
    add("--tail", metavar="N", help="newest lines per replica; all by default, 10 with --follow")
    add("--since", metavar="TIME", help="from then on: 5m (ago), 14:30 or 2026-01-02T03:04:05Z")
    add("--until", metavar="TIME", help="up to then; ends --follow")
    add("-p", "--previous", action="store_true", help="only runs before the last restart of each replica")
    add("--stream", choices=("stdout", "stderr"), default="", help="only what was written there")
    add("--include", metavar="REGEX", action="append", default=[], help="only lines that fit one of these")
    add("--exclude", metavar="REGEX", action="append", default=[], help="no lines that fit one of these")
    add("--limit-bytes", metavar="SIZE", type=byte_count, default=0, help="end after so many bytes of lines")
    add("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    add(
        "--gone",
        action=argparse.BooleanOptionalAction,
        help="with replicas that are gone; by default without --follow and --tail",
    )
    add("-t", "--timestamps", action="store_true", help="begin lines with their time")
    add(
        "--prefix",
        action=argparse.BooleanOptionalAction,
        help="begin lines with their replica; by default when there are several",
    )
    add(
        "--markers",
        action=argparse.BooleanOptionalAction,
        help="lines about restarts, exits and gaps; by default on a terminal",
    )
    add(
        *("-o", "--output"),
        choices=("text", "json", "raw"),
        default="text",
        help="raw: nothing but bytes, control sequences too",
    )


async def run(context: Context) -> int:
    """Copy lines to stdout until they end, or whoever reads them leaves."""
    from cloudless.cli.logs.writing import BlockWriter

    options = _options(context)
    async with BlockWriter(context.out) as writer:
        await _copy(context, options, writer)
    return exits.OK


async def _copy(context: Context, options: dict[str, Any], writer: BlockWriter) -> None:
    async with context.client() as client:
        try:
            await _read(context, client, options, writer)
        except NotFound:
            from cloudless.cli.naming import on_target

            async def again(name: str, replica: str) -> None:
                asked = options | {"name": name, "replica": replica, "namespace": None}
                try:
                    await _read(context, client, asked, writer)
                except NotFound:
                    if options["follow"] or options["tail"] is None or options["current_only"] is not None:
                        raise
                    # It is gone: its newest lines are what --tail asks for then.
                    await _read(context, client, asked | {"current_only": False}, writer)

            if not options["name"]:
                raise
            await on_target(client, context.arguments.name, context.arguments.replica, again)


async def _read(context: Context, client: Client, options: dict[str, Any], writer: BlockWriter) -> None:
    arguments = context.arguments
    renderer = _renderer(context)
    told = Told(context.err, arguments.markers, renderer)
    async with client.logs(**options, on_connection=told.connection) as lines:
        try:
            await _show(context, client, lines, renderer, writer, told)
        except CloudlessError:
            await writer.write(renderer.end())
            raise
        except asyncio.CancelledError:
            if renderer.is_within_line:  # what comes next is the shell's
                writer.end_line()
            raise
        await writer.write(renderer.end())
        told.nothing(arguments, known=bool(lines.sources))


async def _show(
    context: Context, client: Client, lines: LogStream, renderer: Renderer, writer: BlockWriter, told: Told
) -> None:
    """Write one block after another; where nothing comes, what was held back in the hope of more."""
    from cloudless.aio.pauses import PAUSE, with_pauses

    is_told = not context.out.is_terminal and context.arguments.output != "json"
    async with aclosing(with_pauses(lines.batches(), renderer.wait_s)) as batches:
        async for batch in batches:
            if batch is PAUSE:
                await writer.write(renderer.overdue())
                continue
            client.patience_s = PATIENCE_S
            told.seen(batch)
            if batch.caught_up:
                told.waiting(context.arguments)
            block = renderer.render(batch, lines.sources)
            if block:
                await writer.write(block)
            if is_told:
                told.losses(batch)


def _options(context: Context) -> dict[str, Any]:
    """What the SDK is asked for; raises ``UsageError``."""
    given = context.arguments
    if bool(given.name) == bool(given.selector):
        raise UsageError("name a workload, or give labels with -l", hint="cloudless logs web")
    name, replica = _named(given.name)
    if replica and given.replica:
        raise UsageError("name the replica once: NAME/ORDINAL or --replica")
    if given.previous and given.follow:
        raise UsageError("--previous ends where the present run begins: it cannot be followed")
    if given.limit_bytes > MAX_LOG_COUNT:
        raise UsageError(f"--limit-bytes must be at most {MAX_LOG_COUNT}")
    return {
        "name": name,
        "namespace": given.namespace,
        "selector": given.selector,
        "replica": given.replica or replica,
        "follow": given.follow,
        "tail": _tail(given),
        "since": _moment(context, given.since, "--since"),
        "until": _moment(context, given.until, "--until"),
        "previous": given.previous,
        "stream": given.stream,
        "include": given.include,
        "exclude": given.exclude,
        "limit_bytes": given.limit_bytes,
        "current_only": None if given.gone is None else not given.gone,
    }


def _named(word: str) -> tuple[str, str]:
    """The workload and the replica in NAME/ORDINAL."""
    if "/" not in word:
        return word, ""
    from cloudless.cli.naming import parse_name

    return parse_name(word)


def _moment(context: Context, text: str | None, option: str) -> datetime.datetime | None:
    if text is None:
        return None
    from cloudless.cli.logs.times import moment  # what the plain way need not pay for

    return moment(text, option, context.clock.now())


def _tail(given: argparse.Namespace) -> int | None:
    text = given.tail
    if text is None:
        return FOLLOW_TAIL if given.follow and given.since is None else None
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--tail {text!r} is not a number of lines or all")
    if len(text) > len(str(MAX_LOG_COUNT)) or int(text) > MAX_LOG_COUNT:
        raise UsageError(f"--tail must be from 0 to {MAX_LOG_COUNT}, or all")
    return int(text)


def _renderer(context: Context) -> Renderer:
    given = context.arguments
    if given.output == "json":
        from cloudless.cli.logs.jsonlines import JsonRenderer

        return JsonRenderer()
    from cloudless.cli.logs.partial import PARTIAL_AFTER_S
    from cloudless.cli.logs.text import Look, RawRenderer, TextRenderer

    is_raw = given.output == "raw"
    if is_raw and not (given.prefix or given.timestamps or given.markers):
        return RawRenderer()
    shown = given.markers if given.markers is not None else context.out.is_terminal and not is_raw
    prefix = given.prefix
    if prefix is None and (is_raw or given.selector):
        prefix = not is_raw
    for_person = context.out.is_terminal and not is_raw
    look = Look(
        prefix=prefix,
        timestamps=given.timestamps,
        neutral=for_person,
        hidden=({"ROTATED"} if given.follow else {"ROTATED", "SOURCE_ENDED"}) if shown else None,
        partial_after_s=PARTIAL_AFTER_S if for_person and given.follow else None,
    )
    return TextRenderer(context.out, look, context.clock.monotonic)


class Told:
    """What a reader of bytes should know, on stderr: gaps, nodes that are away, the connection."""

    def __init__(self, terminal: Terminal, wanted: bool | None, renderer: Renderer) -> None:
        self._terminal = terminal
        self._renderer = renderer
        self._quiet = wanted is False
        #: With --markers they are among the lines.
        self._elsewhere = wanted is not None
        self._empty = True

    def seen(self, batch: LogBatch) -> None:
        """Something came, if it is more than the end."""
        if self._empty:
            self._empty = all(
                chunk.marker is not None and chunk.marker.kind == "SOURCE_ENDED" for chunk in batch.chunks
            )

    def nothing(self, given: argparse.Namespace, *, known: bool) -> None:
        """Say why all was silence, where it is not that programs wrote nothing."""
        if self._quiet or not self._empty or given.follow:
            return
        if not known and given.selector:
            self._say(f"no workload with labels {neutral(given.selector)} has logs")
        elif not known:
            self._say(
                f"{neutral(given.name)} has no replicas that have started, and none of its logs are kept"
            )
        elif self._begins(given):
            self._say(f"nothing of {neutral(given.name or given.selector)} has started yet")
        elif given.previous:
            self._say(f"{neutral(given.name or given.selector)} has no earlier run whose logs are kept")

    def waiting(self, given: argparse.Namespace) -> None:
        """Say why there is silence for now, where what is followed has not begun."""
        if not self._quiet and self._empty and self._begins(given):
            self._say(f"nothing of {neutral(given.name or given.selector)} has started yet; waiting")

    def _begins(self, given: argparse.Namespace) -> bool:
        """Whether the start of a run would have been among what was asked for."""
        elsewhere = given.since or given.until or given.previous or given.limit_bytes
        return not elsewhere and given.tail != "0"

    def losses(self, batch: LogBatch) -> None:
        """Tell of markers that say that something is missing or late."""
        if self._elsewhere or all(chunk.marker is None for chunk in batch.chunks):
            return
        from cloudless.cli.logs.text import LOSSES, marker_line

        for chunk in batch.chunks:
            if chunk.marker is not None and chunk.marker.kind in LOSSES:
                self._say(marker_line(chunk.marker, unicode=self._terminal.unicode))

    def connection(self, error: CloudlessError | None) -> None:
        """The connection is lost (why), or there is a new one."""
        if self._quiet:
            return
        dash = "──" if self._terminal.unicode else "--"
        if error is None:
            self._say(f"{dash} connected again; going on where it broke off")
        else:
            self._say(f"{dash} {neutral(error.message)}; waiting for the coordinator")

    def _say(self, text: str) -> None:
        if self._terminal.is_terminal:  # the one that shows the lines, as far as any does
            self._terminal.write(self._renderer.break_off().decode())
        self._terminal.line(self._terminal.paint(text, "dim"))
        self._terminal.stream.flush()
