"""Documents as workloads, strictly: every key is known, every value of the right kind.

Two forms are read: the short one (``kind``, ``name`` and the fields of the specification
side by side) and the long one with ``spec:``, as ``get -o json`` prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from cloudless.domain.errors import FieldViolation
from cloudless.domain.model import MAX_VIOLATIONS, Model, violations_of
from cloudless.domain.names import Labels, Name, Text
from cloudless.domain.resources import AMOUNT_NAMES, ResourceList
from cloudless.domain.workload import WorkloadSpec
from cloudless.sdk.manifest.located import Document, ManifestError, Path, read_documents
from cloudless.sdk.suggest import did_you_mean
from cloudless.sdk.workload import Workload

KINDS = ("Workload",)
#: Written by the coordinator; accepted beside ``spec`` so that its own output can be applied.
WRITTEN_BY_COORDINATOR = frozenset(
    "id status generation resource_version created_at updated_at deleted_at restarts".split()
)
#: The values that a message about a wrong one names.
_QUOTED = re.compile("'([^']*)'")
SHORT_AMOUNTS = {short: field for field, short in AMOUNT_NAMES.items()}


class Head(Model):
    """What stands beside the specification."""

    kind: Literal["Workload"]
    name: Name
    namespace: Name | None = None
    labels: Labels = {}
    annotations: dict[Text, Text] = {}
    context: Text = ""


class Manifest(NamedTuple):
    """A workload that a file asks for; ``place`` is file:line, ``context`` the one it is pinned to."""

    workload: Workload
    place: str
    context: str


def read_text(text: str, file: str) -> Iterator[Manifest]:
    """All objects of a text; raises ``ManifestError``."""
    for document in read_documents(text, file):
        value = document.value
        if isinstance(value, dict) and set(value) == {"items"} and isinstance(value["items"], list):
            for index in range(len(value["items"])):
                yield _read(document, ("items", index), value["items"][index])
        else:
            yield _read(document, (), value)


def _read(document: Document, base: Path, value: Any) -> Manifest:
    if not isinstance(value, dict):
        raise _error(document, base, "a manifest is a mapping that begins like: kind: Workload")
    if "kind" not in value:
        if "services" in value:
            raise _error(document, base, "compose files are not supported yet; write kind: Workload")
        raise _error(document, base, "kind is required: Workload")
    if value["kind"] not in KINDS:
        guess = did_you_mean(str(value["kind"]), KINDS)
        raise _error(document, (*base, "kind"), f"kind: must be one of {', '.join(KINDS)}{guess}")
    long = "spec" in value
    head = {key: value[key] for key in Head.model_fields if key in value}
    if long:
        rest = {key: value[key] for key in value.keys() - head.keys() - {"spec"} - WRITTEN_BY_COORDINATOR}
        fields, where = value["spec"], (*base, "spec")
        head |= rest
    else:
        fields, where = {key: item for key, item in value.items() if key not in head}, base
    violations, checked = _check(
        document, Head, head, base, known=[*Head.model_fields, "spec"] if long else []
    )
    known = [] if long else [*WorkloadSpec.model_fields, *Head.model_fields, "spec"]
    more, spec = _check(document, WorkloadSpec, fields, where, known=known)
    if violations or more or checked is None or spec is None:
        raise ManifestError(violations=tuple([*violations, *more][:MAX_VIOLATIONS]))
    violations = _contradictions(document, where, spec)
    if violations:
        raise ManifestError(violations=tuple(violations))
    workload = Workload(
        checked.name,
        namespace=checked.namespace or "",
        labels=checked.labels,
        annotations=checked.annotations,
        spec=spec,
    )
    position = document.locate(base)
    return Manifest(workload, f"{document.file}:{position.line}", checked.context)


def _check(
    document: Document, model: type[Any], value: Any, base: Path, *, known: list[str]
) -> tuple[list[FieldViolation], Any]:
    """Validate; the violations with their places, and the model when there are none."""
    try:
        return [], model.model_validate(value)
    except ValidationError as error:
        items = error.errors(include_url=False, include_context=True)[:MAX_VIOLATIONS]
        told = violations_of(error, "")
        found = [
            _violation(document, model, base, item, violation, known)
            for item, violation in zip(items, told, strict=True)
        ]
        return found, None
    except RecursionError:
        return [FieldViolation(document.file, "is nested too deeply")], None


def _contradictions(document: Document, base: Path, spec: WorkloadSpec) -> list[FieldViolation]:
    """What the coordinator would refuse for what ``rollout`` asks of so many replicas, with its place."""
    rollout = spec.rollout
    found: list[tuple[Path, str]] = []
    wrong, falling = rollout.contradiction(spec.replicas), rollout.falling_step
    if wrong:
        found.append((("rollout", "min_available"), f"rollout.min_available: {wrong}"))
    if falling is not None:
        text = f"rollout.steps[{falling}].weight: {rollout.falling_reason(falling)}"
        found.append((("rollout", "steps", falling, "weight"), text))
    positions = ((document.locate((*base, *location)), text) for location, text in found)
    return [FieldViolation(f"{document.file}:{at.line}:{at.column}", text) for at, text in positions]


def _violation(
    document: Document, model: type[Any], base: Path, item: Any, told: FieldViolation, known: list[str]
) -> FieldViolation:
    location: Path = tuple(part for part in item["loc"] if part != "[key]")
    is_key = item["type"] == "extra_forbidden" or "[key]" in item["loc"]
    what, field = told.description, told.path
    if item["type"] == "extra_forbidden":
        names = known if len(location) == 1 and known else known_fields(model, location[:-1])
        what += did_you_mean(str(location[-1]), names)
    elif item["type"] == "enum":
        what += did_you_mean(str(item["input"]).upper(), _QUOTED.findall(item["ctx"]["expected"]))
    elif item["type"] == "string_type" and isinstance(item["input"], int | float):
        what = f'must be text; write it in quotes: "{str(item["input"]).lower()}"'
    position = document.locate(base + _as_written(document, base, location), key=is_key)
    return FieldViolation(
        f"{document.file}:{position.line}:{position.column}", f"{field}: {what}" if field else what
    )


def _as_written(document: Document, base: Path, location: Path) -> Path:
    """A location with the short names of amounts where the file has those."""
    path: Path = ()
    for part in location:
        short = AMOUNT_NAMES.get(part, part) if isinstance(part, str) else part
        path = (*path, short if (*base, *path, short) in document.values_at else part)
    return path


def known_fields(model: Any, location: Path) -> list[str]:
    """Names of the fields at a place inside of ``model``.

    >>> "host_port" in known_fields(WorkloadSpec, ("ports", 0))
    True
    """
    for part in location:
        if isinstance(part, str) and _is_model(model):
            part = SHORT_AMOUNTS.get(part, part)
            if part not in model.model_fields:
                return []
            model = _inner_model(model.model_fields[part].annotation)
    if not _is_model(model):
        return []
    names = list(model.model_fields)
    return names + list(SHORT_AMOUNTS) if model is ResourceList else names


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inner_model(annotation: Any) -> Any:
    """The model inside of an annotation such as ``tuple[Port, ...]`` or ``Probe | None``."""
    if _is_model(annotation):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _inner_model(part)
        if found is not None:
            return found
    return None


def _error(document: Document, path: Path, what: str) -> ManifestError:
    return ManifestError.at(document.file, document.locate(path), what)
