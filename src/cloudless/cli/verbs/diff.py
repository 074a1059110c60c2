"""Show what apply would change, field by field, and the plan behind it.

Exit code 0: nothing would change; 1: something would; above 1: an error."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.changing import show_steps
from cloudless.cli.context import Context
from cloudless.cli.manifests import read_all
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import neutral
from cloudless.domain.errors import NotFound

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.workload import Workload


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("-f", "--file", action="append", default=[], metavar="FILE", help="file, folder or -")
    parser.add_argument("--no-plan", action="store_true", help="do not ask the coordinator for its plan")


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
    changes = list(differences(values_of(before) if before is not None else {}, _wanted(wanted, before)))
    if not changes and before is not None:
        return False
    title = f"workload/{neutral(wanted.name)}"
    context.out.line(context.out.paint(title if before is not None else f"{title} (new)", "bold"))
    for path, old, new in changes:
        if old is not None:
            context.out.line(context.out.paint(f"- {path}: {_shown(old)}", "red"))
        if new is not None:
            context.out.line(context.out.paint(f"+ {path}: {_shown(new)}", "green"))
    if not context.arguments.no_plan:
        planned = await client.apply(wanted, dry_run=True)
        show_steps(context.out, planned.plan)
    return True


def values_of(workload: Workload) -> dict[str, Any]:
    """What a manifest can say about a workload, with all defaults."""
    spec = workload.spec.model_dump(mode="json")
    return {"labels": dict(workload.labels), "annotations": dict(workload.annotations), "spec": spec}


def _wanted(wanted: Workload, before: Workload | None) -> dict[str, Any]:
    """As ``values_of``; labels and annotations that are not given stay as they are."""
    values = values_of(wanted)
    if before is not None:
        values["labels"] = values["labels"] or dict(before.labels)
        values["annotations"] = values["annotations"] or dict(before.annotations)
    return values


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves that differ: path, old value, new value (None when absent).

    >>> list(differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}))
    [('a.b', 1, 2), ('c', None, 3)]
    """
    if isinstance(old, dict | None) and isinstance(new, dict | None) and (old or new):
        before, after = old or {}, new or {}
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            yield from differences(
                old[index] if index < len(old) else None,
                new[index] if index < len(new) else None,
                f"{path}[{index}]",
            )
    elif old != new and (old or new or (old is not None and new is not None)):
        yield path, old, new


def _shown(value: Any) -> str:
    return neutral(value if isinstance(value, str) and value else json.dumps(value))
