"""Update masks: which parts of a workload a request replaces.

A path names labels, annotations, spec, or a field of the specification at any depth, for
example ``spec.resources.limits.memory_bytes``. Lists and maps are replaced whole. A named
field that the request does not hold goes back to its default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cloudless import api
from cloudless.coordinator.limits import MAX_MASK_PATHS
from cloudless.domain.errors import Invalid
from cloudless.domain.model import violations_of
from cloudless.domain.workload import WorkloadSpec
from cloudless.wire.mirror import plain, refuse_unknown
from cloudless.wire.spec import spec_to_wire

_TOP = ("spec", "labels", "annotations")


@dataclass(frozen=True, slots=True)
class Mask:
    """The paths of a mask, checked; ``empty`` means that the whole specification is replaced."""

    paths: frozenset[tuple[str, ...]] = frozenset()

    @classmethod
    def of(cls, message: Any) -> Mask:
        """Read a FieldMask; raises ``Invalid`` for a path that does not exist."""
        texts: Sequence[str] = [] if message is None else message.paths
        if len(texts) > MAX_MASK_PATHS:
            raise Invalid.field(
                "update_mask", f"holds {len(texts)} paths; at most {MAX_MASK_PATHS} are allowed"
            )
        return cls(frozenset(_path(text, index) for index, text in enumerate(texts)))

    @property
    def empty(self) -> bool:
        """Whether no path was given."""
        return not self.paths

    @property
    def whole_spec(self) -> bool:
        """Whether the specification is replaced as a whole."""
        return self.empty or ("spec",) in self.paths

    @property
    def spec_paths(self) -> tuple[tuple[str, ...], ...]:
        """Paths below the specification, when it is not replaced as a whole."""
        if self.whole_spec:
            return ()
        return tuple(sorted(path[1:] for path in self.paths if path[0] == "spec"))

    def names(self, field: str) -> bool:
        """Whether a field beside the specification is named."""
        return (field,) in self.paths


def masked_spec(
    current: WorkloadSpec, message: api.WorkloadSpec | None, paths: Sequence[tuple[str, ...]]
) -> WorkloadSpec:
    """``current`` with the named fields taken from ``message``; raises ``Invalid``."""
    if message is not None:
        refuse_unknown(message, "spec")
    given = {} if message is None else plain(message)
    merged = plain(spec_to_wire(current))
    for path in paths:
        _copy(given, merged, path)
    try:
        return WorkloadSpec.model_validate(merged)
    except ValidationError as error:
        raise Invalid(violations=violations_of(error, "spec")) from None


def _copy(source: dict[str, Any], target: dict[str, Any], path: tuple[str, ...]) -> None:
    """Set ``path`` in ``target`` to what ``source`` holds, or remove it."""
    for part in path[:-1]:
        source = source.get(part) or {}
        target = target.setdefault(part, {})
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]
    else:
        target.pop(path[-1], None)


def _path(text: str, index: int) -> tuple[str, ...]:
    parts = tuple(text.split("."))
    where = f"update_mask.paths[{index}]"
    if parts[0] not in _TOP:
        hint = f"did you mean spec.{text}?" if parts[0] in WorkloadSpec.model_fields else ""
        raise Invalid.field(where, f"{text[:80]!r} is not a field that can be updated", hint=hint)
    if parts[0] != "spec":
        if len(parts) > 1:
            raise Invalid.field(where, f"{parts[0]} are replaced whole; write {parts[0]}")
        return parts
    model: type[BaseModel] | None = WorkloadSpec
    for depth, part in enumerate(parts[1:], 1):
        if model is None:
            whole = ".".join(parts[:depth])
            raise Invalid.field(where, f"{whole} has no parts that can be updated alone; write {whole}")
        if part not in model.model_fields:
            near = get_close_matches(part, model.model_fields, 1)
            hint = f"did you mean {'.'.join((*parts[:depth], near[0]))}?" if near else ""
            raise Invalid.field(where, f"{text[:80]!r} is not a field of a workload", hint=hint)
        model = _model_in(model.model_fields[part].annotation)
    return parts


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds one (or nothing); None for lists, maps and plain values."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    if getattr(annotation, "__origin__", None) is not None:
        return None
    models = [kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return models[0] if models else None
