"""Change the number of replicas of a workload. Scaling makes no new revision."""

from __future__ import annotations

import argparse

from cloudless.cli import exits
from cloudless.cli.changing import add_change_options, before_dry_run, finish
from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="the workload")
    parser.add_argument("count", metavar="N", nargs="?", type=int, help="wanted number of replicas")
    parser.add_argument("--replicas", metavar="N", type=int, help="the same as an option")
    add_change_options(parser)


async def run(context: Context) -> int:
    """Scale and wait."""
    arguments = context.arguments
    given = [number for number in (arguments.count, arguments.replicas) if number is not None]
    if len(given) != 1:
        raise UsageError("give the number of replicas once", hint="cloudless scale web 3")
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only

        name = workload_only(arguments.name)
        async with suggesting(client, name):
            before = await before_dry_run(context, client, name)
            workload = await client.scale(name, given[0], dry_run=arguments.dry_run)
        workload.outcome = f"scaled to {given[0]}"
        await finish(context, client, workload, goal="scaled", before=before)
    return exits.OK
