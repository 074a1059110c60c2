"""``jsonpath=`` and ``custom-columns=``: a small, total subset of JSONPath.

Understood: ``$``, ``.name``, ``['name']``, ``[2]``, ``[-1]``, ``[*]``, ``.*``, and
``[?(@.path=="text")]`` with ==, != on texts, numbers, true, false. A jsonpath is either a
bare path or a template with ``{path}`` in text. What is not there prints as nothing; what
is not understood is a usage error. Nothing is evaluated as code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from cloudless.cli.parsing import UsageError

#: Longest expression, in characters.
MAX_LENGTH = 4096
_STEP = re.compile(
    r"""\.?\[\s*(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\s*\]
      | \[\s*\?\(\s*@(?P<where>[^=!)]*?)\s*(?P<operator>==|!=)\s*(?P<value>[^)]*?)\s*\)\s*\]
      | \[\s*(?P<index>-?\d+|\*)\s*\]
      | \.(?P<name>[A-Za-z_][A-Za-z0-9_-]*|\*)""",
    re.VERBOSE,
)
_BRACES = re.compile(r"\{([^{}]*)\}")


def template(expression: str, root: Any) -> str:
    """The text of a jsonpath expression: several values are joined by spaces.

    >>> template("{.spec.image} has {.n}", {"spec": {"image": "web:1"}, "n": 2})
    'web:1 has 2'
    """
    if len(expression) > MAX_LENGTH:
        raise UsageError(f"the jsonpath is longer than {MAX_LENGTH} characters")
    if "{" not in expression:
        return _shown(find(expression, root))
    if _BRACES.sub("", expression).strip("\\") != _BRACES.sub("", expression) or "{" in _BRACES.sub(
        "", expression
    ):
        raise UsageError(f"the braces of the jsonpath {expression!r} do not match")

    def value(found: re.Match[str]) -> str:
        inner = found[1].strip()
        if inner in ('"\\n"', '"\\t"'):
            return "\n" if "n" in inner else "\t"
        return _shown(find(inner, root))

    return _BRACES.sub(value, expression)


def custom_columns(expression: str, items: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of ``TITLE:path,TITLE:path``; raises ``UsageError``."""
    titles, paths = [], []
    for part in _split_columns(expression):
        title, colon, path = part.partition(":")
        if not title or not colon or not path:
            raise UsageError(
                f"custom-columns: {part!r} is not TITLE:path, for example NAME:.name,IMAGE:.spec.image"
            )
        titles.append(title)
        paths.append(path)
    return titles, [[_shown(find(path, item)) or "-" for path in paths] for item in items]


def find(path: str, root: Any) -> list[Any]:
    """All values at ``path``; raises ``UsageError`` for a path that is none."""
    rest = path.strip().removeprefix("$")
    if rest and rest[0] not in ".[":
        rest = "." + rest
    values, position = [root], 0
    while position < len(rest) and rest[position:] != ".":
        step = _STEP.match(rest, position)
        if step is None:
            raise UsageError(
                f"jsonpath {path!r}: cannot read {rest[position:]!r}",
                hint="paths look like .status.replicas[0].node, .items[*].name, .x[?(@.ready==true)].id",
            )
        values = _step(step, values)
        position = step.end()
    return values


def _step(step: re.Match[str], values: list[Any]) -> list[Any]:
    if step["operator"]:
        wanted, negated = _literal(step["value"]), step["operator"] == "!="
        candidates = [item for value in values if isinstance(value, list) for item in value]
        return [item for item in candidates if (find(step["where"], item) == [wanted]) is not negated]
    name = step["quoted"] if step["quote"] else step["name"]
    if step["index"] == "*" or name == "*":
        return [
            item
            for value in values
            for item in (
                value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
            )
        ]
    if step["index"] is not None:
        index = int(step["index"])
        return [
            value[index] for value in values if isinstance(value, list) and -len(value) <= index < len(value)
        ]
    return [value[name] for value in values if isinstance(value, dict) and name in value]


def _literal(text: str) -> Any:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(values: Sequence[Any]) -> str:
    return " ".join(
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in values
    )


def _split_columns(expression: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(expression):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append(expression[start:index])
            start = index + 1
    return [*parts, expression[start:]]
