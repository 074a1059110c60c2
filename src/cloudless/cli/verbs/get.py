"""List objects: workloads, replicas, nodes, events, revisions, images, execs.

Without a kind, workloads. Names narrow the list; -w keeps watching: it repaints a
terminal, and writes one line (or one JSON object) per change elsewhere."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.changing import add_output_option
from cloudless.cli.context import Context
from cloudless.cli.output.formats import Format, parse_format, write
from cloudless.cli.output.kinds import EVENTS, EXECS, IMAGES, NODES, REPLICAS, REVISIONS, WORKLOADS, Kind
from cloudless.cli.parsing import UsageError

if TYPE_CHECKING:
    from cloudless.sdk.client import Client


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("words", nargs="*", metavar="[KIND] [NAME ...]", help="what to list")
    parser.add_argument(
        "-l", "--selector", metavar="LABELS", default="", help="for example app=web,tier!=cache"
    )
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    parser.add_argument("-w", "--watch", action="store_true", help="keep showing changes")
    parser.add_argument("--no-headers", action="store_true", help="leave out the titles of a table")
    parser.add_argument(
        "--agent-address", metavar="HOST:PORT", help="for images: the agent, 127.0.0.1:9092 by default"
    )
    add_output_option(parser)


async def run(context: Context) -> int:
    """List, or watch."""
    form = parse_format(context.arguments.output)
    # After the format is known to be right: these modules import the API.
    from cloudless.cli.naming import kind_and_names

    kind, names = kind_and_names(context.arguments.words)
    return await show(context, kind, names, form)


async def show(context: Context, kind: Kind, names: Sequence[str], form: Format) -> int:
    """List ``kind``; used by ``nodes`` and ``events`` too."""
    arguments = context.arguments
    if arguments.selector and kind not in (WORKLOADS, NODES):
        raise UsageError(f"--selector does not work for {kind.words[0]}")
    if arguments.watch and kind not in (WORKLOADS, REPLICAS, EVENTS):
        raise UsageError(f"{kind.words[0]} cannot be watched", hint=f"cloudless get {kind.words[0]}")
    if kind is IMAGES:
        from cloudless.cli.verbs.image import list_images

        return await list_images(context, form)
    if kind is EXECS:
        from cloudless.cli.programs import list_execs

        return await list_execs(context, names, form)
    async with context.client() as client:
        if arguments.watch:
            from cloudless.cli.watching import watch

            return await watch(context, client, kind, names, form)
        items = await fetch(context, client, kind, names)
    if not items and form.name in ("table", "wide") and not names:
        context.err.line(f"no {kind.words[0]}{_where(context, kind)}")
        return exits.OK
    write(
        context.out,
        kind,
        items,
        form,
        context.clock.now(),
        single=len(names) == 1 and len(items) == 1 and kind is not REVISIONS and kind is not EVENTS,
        with_namespace=context.namespace == "",
        with_header=not arguments.no_headers,
    )
    return exits.OK


def _where(context: Context, kind: Kind) -> str:
    if not kind.namespaced:
        return ""
    return f" in namespace {context.namespace}" if context.namespace else ""


async def fetch(context: Context, client: Client, kind: Kind, names: Sequence[str]) -> list[Any]:
    """The messages to show; raises ``NotFound`` for a name that is not there."""
    from cloudless.cli.naming import parse_name, suggesting

    arguments, space = context.arguments, context.namespace
    if kind is WORKLOADS and not names:
        return [item.message for item in await client.list(space, selector=arguments.selector)]
    if kind is NODES and not names:
        return [item.message for item in await client.nodes(selector=arguments.selector)]
    if kind is EVENTS and not names:
        return [item.message for item in await client.events(namespace=space, since=_since(context))]
    if kind is REPLICAS and not names:
        return [item.message for item in await client.replicas(namespace=space)]
    if kind is REVISIONS and not names:
        raise UsageError("revisions of which workload?", hint="cloudless get revisions NAME")
    items: list[Any] = []
    for name in names:
        if kind is WORKLOADS and parse_name(name).replica:
            raise UsageError(f"{name} names a replica", hint=f"cloudless get replica {name}")
        async with suggesting(client, name, kind, or_kind=True):
            items += await _named(context, client, kind, name)
    return items


async def _named(context: Context, client: Client, kind: Kind, name: str) -> list[Any]:
    from cloudless.cli.naming import find_replica, parse_name

    if kind is WORKLOADS:
        return [(await client.get(name)).message]
    if kind is NODES:
        return [(await client.node(name)).message]
    if kind is REVISIONS:
        return [item.message for item in await client.revisions(name)]
    if kind is EVENTS:
        since = _since(context)
        return [item.message for item in await client.events(name, namespace=context.namespace, since=since)]
    if parse_name(name).replica:
        return [(await find_replica(client, name)).message]
    return await _replicas_of(client, name)


async def _replicas_of(client: Client, name: str) -> list[Any]:
    """Replicas of a workload, or the one whose id begins like this."""
    from cloudless.cli.naming import find_replica
    from cloudless.domain.errors import NotFound

    try:
        found = await client.replicas(name)
        if not found:
            await client.get(name)  # no replicas is one thing, no workload another
    except NotFound:
        try:
            return [(await find_replica(client, name)).message]
        except NotFound:
            pass
        raise
    return [item.message for item in found]


def _since(context: Context) -> datetime.datetime | None:
    since_s: float | None = getattr(context.arguments, "since", None)
    if since_s is None:
        return None
    return context.clock.now() - datetime.timedelta(seconds=since_s)
