"""Checks of single request fields; every one raises ``Invalid`` that names its field.

Used by all handlers before anything is looked up or written.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cloudless import api
from cloudless.coordinator.limits import (
    DEFAULT_PAGE_SIZE,
    MAX_ANNOTATION_BYTES,
    MAX_ANNOTATIONS,
    MAX_AUTHOR_CHARS,
    MAX_MESSAGE_CHARS,
    MAX_PAGE_SIZE,
)
from cloudless.domain.errors import Invalid
from cloudless.domain.model import violations_of
from cloudless.domain.names import LabelKey, Labels, Text, check_name
from cloudless.domain.quantity import Duration
from cloudless.domain.secrets import restored
from cloudless.domain.workload import MAX_REPLICAS, MAX_SPEC_BYTES, WorkloadSpec
from cloudless.wire.spec import spec_from_wire

DEFAULT_NAMESPACE = "default"
#: Longest word that may name a replica, in characters.
MAX_REPLICA_CHARS = 32
#: Largest number that a version can be: etcd's revisions are signed 64-bit numbers.
MAX_VERSION = 2**63 - 1
_LABELS: TypeAdapter[dict[str, str]] = TypeAdapter(Labels)
_ANNOTATIONS: TypeAdapter[dict[str, str]] = TypeAdapter(dict[LabelKey, Text])
_DURATION: TypeAdapter[datetime.timedelta] = TypeAdapter(Duration)


def namespace_of(text: str) -> str:
    """The namespace; "default" when empty."""
    return _name(text, "namespace") if text else DEFAULT_NAMESPACE


def any_namespace_of(text: str) -> str:
    """The namespace; empty means all of them."""
    return _name(text, "namespace") if text else ""


def name_of(text: str) -> str:
    """The required name of an object."""
    if not text:
        raise Invalid.field("name", "is required")
    return _name(text, "name")


def optional_name_of(text: str) -> str:
    """The name of an object, or empty."""
    return _name(text, "name") if text else ""


def _name(text: str, field: str) -> str:
    try:
        return check_name(text)
    except ValueError as error:
        raise Invalid.field(field, str(error)) from None


def node_name_of(text: str, field: str) -> str:
    """A node's name or a prefix of its id: host names may hold dots and capitals."""
    if len(text) > 253 or not text.isprintable() or "/" in text or " " in text:
        raise Invalid.field(field, "must be a node's name or the beginning of its id")
    return text


def labels_of(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels with keys and values that follow the rules."""
    checked: dict[str, str] = _checked(_LABELS, dict(labels), "labels")
    return checked


def annotations_of(annotations: Mapping[str, str]) -> dict[str, str]:
    """Annotations: keys like those of labels, any text, a bounded size."""
    if len(annotations) > MAX_ANNOTATIONS:
        raise Invalid.field("annotations", f"are {len(annotations)}; at most {MAX_ANNOTATIONS} are allowed")
    checked: dict[str, str] = _checked(_ANNOTATIONS, dict(annotations), "annotations")
    size_bytes = sum(len(key) + len(value.encode()) for key, value in checked.items())
    if size_bytes > MAX_ANNOTATION_BYTES:
        raise Invalid.field(
            "annotations", f"hold {size_bytes} bytes; at most {MAX_ANNOTATION_BYTES} are allowed"
        )
    return checked


def _checked(adapter: TypeAdapter[Any], value: Any, field: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise Invalid(violations=violations_of(error, field)) from None


def spec_of(message: api.WorkloadSpec | None) -> WorkloadSpec:
    """The required specification, checked whole."""
    if message is None:
        raise Invalid.field("spec", "is required")
    return without_contradiction(sized(spec_from_wire(message)))


def with_passwords(spec: WorkloadSpec, current: WorkloadSpec | None) -> WorkloadSpec:
    """``spec`` with the stored passwords where it says that they shall stay; raises ``Invalid``."""
    if not spec.pull_secrets:
        return spec
    stored = current.pull_secrets if current is not None else ()
    return spec.replaced(pull_secrets=restored(spec.pull_secrets, stored))


def sized(spec: WorkloadSpec) -> WorkloadSpec:
    """The same specification, if it is small enough to be stored."""
    size_bytes = len(spec.model_dump_json().encode())
    if size_bytes > MAX_SPEC_BYTES:
        raise Invalid.field("spec", f"has {size_bytes} bytes; at most {MAX_SPEC_BYTES} are allowed")
    return spec


def without_contradiction(spec: WorkloadSpec) -> WorkloadSpec:
    """The same specification, if its bounds can be kept with so many replicas.

    Not part of the specification's own rules: what is stored already stays readable.
    """
    wrong = spec.rollout.contradiction(spec.replicas)
    if wrong:
        raise Invalid.field(
            "spec.rollout.min_available",
            wrong,
            hint="lower min_available, raise max_surge, or ask for more replicas",
        )
    falling = spec.rollout.falling_step
    if falling is not None:
        raise Invalid.field(
            f"spec.rollout.steps[{falling}].weight",
            spec.rollout.falling_reason(falling),
            hint="put the steps in order; abort is what takes traffic back",
        )
    return spec


def replicas_of(value: int | None) -> int:
    """The required number of replicas."""
    if value is None:
        raise Invalid.field("replicas", "is required")
    if not 0 <= value <= MAX_REPLICAS:
        raise Invalid.field("replicas", f"must be from 0 to {MAX_REPLICAS}")
    return value


def duration_of(value: datetime.timedelta | None, field: str) -> datetime.timedelta | None:
    """A duration that is not negative and not absurd, or None."""
    if value is None:
        return None
    found: datetime.timedelta = _checked(_DURATION, value, field)
    return found


def message_of(text: str) -> str:
    """The reason that is kept with a revision."""
    if len(text) > MAX_MESSAGE_CHARS:
        raise Invalid.field("message", f"must be at most {MAX_MESSAGE_CHARS} characters long")
    if "\0" in text:
        raise Invalid.field("message", "must not contain a NUL character")
    return text


def author_of(text: str) -> str:
    """What a client says of who asks."""
    if len(text) > MAX_AUTHOR_CHARS:
        raise Invalid.field("author", f"must be at most {MAX_AUTHOR_CHARS} characters long")
    if not text.isprintable():
        raise Invalid.field("author", "must be printable characters, for example alice@laptop")
    return text


def version_of(text: str, field: str = "resource_version") -> int | None:
    """The revision in a resource version; None when empty."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_VERSION):
        raise Invalid.field(field, "is not a version that this cluster gave out")
    return int(text)


def page_size_of(value: int) -> int:
    """How many objects a page may hold."""
    if not 0 <= value <= MAX_PAGE_SIZE:
        raise Invalid.field("page_size", f"must be from 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
    return value or DEFAULT_PAGE_SIZE
