"""Create or change what files describe, and wait until it is so.

-f takes a file, a folder or - for standard input; YAML and JSON, many documents. All
files are read and checked before anything is changed. What is the same stays untouched.
Each is waited for; the exit code is that of the first one that fails."""

from __future__ import annotations

import argparse

from cloudless.cli.changing import add_change_options, announce, before_dry_run, finish_all
from cloudless.cli.context import Context
from cloudless.cli.manifests import read_all
from cloudless.cli.parsing import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("-f", "--file", action="append", default=[], metavar="FILE", help="file, folder or -")
    parser.add_argument("-m", "--message", default="", help="why; kept with the revision")
    parser.add_argument(
        "--if-version", metavar="VERSION", default="", help="only what is still at this resource_version"
    )
    add_change_options(parser)


async def run(context: Context) -> int:
    """Read all, apply all, then wait for all."""
    arguments = context.arguments
    if not arguments.file:
        raise UsageError("apply what?", hint="cloudless apply -f web.yaml, or -f - for standard input")
    workloads = read_all(context, arguments.file)
    if arguments.if_version and len(workloads) != 1:
        raise UsageError(f"--if-version is about one workload, and there are {len(workloads)}")
    async with context.client() as client:
        done = []
        for workload in workloads:
            before = await before_dry_run(
                context, client, f"{workload.namespace or context.namespace}/{workload.name}"
            )
            applied = await client.apply(
                workload,
                if_version=arguments.if_version,
                message=arguments.message,
                dry_run=arguments.dry_run,
            )
            announce(context, applied)
            done.append((applied, before))
        return await finish_all(context, client, done, announced=True)
