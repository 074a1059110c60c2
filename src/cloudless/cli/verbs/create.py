"""Create what files describe; an object that exists already is an error (exit code 6)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cloudless.cli.changing import add_change_options, announce, finish_all
from cloudless.cli.context import Context
from cloudless.cli.manifests import read_all
from cloudless.cli.parsing import UsageError

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload


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
        done: list[tuple[Workload, Workload | None]] = []
        for workload in workloads:
            created = await client.create(workload, dry_run=arguments.dry_run)
            announce(context, created)
            done.append((created, None))
        return await finish_all(context, client, done, announced=True)
