"""Create what files describe; an object that exists already is an error (exit code 6)."""

from __future__ import annotations

import argparse

from cloudless.cli import exits
from cloudless.cli.changing import add_change_options, finish
from cloudless.cli.context import Context
from cloudless.cli.manifests import read_all
from cloudless.cli.parsing import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("-f", "--file", action="append", default=[], metavar="FILE", help="file, folder or -")
    add_change_options(parser)


async def run(context: Context) -> int:
    """Read all, create all, then wait for all."""
    arguments = context.arguments
    if not arguments.file:
        raise UsageError("create what?", hint="cloudless create -f web.yaml, or cloudless run NAME IMAGE")
    workloads = read_all(context, arguments.file)
    async with context.client() as client:
        created = [await client.create(workload, dry_run=arguments.dry_run) for workload in workloads]
        for workload in created:
            await finish(context, client, workload)
    return exits.OK
