"""Create or change what files describe, and wait until it is so.

-f takes a file, a folder or - for standard input; YAML and JSON, many documents. All
files are read and checked before anything is changed. What is the same stays untouched."""

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
    parser.add_argument("-m", "--message", default="", help="why; kept with the revision")
    add_change_options(parser)


async def run(context: Context) -> int:
    """Read all, apply all, then wait for all."""
    arguments = context.arguments
    if not arguments.file:
        raise UsageError("apply what?", hint="cloudless apply -f web.yaml, or -f - for standard input")
    workloads = read_all(context, arguments.file)
    async with context.client() as client:
        done = []
        for workload in workloads:
            applied = await client.apply(workload, message=arguments.message, dry_run=arguments.dry_run)
            done.append(applied)
        for applied in done:
            await finish(context, client, applied)
    return exits.OK
