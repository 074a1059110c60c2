"""The JSON Schema (draft-07) of manifests, from the domain models.

Editors use it through yaml-language-server: put
``# yaml-language-server: $schema=cloudless.schema.json`` on top of a file. It is never
looser than reading about keys; what only the domain knows (two ports that clash) it
cannot say.
"""

from __future__ import annotations

from typing import Any

from cloudless.domain.workload import WorkloadSpec
from cloudless.sdk.manifest.reading import WRITTEN_BY_COORDINATOR, Head
from cloudless.sdk.manifest.writing import COUNT_FIELDS

DRAFT = "http://json-schema.org/draft-07/schema#"
_DURATION = r"^(0|([0-9]{1,12}(\.[0-9]{1,6})?(ms|s|m|h|d))+)$"
_BYTES = r"^[0-9]{1,16}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"
_CPU = r"^([0-9]{1,12}m|[0-9]{1,9}(\.[0-9]{1,3})?)$"
_COUNT = r"^([0-9]{1,5}|[0-9]{1,2}%|100%)?$"
_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


def manifest_schema() -> dict[str, Any]:
    """The schema of one document."""
    spec = _draft7(WorkloadSpec.model_json_schema(ref_template="#/definitions/{model}"))
    definitions = spec.pop("definitions", {}) | spec.pop("$defs", {})
    head = _draft7(Head.model_json_schema(ref_template="#/definitions/{model}"))
    definitions |= head.pop("definitions", {}) | head.pop("$defs", {})
    _sharpen(definitions)
    definitions["WorkloadSpec"] = spec
    _sharpen({"WorkloadSpec": spec})
    beside: dict[str, Any] = head["properties"]
    beside["kind"] = {"const": "Workload", "description": "What the document describes."}
    beside["name"] = {"type": "string", "pattern": _NAME, "description": "Unique in its namespace."}
    beside["namespace"] = {"type": "string", "pattern": _NAME}
    long_form = {
        "properties": beside
        | {"spec": {"$ref": "#/definitions/WorkloadSpec"}}
        | {key: {} for key in sorted(WRITTEN_BY_COORDINATOR)},
        "required": ["kind", "name", "spec"],
        "additionalProperties": False,
    }
    short_form = {
        "properties": beside | spec["properties"],
        "required": ["kind", "name", *spec.get("required", [])],
        "additionalProperties": False,
    }
    return {
        "$schema": DRAFT,
        "title": "Cloudless manifest",
        "description": "A workload, in the short form (fields side by side) or the long one (with spec).",
        "type": "object",
        "if": {"required": ["spec"]},
        "then": long_form,
        "else": short_form,
        "definitions": definitions,
    }


def _draft7(node: Any) -> Any:
    """Pydantic's 2020-12 in the words of draft-07; titles that only repeat names go."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key == "$defs":
            result["definitions"] = {name: _draft7(item) for name, item in value.items()}
        elif key == "properties":
            result[key] = {name: _draft7(item) for name, item in value.items()}
        elif key == "title" and isinstance(value, str):
            continue
        else:
            result[key] = _draft7(value)
    if "$ref" in result and len(result) > 1:
        # Beside a $ref draft-07 ignores everything else.
        reference = result.pop("$ref")
        result["allOf"] = [{"$ref": reference}]
    return result


def _sharpen(definitions: dict[str, Any]) -> None:
    """What validators read but pydantic's schema does not say."""
    for name, model in definitions.items():
        properties = model.get("properties", {})
        for field, schema in properties.items():
            examples = schema.get("examples", ())
            if "30s" in examples:
                schema["pattern"] = _DURATION
            elif "64Mi" in examples:
                _pattern(schema, _BYTES)
            elif "250m" in examples:
                _pattern(schema, _CPU)
            if field in COUNT_FIELDS or (name, field) == ("CanaryStep", "replicas"):
                schema.pop("type", None)
                schema["anyOf"] = [{"type": "string", "pattern": _COUNT}, {"type": "integer", "minimum": 0}]
        if name == "ResourceList":
            properties["cpu"] = {
                "description": "Cores: 250m, 0.5 or 2.",
                "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _CPU}],
            }
            for short in ("memory", "storage"):
                properties[short] = dict(properties[f"{short}_bytes"])
        for choice in ("Probe", "Volume"):
            if name == choice:
                options = (
                    ("exec", "http", "tcp", "grpc")
                    if choice == "Probe"
                    else ("host_path", "empty_dir", "tmpfs")
                )
                model["oneOf"] = [{"required": [option]} for option in options]


def _pattern(schema: dict[str, Any], pattern: str) -> None:
    for option in schema.get("anyOf", ()):
        if option.get("type") == "string":
            option["pattern"] = pattern
