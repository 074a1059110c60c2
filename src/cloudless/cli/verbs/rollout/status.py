"""Show where a rollout is, and why: replicas by revision, traffic, what it waits for and how long.

After a failure the replica, its exit or probe answer, its last log lines and what changed.
The exit code is 3 when the newest revision has failed, was rolled back or aborted."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.changing import add_output_option, label
from cloudless.cli.context import Context
from cloudless.cli.output.formats import parse_format, write
from cloudless.cli.output.kinds import REPLICAS, ROLLOUTS
from cloudless.cli.output.words import age, phase_cell
from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    import datetime

    from cloudless import api
    from cloudless.sdk.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="the workload")
    add_output_option(parser)


async def run(context: Context) -> int:
    """Show it; the exit code says whether it failed."""
    form = parse_format(context.arguments.output)
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only
        from cloudless.sdk.objects import enum_name
        from cloudless.sdk.verdict import FAILED_PHASES

        name = workload_only(context.arguments.name)
        async with suggesting(client, name):
            workload = await client.get(name)
    if form.name in ("table", "wide"):
        show(context, workload, with_replicas=form.name == "wide")
    else:
        write(context.out, ROLLOUTS, [workload.message], form, context.clock.now(), single=True)
    rollout = workload.status.rollout
    failed = rollout is not None and enum_name(rollout.phase) in FAILED_PHASES
    return exits.ROLLOUT_FAILED if failed else exits.OK


def show(context: Context, workload: Workload, *, with_replicas: bool) -> None:
    """The page."""
    from cloudless.cli.differing import moved_hint, moved_tags
    from cloudless.cli.output.rollouts import bars, failure_lines, strategy_text, way_text
    from cloudless.sdk.explaining import explanation_of

    out, now, rollout = context.out, context.clock.now(), workload.status.rollout
    if rollout is None:
        out.line(f"{label(workload)}: the coordinator has not taken it up yet")
        return
    title = f"{label(workload)}  {way_text(rollout)}, {strategy_text(rollout)}"
    out.line(out.paint(title, "bold"))
    for name, value, style in _facts(workload, rollout, now):
        out.line(f"  {name:<9} {out.paint(neutral(value), style)}")
    for line in bars(workload.message, out):
        out.line(line)
    moved = moved_tags(workload)
    for line in [*moved, moved_hint(workload.name)] if moved else ():
        out.line(f"  {line}")
    _why(out, rollout)
    if rollout.failure is not None:
        aborted = rollout.failure.reason == "Aborted"
        out.line(out.paint("Aborted" if aborted else "Failure", "bold"))
        if not aborted:
            out.line(f"  {neutral(rollout.failure.message)}")
        for line in failure_lines(explanation_of(workload.status), out, said=rollout.failure.message):
            out.line(f"  {line}")
    if with_replicas:
        replicas = sorted(workload.status.replicas, key=lambda one: (one.ordinal, one.revision))
        write(out, REPLICAS, replicas, parse_format("table"), now)
    verbs = list(fitting_verbs(workload))
    if verbs:
        out.line(f"{out.paint('try:', 'bold')} {verbs[0]}")
        for verb in verbs[1:]:
            out.line(f"     {verb}")


def _facts(
    workload: Workload, rollout: api.RolloutStatus, now: datetime.datetime
) -> Iterator[tuple[str, str, str]]:
    from cloudless.cli.output.rollouts import countdowns
    from cloudless.sdk.objects import enum_name

    if rollout.pending or workload.status.observed_generation < workload.generation:
        yield "pending", "the coordinator has yet to take up the last change; this is how it was", "yellow"
    phase = phase_cell(enum_name(rollout.phase))
    ended = f", {age(rollout.ended_at, now)} ago" if rollout.ended_at is not None else ""
    begun = f", begun {age(rollout.started_at, now)} ago" if rollout.started_at is not None else ""
    yield "phase", f"{phase.text}{ended or begun}", phase.style
    if rollout.step:
        yield "step", f"{rollout.step} of {rollout.steps}", ""
    if rollout.because and not rollout.failure:
        yield "because", rollout.because, ""
    for line in countdowns(rollout, now):
        yield "time", line, ""
    if rollout.failures and rollout.failure is None:
        spec = workload.message.spec.rollout if workload.message.spec is not None else None
        limit = 2 if spec is None or spec.max_failures is None else spec.max_failures
        ends = "bad end" if rollout.failures == 1 else "bad ends"
        yield "failures", f"{rollout.failures} {ends} of new replicas, {limit} are tolerated", "yellow"


def _why(out: Terminal, rollout: api.RolloutStatus) -> None:
    """The tree of reasons, without what the page says elsewhere."""
    from cloudless.cli.output.rollouts import reason_lines

    said = {rollout.because, rollout.failure.message if rollout.failure is not None else ""}
    tree = [one for one in rollout.reasons if one.text not in said and not one.text.startswith("changed: ")]
    if tree and rollout.failure is None:
        least = min(one.depth for one in tree)
        for line in reason_lines(tree):
            out.line("    " + line[2 * least :])


def fitting_verbs(workload: Workload) -> Iterator[str]:
    """The commands that fit the state of a rollout."""
    from cloudless.sdk.objects import enum_name
    from cloudless.sdk.verdict import name_of

    rollout = workload.status.rollout
    phase = enum_name(rollout.phase) if rollout is not None else ""
    name = name_of(workload.message)
    fitting = {
        "PROGRESSING": ("watch",),
        "PAUSED": ("resume", "abort"),
        "WAITING_PROMOTION": ("promote", "abort"),
        "FAILED": ("undo", "retry") if rollout is not None and rollout.revision > 1 else ("retry",),
        "ROLLING_BACK": ("watch",),
        "ROLLED_BACK": ("retry",),
        "ABORTED": ("retry",),
    }.get(phase, ("abort",) if rollout is not None and rollout.stage == "retire" else ())
    for verb in fitting:
        yield f"cloudless rollout {verb} {name}"
    if phase in ("FAILED", "ROLLED_BACK", "ABORTED") and rollout is not None:
        yield f"cloudless rollout history {name} --revision {rollout.revision}"
