"""YAML 1.2 and JSON as plain values that remember where they stand.

ruamel.yaml reads the text as events; everything that gives meaning is here, so that it
is strict: no tags, no merge keys, no duplicate keys, no binary, dates or ``yes``; aliases
are allowed but their expansion is bounded. Raises ``ManifestError`` with a position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from cloudless.domain.errors import FieldViolation, Invalid
from cloudless.sdk.manifest.limits import MAX_DEPTH, MAX_NUMBER_LENGTH, MAX_WEIGHT, WEIGHT_CHARACTERS

Path = tuple[str | int, ...]
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL, _HEX = re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_SURROGATES = re.compile("[\ud800-\udfff]")


class Position(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


class ManifestError(Invalid):
    """Something is wrong in a file; each violation's path begins with ``file:line:column``."""

    code = "CL-4001"

    @classmethod
    def at(cls, file: str, position: Position, what: str, *, hint: str = "") -> ManifestError:
        """One violation at one place."""
        place = f"{file}:{position.line}:{position.column}"
        return cls(violations=(FieldViolation(place, what),), hint=hint)


@dataclass
class Document:
    """One document: its value, and where each key and value stands (by path)."""

    file: str
    start: Position
    value: Any = None
    values_at: dict[Path, Position] = field(default_factory=dict)
    keys_at: dict[Path, Position] = field(default_factory=dict)

    def locate(self, path: Path, *, key: bool = False) -> Position:
        """The place of ``path``, or of the nearest thing around it."""
        if key and path in self.keys_at:
            return self.keys_at[path]
        while path:
            if path in self.values_at:
                return self.values_at[path]
            path = path[:-1]
        return self.values_at.get((), self.start)


def read_documents(text: str, file: str) -> Iterator[Document]:
    """The documents of a text; empty ones are left out."""
    yaml = YAML(typ="safe", pure=True)
    try:
        events = iter(yaml.parse(text))
        next(events)  # the start of the stream
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if event.version is not None and tuple(event.version) != (1, 2):
                    raise ManifestError.at(file, _position(event), "only YAML 1.2 is read")
                document = _Builder(file, events, _position(event)).build()
                if document.value is not None:
                    yield document
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark is not None else Position(1, 1)
        why = " ".join(part for part in (error.problem, error.context) if part)
        raise ManifestError.at(file, at, f"cannot be read: {why}") from None
    except YAMLError as error:
        where = _position_of_offset(text, getattr(error, "position", 0))
        raise ManifestError.at(file, where, f"cannot be read: {_first_line(error)}") from None
    except RecursionError:
        raise ManifestError.at(file, Position(1, 1), "is nested too deeply") from None


class _Builder:
    """Builds one document from its events."""

    def __init__(self, file: str, events: Iterator[Any], start: Position) -> None:
        self._file = file
        self._events = events
        self._document = Document(file, start)
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._weight = 0

    def build(self) -> Document:
        """Read up to the end of the document."""
        event = next(self._events)
        self._document.start = _position(event)
        self._document.value = self._node(event, ())
        end = next(self._events)
        assert isinstance(end, DocumentEndEvent)
        return self._document

    def _node(self, event: Any, path: Path) -> Any:
        self._document.values_at[path] = _position(event)
        if isinstance(event, AliasEvent):
            return self._alias(event)
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"is nested deeper than {MAX_DEPTH} levels")
        if event.tag is not None:
            raise self._error(
                event, f"the tag {str(event.tag)[:40]} is not allowed; tags are not needed here"
            )
        before = self._weight
        self._weigh(event, 1)
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            value = self._mapping(path)
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(path)
        else:
            raise self._error(event, "is not a value")
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._weight - before)
        return value

    def _mapping(self, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                return result
            if not isinstance(event, ScalarEvent) or event.tag is not None:
                raise self._error(event, "a key must be plain text")
            self._weigh(event, 1 + len(event.value) // WEIGHT_CHARACTERS)
            key = _whole(event.value)
            if key == "<<" and event.style is None:
                raise self._error(event, "merge keys (<<) are not part of YAML 1.2; write the fields out")
            below = (*path, key)
            if key in result:
                first = self._document.keys_at[below]
                raise self._error(event, f"{key[:80]!r} is given twice (first in line {first.line})")
            self._document.keys_at[below] = _position(event)
            result[key] = self._node(next(self._events), below)
        raise AssertionError("a mapping always ends")

    def _sequence(self, path: Path) -> list[Any]:
        result: list[Any] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                return result
            result.append(self._node(event, (*path, len(result))))
        raise AssertionError("a sequence always ends")

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise self._error(event, f"*{event.anchor} is not an anchor that ends above this line")
        value, weight = self._anchors[event.anchor]
        self._weigh(event, weight)
        return value

    def _weigh(self, event: Any, weight: int) -> None:
        self._weight += weight
        if self._weight > MAX_WEIGHT:
            raise self._error(event, f"the document expands to more than {MAX_WEIGHT} values")

    def _scalar(self, event: Any) -> Any:
        text = event.value
        self._weigh(event, len(text) // WEIGHT_CHARACTERS)
        if event.style is not None:
            return _whole(text)
        if text in _NULL:
            return None
        if text in _BOOL:
            return _BOOL[text]
        if _NOT_FINITE.fullmatch(text):
            raise self._error(
                event, f"{text} is not a number that can be used; write it in quotes if it is text"
            )
        number = _number(text)
        if number is ...:
            raise self._error(event, "the number is too long; write it in quotes if it is text")
        return _whole(text) if number is None else number

    def _error(self, event: Any, what: str) -> ManifestError:
        return ManifestError.at(self._file, _position(event), what)


def _number(text: str) -> Any:
    """A number of YAML's core schema, None for other text, ... when it is too long."""
    base = 10 if _INT.fullmatch(text) else 8 if _OCTAL.fullmatch(text) else 16 if _HEX.fullmatch(text) else 0
    if not base and not _FLOAT.fullmatch(text):
        return None
    if len(text) > MAX_NUMBER_LENGTH:
        return ...
    return int(text, base) if base == 10 else int(text[2:], base) if base else float(text)


def _whole(text: str) -> str:
    """JSON writes letters beyond the first plane as two escapes: put them together."""
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _position(event: Any) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _position_of_offset(text: str, offset: int) -> Position:
    before = text[: max(offset, 0)]
    return Position(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _first_line(error: Exception) -> str:
    reason = getattr(error, "reason", "") or str(error)
    return str(reason).splitlines()[0][:200]
