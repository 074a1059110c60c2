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


Path = tuple[str | int, ...]


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
    old, new = (values_of(before) if before is not None else {}), _wanted(wanted, before)
    changes = list(differences(old, new))
    if not changes and before is not None:
        return False
    title = f"workload/{neutral(wanted.name)}"
    context.out.line(context.out.paint(title if before is not None else f"{title} (new)", "bold"))
    defaults = with_defaults(before), with_defaults(wanted)
    for path, was, is_now in changes:
        context.out.line(_line(context, path, was, is_now, defaults if before is not None else ({}, {})))
    if not context.arguments.no_plan:
        planned = await client.apply(wanted, dry_run=True)
        show_steps(context.out, planned.plan)
    return True


def values_of(workload: Workload) -> dict[str, Any]:
    """What a manifest says about a workload: labels, annotations, and the fields that are no defaults."""
    from cloudless.sdk.manifest.writing import spec_values

    head = {"labels": dict(workload.labels), "annotations": dict(workload.annotations)}
    return head | spec_values(workload.spec)


def with_defaults(workload: Workload | None) -> dict[str, Any]:
    """All fields of the specification."""
    return workload.spec.model_dump(mode="json") if workload is not None else {}


def _wanted(wanted: Workload, before: Workload | None) -> dict[str, Any]:
    """As ``values_of``; labels and annotations that are not given stay as they are."""
    values = values_of(wanted)
    if before is not None:
        values["labels"] = values["labels"] or dict(before.labels)
        values["annotations"] = values["annotations"] or dict(before.annotations)
    return values


def differences(old: Any, new: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """The leaves that differ: path, old value, new value (None when absent).

    >>> list(differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}))
    [(('a', 'b'), 1, 2), (('c',), None, 3)]
    """
    if isinstance(old, dict | None) and isinstance(new, dict | None) and (old or new):
        before, after = old or {}, new or {}
        for key in [*before, *(key for key in after if key not in before)]:
            yield from differences(before.get(key), after.get(key), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            was = old[index] if index < len(old) else None
            is_now = new[index] if index < len(new) else None
            yield from differences(was, is_now, (*path, index))
    elif old != new and (old or new or (old is not None and new is not None)):
        yield path, old, new


def _line(context: Context, path: Path, was: Any, is_now: Any, defaults: tuple[Any, Any]) -> str:
    """One changed field: old and new value; a default is named as such."""
    name = text_of(path)
    old, new = _side(was, path, defaults[0]), _side(is_now, path, defaults[1])
    if old and new:
        return context.out.paint(f"~ {name}: {old} -> {new}", "yellow")
    return (
        context.out.paint(f"- {name}: {old}", "red")
        if old
        else context.out.paint(f"+ {name}: {new}", "green")
    )


def _side(value: Any, path: Path, defaults: Any) -> str:
    if value is not None:
        return _shown(value)
    for part in path:
        if not isinstance(defaults, dict) or part not in defaults:
            return ""
        defaults = defaults[part]
    return (
        ""
        if defaults in (None, "", {}, []) or isinstance(defaults, dict)
        else f"{_shown(defaults)} (default)"
    )


def text_of(path: Path) -> str:
    """A path as people write it.

    >>> text_of(("ports", 0, "host_port"))
    'ports[0].host_port'
    """
    parts = [f"[{part}]" if isinstance(part, int) else f".{neutral(part)}" for part in path]
    return "".join(parts).removeprefix(".")


def _shown(value: Any) -> str:
    return neutral(value if isinstance(value, str) and value else json.dumps(value))
