"""What differs between two specifications, a field each, for people.

Used wherever a revision is explained: lists of revisions, failures of a rollout. Short
values are quoted, passwords never.
"""

from __future__ import annotations

import datetime
import enum
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from cloudless.domain.quantity import format_bytes, format_cpu, format_duration
from cloudless.domain.resources import AMOUNT_NAMES
from cloudless.domain.revision import Revision
from cloudless.domain.workload import NOT_TEMPLATE, WorkloadSpec

#: Longest value that is shown; of a longer one only the name of its field is.
MAX_SHOWN = 60
#: Most fields that are named one by one.
MAX_CHANGES = 30
#: Characters of a digest that are shown.
_DIGEST = len("sha256:") + 12
_NOT_SHOWN = frozenset({"pull_secrets"})
#: Variables whose names say that their values are not for everybody's eyes.
_SECRET = re.compile(r"env\..*(?:pass|secret|token|key|credential)", re.IGNORECASE)


def revision_changes(before: Revision, after: Revision) -> tuple[str, ...]:
    """``list_changes`` of two revisions, and whether the image's tag has moved in between."""
    found = list_changes(before.spec, after.spec)
    moved = before.image_digest and after.image_digest and before.image_digest != after.image_digest
    if moved and before.spec.image == after.spec.image:
        digests = f"{before.image_digest[:_DIGEST]} -> {after.image_digest[:_DIGEST]}"
        return (f"what {after.spec.image} means: {digests}", *found)
    return found


def list_changes(before: WorkloadSpec, after: WorkloadSpec) -> tuple[str, ...]:
    """Every field of the template that differs, with both values where they are short.

    >>> old = WorkloadSpec(image="web:1", env={"MODE": "a", "OLD": "1"}, replicas=3)
    >>> list_changes(old, WorkloadSpec(image="web:2", env={"MODE": "b"}, replicas=5))
    ('image: web:1 -> web:2', 'env.MODE: a -> b', 'env.OLD: 1 -> none')
    >>> list_changes(old, old)
    ()
    """
    found: list[str] = []
    for name in WorkloadSpec.model_fields:
        if name not in NOT_TEMPLATE:
            found.extend(_between(name, getattr(before, name), getattr(after, name)))
    if len(found) > MAX_CHANGES:
        found[MAX_CHANGES:] = [f"and {len(found) - MAX_CHANGES} more fields"]
    return tuple(found)


def _between(path: str, before: Any, after: Any) -> Iterator[str]:
    """One line for each part of a field that differs."""
    if before == after:
        return
    if isinstance(before, BaseModel) and isinstance(after, BaseModel) and type(before) is type(after):
        for name in type(before).model_fields:
            inner = f"{path}.{AMOUNT_NAMES.get(name, name)}"
            yield from _between(inner, _amount(before, name), _amount(after, name))
    elif isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _between(f"{path}.{key}", before.get(key), after.get(key))
    elif path in _NOT_SHOWN or _SECRET.match(path) or not (_short(before) and _short(after)):
        yield f"{path} changed"
    else:
        yield f"{path}: {_shown(before, path)} -> {_shown(after, path)}"


def _amount(model: BaseModel, name: str) -> Any:
    """A field's value; amounts of resources as a manifest writes them, None where nothing is asked for."""
    value = getattr(model, name)
    if name not in AMOUNT_NAMES:
        return value
    write = format_cpu if name == "cpu_millicores" else format_bytes
    return write(value) if value else None


def _short(value: Any) -> bool:
    plain = value is None or isinstance(value, str | int | float | datetime.timedelta)
    words = isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    return (plain or words) and len(_shown(value)) <= MAX_SHOWN


def _shown(value: Any, path: str = "") -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.timedelta):
        return format_duration(value)
    if isinstance(value, int) and path.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, tuple):
        return " ".join(value)
    return " ".join(str(value).split()) or '""'
