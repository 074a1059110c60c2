"""What a change changes, field by field: for ``diff``, and for the plan of a dry run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cloudless.cli.terminal import Terminal, neutral
from cloudless.sdk.objects import enum_name

if TYPE_CHECKING:
    from cloudless.sdk.workload import Workload

#: Characters of a digest that are shown.
_DIGEST = len("sha256:") + 12

Path = tuple[str | int, ...]
Difference = tuple[Path, Any, Any]


def changes_between(before: Workload | None, wanted: Workload) -> list[Difference]:
    """What applying ``wanted`` would change; labels and annotations that are not given stay."""
    old, new = (values_of(before) if before is not None else {}), values_of(wanted)
    if before is not None:
        new["labels"] = new["labels"] or dict(before.labels)
        new["annotations"] = new["annotations"] or dict(before.annotations)
    return list(differences(old, new))


def change_lines(
    terminal: Terminal, before: Workload | None, wanted: Workload, changes: list[Difference]
) -> list[str]:
    """A line for each; a default is named as such."""
    defaults: tuple[Any, Any] = ({}, {})
    if before is not None:
        defaults = before.spec.model_dump(mode="json"), wanted.spec.model_dump(mode="json")
    return [_line(terminal, path, was, is_now, defaults) for path, was, is_now in changes]


def moved_tags(workload: Workload | None) -> list[str]:
    """A line for each image that runs while its tag means another one on the node by now."""
    status = workload.message.status if workload is not None else None
    found: dict[tuple[str, str], set[str]] = {}
    for replica in status.replicas if status is not None else ():
        if replica.tag_digest:
            found.setdefault((replica.image_digest, replica.tag_digest), set()).add(replica.node)
    return [
        f"~ image digest: {was[:_DIGEST]} -> {now[:_DIGEST]} on {', '.join(sorted(map(neutral, nodes)))}"
        for (was, now), nodes in sorted(found.items())
    ]


def not_rolled_out(before: Workload) -> str:
    """That what is asked for is not what runs, though nothing of it would change; empty when it runs."""
    from cloudless.sdk.verdict import FAILED_PHASES

    rollout = before.status.rollout
    phase = enum_name(rollout.phase) if rollout is not None else ""
    if rollout is None or phase not in FAILED_PHASES:
        return ""
    was = "was aborted" if phase == "ABORTED" else "failed"
    name, back = neutral(before.name), rollout.target_revision
    runs = f"revision {back} runs" if back and back != rollout.revision else "it is not rolled out"
    return f"{name}: the same is asked for already, but revision {rollout.revision} {was}: {runs}"


def moved_hint(name: str) -> str:
    """What to do about ``moved_tags``."""
    return f"the tag now names another image: cloudless rollout restart {neutral(name)} --pull"


def values_of(workload: Workload) -> dict[str, Any]:
    """What a manifest says about a workload: labels, annotations, and the fields that are no defaults."""
    from cloudless.sdk.manifest.writing import spec_values

    head = {"labels": dict(workload.labels), "annotations": dict(workload.annotations)}
    return head | spec_values(workload.spec)


def differences(old: Any, new: Any, path: Path = ()) -> Iterator[Difference]:
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


def text_of(path: Path) -> str:
    """A path as people write it.

    >>> text_of(("ports", 0, "host_port"))
    'ports[0].host_port'
    """
    parts = [f"[{part}]" if isinstance(part, int) else f".{neutral(part)}" for part in path]
    return "".join(parts).removeprefix(".")


def _line(terminal: Terminal, path: Path, was: Any, is_now: Any, defaults: tuple[Any, Any]) -> str:
    name = text_of(path)
    old, new = _side(was, path, defaults[0]), _side(is_now, path, defaults[1])
    if old and new:
        return terminal.paint(f"~ {name}: {old} -> {new}", "yellow")
    return terminal.paint(f"- {name}: {old}", "red") if old else terminal.paint(f"+ {name}: {new}", "green")


def _side(value: Any, path: Path, defaults: Any) -> str:
    if value is not None:
        return _shown(value)
    for part in path:
        if not isinstance(defaults, dict) or part not in defaults:
            return ""
        defaults = defaults[part]
    if defaults in (None, "", {}, []) or isinstance(defaults, dict):
        return ""
    return f"{_shown(defaults)} (default)"


def _shown(value: Any) -> str:
    return neutral(value if isinstance(value, str) and value else json.dumps(value))
