"""Setting one field by its path: ``rollout.max_surge``, ``ports[0].host_port``, ``env.NAME``."""

from __future__ import annotations

import re
from typing import Any

from cloudless.domain.errors import Invalid
from cloudless.sdk.manifest.located import read_documents
from cloudless.sdk.manifest.reading import SHORT_AMOUNTS

#: Longest path, in characters.
MAX_PATH = 512
_STEP = re.compile(r"(?:^|\.)(?P<name>[^.\[\]]+)|\[(?P<index>[^\[\]]+)\]")


def put(values: dict[str, Any], path: str, text: str) -> str:
    """Set ``path`` in ``values`` to ``text`` read as YAML; an empty text removes it.

    Answers the top-level field that was touched; raises ``Invalid``.

    >>> values = {"ports": [{"container_port": 80}]}
    >>> put(values, "ports[0].host_port", "8080"), values
    ('ports', {'ports': [{'container_port': 80, 'host_port': 8080}]})
    """
    steps = _steps(path)
    value = _value(path, text)
    place: Any = values
    for position, step in enumerate(steps[:-1]):
        place = _enter(place, step, steps[position + 1], path)
    _set(place, steps[-1], value, path)
    return str(steps[0])


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    end = 0
    for found in _STEP.finditer(path[:MAX_PATH]):
        if found.start() != end:
            break
        end = found.end()
        index = found["index"]
        steps.append(found["name"] if index is None else int(index) if index.isdigit() else index)
    if end != len(path) or not steps or not isinstance(steps[0], str):
        raise Invalid(
            f"{path[:80]!r} is not a path", hint="write for example rollout.max_surge or ports[0].host_port"
        )
    return steps


def _value(path: str, text: str) -> Any:
    if not text:
        return None
    documents = list(read_documents(text, path))
    return documents[0].value if documents else None


def _enter(place: Any, step: str | int, following: str | int, path: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, step, path)]
    if not isinstance(place, dict):
        raise Invalid(f"{path}: {step!r} is below something that has no fields")
    if place.get(str(step)) is None:
        place[str(step)] = [] if isinstance(following, int) else {}
    return place[str(step)]


def _set(place: Any, step: str | int, value: Any, path: str) -> None:
    if isinstance(place, list):
        if step == len(place) and value is not None:
            place.append(value)
        elif value is None:
            del place[_index(place, step, path)]
        else:
            place[_index(place, step, path)] = value
        return
    if not isinstance(place, dict):
        raise Invalid(f"{path}: {step!r} is below something that has no fields")
    key = str(step)
    for short, long in SHORT_AMOUNTS.items():
        if key in (short, long):
            place.pop(short, None)
            place.pop(long, None)
    if value is None:
        place.pop(key, None)
    else:
        place[key] = value


def _index(place: list[Any], step: str | int, path: str) -> int:
    if not isinstance(step, int) or step >= len(place):
        raise Invalid(f"{path}: there is no [{step}]; the list has {len(place)}")
    return step
