"""What the verbs that steer rollouts share: their options, the call, and waiting for its effect."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.changing import add_change_options, before_dry_run, finish
from cloudless.cli.context import Context

if TYPE_CHECKING:
    from cloudless.sdk.verdict import Goal
    from cloudless.sdk.workload import Workload

#: Verbs that do nothing, and say so, when it is so already.
_MAY_CHANGE_NOTHING = frozenset({"pause", "abort", "undo"})


def add_steering_options(parser: argparse.ArgumentParser, *, message: bool = False) -> None:
    """NAME and what all changes take; ``-m`` where the verb makes a revision."""
    parser.add_argument("name", metavar="NAME", help="the workload")
    if message:
        parser.add_argument("-m", "--message", default="", help="why; kept with the revision")
    add_change_options(parser)


async def steer(context: Context, verb: str, *, goal: Goal = "available", **options: Any) -> int:
    """Call the client's method ``verb`` and wait for ``goal``."""
    arguments = context.arguments
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only

        name = workload_only(arguments.name)
        async with suggesting(client, name):
            before = await before_dry_run(context, client, name)
            call = getattr(client, verb)
            workload: Workload = await call(name, dry_run=arguments.dry_run, **options)
        if verb in _MAY_CHANGE_NOTHING and not _asks(workload):
            workload.outcome = "unchanged"
        await finish(context, client, workload, goal=goal, since=workload.resource_version, before=before)
    return exits.OK


def _asks(workload: Workload) -> bool:
    """Whether the answer holds something that the coordinator has yet to take up."""
    status = workload.status
    taken_up = status.observed_generation >= workload.generation
    return not taken_up or (status.rollout is not None and status.rollout.pending)
