"""Show what apply would change, field by field, and the plan behind it.

Exit code 0: nothing would change; 1: something would; above 1: an error."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.changing import label
from cloudless.cli.context import Context
from cloudless.cli.differing import change_lines, changes_between, moved_hint, moved_tags, not_rolled_out
from cloudless.cli.manifests import read_all
from cloudless.cli.parsing import UsageError
from cloudless.cli.planned import show_steps
from cloudless.domain.errors import NotFound

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("-f", "--file", action="append", default=[], metavar="FILE", help="file, folder or -")
    parser.add_argument("--no-plan", action="store_true", help="do not ask the coordinator for its plan")
    parser.add_argument("--explain", action="store_true", help="why each node was chosen")


async def run(context: Context) -> int:
    """Compare each object with what is there."""
    if not context.arguments.file:
        raise UsageError("diff what?", hint="cloudless diff -f web.yaml")
    workloads = read_all(context, context.arguments.file)
    code = exits.OK
    async with context.client() as client:
        for workload in workloads:
            if await _differs(context, client, workload):
                code = exits.DIFFERS
    return code


async def _differs(context: Context, client: Client, wanted: Workload) -> bool:
    try:
        before: Workload | None = await client.get(wanted.name, wanted.namespace or None)
    except NotFound:
        before = None
    if before is not None and before.name != wanted.name:
        before = None  # its id begins like this name
    changes = changes_between(before, wanted)
    moved = moved_tags(before)
    if not changes and not moved and before is not None:
        note = not_rolled_out(before)
        if note:
            context.err.line(note)
        return False
    title = label(wanted)
    context.out.line(context.out.paint(title if before is not None else f"{title} (new)", "bold"))
    for line in change_lines(context.out, before, wanted, changes):
        context.out.line(line)
    for line in moved:
        context.out.line(context.out.paint(line, "yellow"))
    if not changes and moved:
        context.out.line(moved_hint(wanted.name))  # apply starts nothing: there is no plan
        return True
    if not context.arguments.no_plan:
        planned = await client.apply(wanted, dry_run=True)
        desired = planned.message.spec.replicas if planned.message.spec is not None else None
        show_steps(
            context.out, planned.plan, 1 if desired is None else desired, explain=context.arguments.explain
        )
    return True
