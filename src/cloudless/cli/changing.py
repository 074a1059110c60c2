"""What all verbs that change something share: dry runs, waiting, the line that says what happened."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.context import PATIENCE_S, Context
from cloudless.cli.output.formats import parse_format, write
from cloudless.cli.output.kinds import WORKLOADS
from cloudless.cli.parsing import seconds
from cloudless.cli.terminal import neutral

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloudless.sdk.client import Client
    from cloudless.sdk.verdict import Goal
    from cloudless.sdk.workload import Workload

#: Values of -o with which a change is told in sentences.
IN_WORDS = (None, "table", "wide")
#: Goals that are looked at a second time where no probe vouches for them.
_SETTLING = frozenset({"available", "scaled", "promoted"})


def add_wait_options(parser: argparse.ArgumentParser) -> None:
    """--wait (the default), --no-wait, --wait-timeout."""
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument("--wait", action="store_true", help="until it is so, or cannot be; the default")
    waiting.add_argument("--no-wait", action="store_true", help="return as soon as the change is recorded")
    parser.add_argument(
        "--wait-timeout",
        metavar="TIME",
        type=seconds,
        help="give up waiting; by default a rollout's own deadline ends it, or 10m where none is on",
    )


class _Explain(argparse.Action):
    """``--explain`` is about a plan, so it asks for one."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **options)

    def __call__(self, parser: Any, namespace: argparse.Namespace, *_: Any) -> None:
        namespace.explain = namespace.dry_run = True


def add_change_options(parser: argparse.ArgumentParser) -> None:
    """--dry-run, waiting, and -o for the object that results."""
    parser.add_argument("--dry-run", action="store_true", help="validate and plan, change nothing")
    parser.add_argument("--explain", action=_Explain, help="as --dry-run, and why each node was chosen")
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
        type=_known_format,
        help="table, wide, json, yaml, name, jsonpath=..., custom-columns=...",
    )


def _known_format(text: str) -> str:
    """The value of -o, refused before anything is changed; raises ``UsageError``."""
    if text != "table":  # the default, which costs nothing
        parse_format(text)
    return text


async def before_dry_run(context: Context, client: Client, name: str) -> Workload | None:
    """What is there before a dry run of a change of it; None when that is not asked for, or nothing."""
    if not context.arguments.dry_run:
        return None
    from cloudless.domain.errors import NotFound

    try:
        found = await client.get(name)
    except NotFound:
        return None
    return found if found.name == name.rpartition("/")[2] else None  # a name, not the prefix of an id


async def finish(
    context: Context,
    client: Client,
    workload: Workload,
    *,
    goal: Goal = "available",
    since: str = "",
    before: Workload | None = None,
) -> None:
    """Say what happened and wait for its effect, unless told not to; raises what ``wait`` raises.

    Of a dry run the plan is shown, and what differs from ``before``.
    """
    await finish_all(context, client, [(workload, before)], goal=goal, since=since)


async def finish_all(
    context: Context,
    client: Client,
    changes: Sequence[tuple[Workload, Workload | None]],
    *,
    goal: Goal = "available",
    since: str = "",
    announced: bool = False,
) -> int:
    """The same for several, each with what was there before; their results are one document.

    Of several, one that fails keeps nobody from being told of the others: the exit code that is
    returned is that of the first that failed. What is ``announced`` is not said again.
    """
    from cloudless.cli import problems
    from cloudless.domain.errors import CloudlessError, Unavailable
    from cloudless.sdk.failures import Superseded

    arguments, single = context.arguments, len(changes) == 1
    if arguments.dry_run:
        from cloudless.cli.planned import show_planned

        show_planned(context, changes)
        return exits.OK
    client.patience_s = PATIENCE_S
    results: list[Workload] = []
    superseded_by: dict[int, int] = {}
    code = exits.OK
    for number, (workload, _) in enumerate(changes):
        if not announced:
            announce(context, workload)
        done = workload
        try:
            if not arguments.no_wait:
                done = await follow(context, client, workload, goal, since=since)
        except CloudlessError as error:
            if isinstance(error, Superseded):
                done, superseded_by[number] = error.workload, error.revision
            if single and number in superseded_by and arguments.output not in IN_WORDS:
                show_results(context, [done], single=True, superseded_by=superseded_by)
            if single or isinstance(error, Unavailable):
                raise  # without a coordinator there is nothing to tell of the others
            problems.show(error, context.err, context.known_target)
            code = code or problems.exit_code_of(error)
        results.append(done)
    if arguments.output is not None:
        show_results(context, results, single=single, superseded_by=superseded_by)
    return code


def announce(context: Context, workload: Workload) -> None:
    """Say what is recorded, as soon as it is; where the object is asked for, that says it."""
    if context.arguments.dry_run or context.arguments.output is not None:
        return
    context.out.line(f"{label(workload)} {workload.outcome}")
    if workload.outcome == "unchanged":
        say_moved(context, workload)
    context.out.stream.flush()


def say_moved(context: Context, workload: Workload) -> None:
    """Say that a tag has moved, which changes nothing by itself."""
    from cloudless.cli.differing import moved_hint, moved_tags

    lines = moved_tags(workload) if not getattr(context.arguments, "pull", False) else ()
    for line in [*lines, moved_hint(workload.name)] if lines else ():
        context.out.line(line)


async def follow(
    context: Context, client: Client, workload: Workload, goal: Goal, *, since: str = ""
) -> Workload:
    """Wait with progress on stderr."""
    from cloudless.cli.progress import Progress
    from cloudless.sdk.failures import Superseded

    arguments = context.arguments
    name = neutral(workload.name)
    quiet = getattr(arguments, "quiet", False)
    try:
        with Progress(context.err, name, context.clock.now, quiet=quiet) as progress:
            done = await client.follow(
                workload,
                goal,
                timeout_s=arguments.wait_timeout,
                settle_s=_settle_s(workload, goal),
                since=since,
                on_change=progress.update,
            )
    except Superseded as error:
        if arguments.output in IN_WORDS:
            context.out.line(f"{label(error.workload)} superseded by revision {error.revision}")
        raise
    except asyncio.CancelledError:
        more = "get {name} -w" if goal == "deleted" else "rollout watch {name}"
        context.err.line(
            f"the change of {name} goes on without us; see it with: cloudless {more.format(name=name)}"
        )
        raise
    if done.generation > workload.generation and goal != "deleted":
        context.err.line(
            f"{name}: changed by somebody else meanwhile; what replicas are made from is the same"
        )
    if arguments.output is None and goal not in ("completed", "deleted", "placed"):
        context.out.line(result_line(done))
    return done


def result_line(workload: Workload) -> str:
    """What a wait has come to, in one line."""
    status = workload.status
    rollout, phase = status.rollout, workload.phase
    runs, available = status.revision, status.available_replicas
    if rollout is not None and rollout.target_revision:
        runs, available = rollout.target_revision, rollout.new_available
    counts = f"{available}/{status.desired_replicas} available"
    if phase == "Succeeded":
        return f"{label(workload)} succeeded, revision {status.revision}"
    halfway = f"{available}/{status.desired_replicas} of revision {runs} available"
    if phase == "Paused":
        return f"{label(workload)} is paused, {halfway}"
    if phase == "WaitingPromotion" and rollout is not None:
        at = f" at step {rollout.step} of {rollout.steps}" if rollout.step else ""
        return f"{label(workload)} waits to be promoted{at}, {halfway}"
    if phase in ("RolledBack", "Aborted"):
        return f"{label(workload)} {counts}, back at revision {runs}"
    kept = rollout.old_replicas if rollout is not None and rollout.stage == "retire" else 0
    return f"{label(workload)} {counts}, revision {runs}" + (f"; {kept} old kept for a while" if kept else "")


def _settle_s(workload: Workload, goal: Goal) -> float:
    """A second look at what has no probe: many programs end right after their start."""
    from cloudless.sdk.limits import SETTLE_S

    spec = workload.message.spec
    if goal not in _SETTLING or workload.outcome == "unchanged" or spec is None or not spec.replicas:
        return 0.0
    vouched = spec.readiness_probe is not None or bool(spec.rollout and spec.rollout.min_ready_time)
    return 0.0 if vouched else SETTLE_S


def show_results(
    context: Context,
    workloads: Sequence[Workload],
    *,
    single: bool,
    superseded_by: Mapping[int, int] | None = None,
) -> None:
    """The objects in the format of -o, ``single`` as itself and not as a list.

    ``superseded_by`` are revisions by the number of the object; they stand before its own values.
    """
    form = parse_format(context.arguments.output)
    messages = [workload.message for workload in workloads]
    numbers = {id(message): number for number, message in enumerate(messages)}
    kind = WORKLOADS
    if superseded_by and form.name != "name":

        def plain(message: Any) -> dict[str, Any]:
            revision = (superseded_by or {}).get(numbers[id(message)])
            return ({"superseded_by": revision} if revision else {}) | WORKLOADS.plain(message)

        kind = dataclasses.replace(kind, plain=plain) if form.name != "yaml" else kind
    write(context.out, kind, messages, form, context.clock.now(), single=single)


def label(workload: Any) -> str:
    """How messages name a workload: ``workload/web``."""
    space = workload.namespace
    prefix = f"{neutral(space)}/" if space and space != "default" else ""
    return f"workload/{prefix}{neutral(workload.name)}"
