"""What all verbs that change something share: dry runs, waiting, the line that says what happened."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cloudless.cli.context import PATIENCE_S, Context
from cloudless.cli.output.formats import parse_format, write
from cloudless.cli.output.kinds import WORKLOADS
from cloudless.cli.parsing import seconds
from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    from cloudless import api
    from cloudless.sdk.client import Client
    from cloudless.sdk.verdict import Goal
    from cloudless.sdk.workload import Workload

#: How long a change is waited for unless --wait-timeout says otherwise.
WAIT_TIMEOUT_S = 600.0


def add_wait_options(parser: argparse.ArgumentParser) -> None:
    """--no-wait, --wait-timeout."""
    parser.add_argument("--no-wait", action="store_true", help="return as soon as the change is recorded")
    parser.add_argument(
        "--wait-timeout",
        metavar="TIME",
        type=seconds,
        default=WAIT_TIMEOUT_S,
        help="give up waiting, 10m by default",
    )


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """--dry-run, waiting, and -o for the object that results."""
    parser.add_argument("--dry-run", action="store_true", help="validate and plan, change nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_output_option(parser, default=None)
    add_wait_options(parser)


def add_output_option(parser: argparse.ArgumentParser, *, default: str | None = "table") -> None:
    """-o"""
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        default=default,
        help="table, wide, json, yaml, name, jsonpath=..., custom-columns=...",
    )


async def finish(context: Context, client: Client, workload: Workload, *, goal: Goal = "available") -> None:
    """Say what happened and wait for its effect, unless told not to; raises what ``wait`` raises."""
    arguments = context.arguments
    if arguments.dry_run:
        show_plan(context.out, workload)
        return
    client.patience_s = PATIENCE_S
    if arguments.output is None:
        context.out.line(f"{_label(workload)} {workload.outcome}")
    if not arguments.no_wait:
        workload = await follow(context, client, workload, goal)
    if arguments.output is not None:
        show_result(context, workload)


async def follow(context: Context, client: Client, workload: Workload, goal: Goal) -> Workload:
    """Wait with progress on stderr."""
    from cloudless.cli.progress import Progress

    arguments = context.arguments
    name = neutral(workload.name)
    try:
        with Progress(context.err, name, quiet=getattr(arguments, "quiet", False)) as progress:
            done = await client.follow(
                workload,
                goal,
                timeout_s=arguments.wait_timeout,
                settle_s=_settle_s(workload, goal),
                on_change=progress.update,
            )
    except asyncio.CancelledError:
        context.err.line(f"the change of {name} goes on without us; see it with: cloudless get {name} -w")
        raise
    if arguments.output is None and goal == "available":
        status = done.status
        context.out.line(
            f"{_label(done)} {status.available_replicas}/{status.desired_replicas} available, "
            f"revision {status.revision}"
            if done.phase != "Succeeded"
            else f"{_label(done)} succeeded, revision {status.revision}"
        )
    return done


def _settle_s(workload: Workload, goal: Goal) -> float:
    """A second look at what has no probe: many programs end right after their start."""
    from cloudless.sdk.limits import SETTLE_S

    spec = workload.message.spec
    if goal != "available" or workload.outcome == "unchanged" or spec is None or not spec.replicas:
        return 0.0
    vouched = spec.readiness_probe is not None or bool(spec.rollout and spec.rollout.min_ready_time)
    return 0.0 if vouched else SETTLE_S


def show_result(context: Context, workload: Workload) -> None:
    """The object in the format of -o."""
    form = parse_format(context.arguments.output)
    write(context.out, WORKLOADS, [workload.message], form, context.clock.now(), single=True)


def show_plan(terminal: Terminal, workload: Workload) -> None:
    """What would be done, and why."""
    terminal.line(f"{_label(workload)} would be {workload.outcome} (dry run)")
    show_steps(terminal, workload.plan)


def show_steps(terminal: Terminal, plan: Sequence[api.PlannedStep]) -> None:
    """The steps of a plan, one line each, with what speaks against nodes below."""
    for step in plan:
        parts = [neutral(step.action), neutral(step.replica)]
        if step.node:
            parts.append(f"on {neutral(step.node)}")
        line = "  " + " ".join(part for part in parts if part)
        if step.because:
            line += terminal.paint(f"  ({neutral(step.because)})", "dim")
        terminal.line(line)
        if step.score:
            terms = ", ".join(f"{neutral(name)} {value:.2f}" for name, value in sorted(step.score.items()))
            terminal.line(terminal.paint(f"      score: {terms}", "dim"))
        for refusal in step.refusals:
            terminal.line(f"      {neutral(refusal.node)}: {neutral(refusal.reason)}")


def _label(workload: Any) -> str:
    space = workload.namespace
    prefix = f"{neutral(space)}/" if space and space != "default" else ""
    return f"workload/{prefix}{neutral(workload.name)}"
