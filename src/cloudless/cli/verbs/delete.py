"""Remove workloads, by name or as files describe.

Returns when the removal is recorded; --wait returns when nothing is left on any node."""

from __future__ import annotations

import argparse

from cloudless.cli import exits
from cloudless.cli.changing import follow
from cloudless.cli.context import PATIENCE_S, Context
from cloudless.cli.parsing import UsageError, seconds
from cloudless.cli.terminal import neutral
from cloudless.domain.errors import NotFound


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads")
    parser.add_argument(
        "-f", "--file", action="append", default=[], metavar="FILE", help="remove what this describes"
    )
    parser.add_argument("--wait", action="store_true", help="until nothing is left")
    parser.add_argument("--wait-timeout", metavar="TIME", type=seconds, default=600.0, help="10m by default")
    parser.add_argument("--grace", metavar="TIME", type=seconds, help="time to stop; 0s is immediate")
    parser.add_argument("--ignore-missing", action="store_true", help="what is not there is no error")
    parser.add_argument("--dry-run", action="store_true", help="check only, change nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


async def run(context: Context) -> int:
    """Delete all, then wait for all."""
    arguments = context.arguments
    names = list(arguments.names)
    if arguments.file:
        from cloudless.cli.manifests import read_all

        names += [
            f"{item.namespace or context.namespace}/{item.name}" for item in read_all(context, arguments.file)
        ]
    if not names:
        raise UsageError("which workloads?", hint="cloudless delete NAME, or -f FILE")
    arguments.output = None
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only

        going = []
        for name in dict.fromkeys(workload_only(word) for word in names):
            try:
                async with suggesting(client, name):
                    workload = await client.delete(name, grace_s=arguments.grace, dry_run=arguments.dry_run)
            except NotFound:
                if not arguments.ignore_missing:
                    raise
                continue
            going.append(workload)
            shown = neutral(workload.name)
            if arguments.dry_run:
                context.out.line(f"workload/{shown} would be deleted (dry run)")
            elif not arguments.wait:
                context.out.line(f"workload/{shown} is being deleted")
        if arguments.wait and not arguments.dry_run:
            client.patience_s = PATIENCE_S
            for workload in going:
                await follow(context, client, workload, "deleted")
                context.out.line(f"workload/{neutral(workload.name)} deleted")
    return exits.OK
