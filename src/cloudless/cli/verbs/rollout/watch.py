"""Follow a rollout until it ends, with the exit code of a change that waits.

In place on a terminal, one line per change elsewhere, one JSON object per event with -o json.
One that has ended already is answered at once."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.changing import result_line
from cloudless.cli.context import PATIENCE_S, Context
from cloudless.cli.parsing import UsageError, seconds
from cloudless.cli.terminal import neutral

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="the workload")
    parser.add_argument("-o", "--output", metavar="FORMAT", default="table", help="table or json")
    parser.add_argument(
        "--wait-timeout",
        metavar="TIME",
        type=seconds,
        help="give up watching; by default a rollout's own deadline ends it, or 10m where none is on",
    )


async def run(context: Context) -> int:
    """Watch; raises what waiting raises."""
    output = context.arguments.output
    if output not in ("table", "json"):
        raise UsageError(f"-o {output} does not go with watching", hint="use table or json")
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only

        name = workload_only(context.arguments.name)
        async with suggesting(client, name):
            workload = await client.get(name)
        client.patience_s = PATIENCE_S
        if output == "json":
            await _events(context, client, workload)
        else:
            await _view(context, client, workload)
    return exits.OK


async def _view(context: Context, client: Client, workload: Workload) -> None:
    from cloudless.cli.progress import Progress

    with Progress(context.out, neutral(workload.name), context.clock.now) as progress:
        done = await client.follow(
            workload, timeout_s=context.arguments.wait_timeout, on_change=progress.update
        )
    context.out.line(result_line(done))


async def _events(context: Context, client: Client, workload: Workload) -> None:
    """One object per state that differs from the one before."""
    from cloudless.cli.output.formats import json_line
    from cloudless.cli.output.kinds import ROLLOUTS
    from cloudless.sdk.verdict import Verdict

    told = ""

    def tell(state: Workload, verdict: Verdict) -> None:
        nonlocal told
        line = json_line(ROLLOUTS, state.message, type="MODIFIED" if told else "ADDED")
        if line.partition(",")[2] != told:
            told = line.partition(",")[2]
            context.out.write(line + "\n")
            context.out.stream.flush()

    await client.follow(workload, timeout_s=context.arguments.wait_timeout, on_change=tell)
