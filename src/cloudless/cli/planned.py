"""The plan of a change that is not made (yet): for ``--dry-run`` and ``diff``.

Stage by stage: what is done together, on which nodes, and what stays available meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    from cloudless import api
    from cloudless.cli.context import Context
    from cloudless.sdk.workload import Workload


def show_planned(context: Context, planned: Sequence[tuple[Workload, Workload | None]]) -> None:
    """What would change, field by field, and the plan; as values with ``-o json`` or ``yaml``.

    Each comes with what was there before.
    """
    from cloudless.cli.changing import IN_WORDS, say_moved

    if context.arguments.output not in IN_WORDS:
        _write_values(context, planned)
        return
    for workload, before in planned:
        _show(context, workload, before)
        say_moved(context, workload)


def _show(context: Context, workload: Workload, before: Workload | None) -> None:
    from cloudless.cli.changing import label
    from cloudless.cli.differing import change_lines, changes_between

    changes = changes_between(before, workload)
    context.out.line(f"{label(workload)} would be {workload.outcome} (dry run)")
    if before is not None:
        for line in change_lines(context.out, before, workload, changes):
            context.out.line(line)
    explain = context.arguments.explain or context.arguments.output == "wide"
    show_steps(context.out, workload.plan, _desired(workload), explain=explain)


def show_steps(
    terminal: Terminal, plan: Sequence[api.PlannedStep], desired: int, *, explain: bool = False
) -> None:
    """The steps by stage; ``explain`` adds the terms of the score that chose a node."""
    last = max((step.stage for step in plan), default=0)
    for stage, together in groupby(plan, key=lambda step: step.stage):
        steps = list(together)
        if stage:
            keeps = f"keeps {_kept(steps[-1].available, desired)} available, {_count(steps[-1].existing)}"
            title = f"stage {stage} of {last}"
            terminal.line(f"  {terminal.paint(title, 'bold')}  {keeps}")
        indent = "    " if stage else "  "
        words = [_words(step) for step in steps]
        width = max((len(text) for text, step in zip(words, steps, strict=True) if step.replica), default=0)
        for text, step in zip(words, steps, strict=True):
            _show_step(terminal, step, text, width, indent, explain=explain)


def _show_step(
    terminal: Terminal, step: api.PlannedStep, text: str, width: int, indent: str, *, explain: bool
) -> None:
    line = f"{indent}{text}"
    if step.replica and step.because:
        line = f"{indent}{text:<{width}}  " + terminal.paint(f"({neutral(step.because)})", "dim")
    terminal.line(line)
    if explain and step.score:
        first = sorted(step.score.items(), key=lambda term: (term[0] != "total", term[0]))
        terms = ", ".join(f"{neutral(name)} {value:.2f}" for name, value in first)
        terminal.line(terminal.paint(f"{indent}    score: {terms}", "dim"))
    for refusal in step.refusals:
        where = f"{neutral(refusal.node)}: " if refusal.node else ""
        terminal.line(f"{indent}    {where}{neutral(refusal.reason)}")


def _words(step: api.PlannedStep) -> str:
    """The step without its reason; one that is about no replica as the coordinator says it."""
    if not step.replica:
        if step.action == "revision" and step.because:
            return neutral(step.because)
        return neutral(step.sentence or f"{step.action}: {step.because}".removesuffix(": "))
    where = f" on {neutral(step.node)}" if step.node else ""
    lost = ", no node" if step.refusals and not step.node else ""
    return f"{neutral(step.action)} {neutral(step.replica)}{where}{lost}"


def _write_values(context: Context, planned: Sequence[tuple[Workload, Workload | None]]) -> None:
    """One document: the value of the only one, or a list of all."""
    from cloudless.cli.output import paths
    from cloudless.cli.output.formats import parse_format
    from cloudless.cli.output.table import lines_of
    from cloudless.sdk.manifest.writing import dump_yaml

    values = [_value(workload, before) for workload, before in planned]
    whole = values[0] if len(values) == 1 else {"items": values}
    form, out = parse_format(context.arguments.output), context.out
    match form.name:
        case "yaml":
            out.write("---\n".join(dump_yaml(value) for value in values))
        case "jsonpath":
            out.write(paths.template(form.expression, whole) + "\n")
        case "custom-columns":
            titles, rows = paths.custom_columns(form.expression, values)
            for line in lines_of(titles, rows, out):
                out.write(line + "\n")
        case "name":
            for value in values:
                out.write(f"workload/{neutral(value['name'])}\n")
        case _:
            out.write(json.dumps(whole, indent=2, ensure_ascii=not out.unicode) + "\n")


def _value(workload: Workload, before: Workload | None) -> dict[str, Any]:
    from cloudless.cli.differing import changes_between, text_of
    from cloudless.cli.output.plain import plain

    return {
        "namespace": workload.namespace,
        "name": workload.name,
        "outcome": workload.outcome,
        "changes": [
            {"path": text_of(path), "old": old, "new": new}
            for path, old, new in changes_between(before, workload)
        ],
        "plan": [plain(step) for step in workload.plan],
    }


def _desired(workload: Workload) -> int:
    spec = workload.message.spec
    return 1 if spec is None or spec.replicas is None else spec.replicas


def _kept(available: int, desired: int) -> str:
    """How many of the wanted replicas stay available.

    >>> _kept(2, 3), _kept(6, 3), _kept(1, 1)
    ('2 of 3', 'all 3', 'the one')
    """
    if available >= desired == 1:
        return "the one"
    return f"all {desired}" if available >= desired > 0 else f"{available} of {desired}"


def _count(existing: int) -> str:
    return "1 exists" if existing == 1 else f"{existing} exist"
