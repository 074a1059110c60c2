"""Workloads as manifests: only what differs from the defaults, in the units people write."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from cloudless.domain.quantity import format_bytes, format_cpu
from cloudless.domain.resources import AMOUNT_NAMES

if TYPE_CHECKING:
    from cloudless.domain.workload import WorkloadSpec
    from cloudless.sdk.workload import Workload


_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")
#: Fields that take a count or a percentage.
COUNT_FIELDS = ("max_surge", "max_unavailable", "min_available")


def manifest_of(workload: Workload) -> dict[str, Any]:
    """The short, flat form; reading it gives the same specification."""
    head: dict[str, Any] = {"kind": "Workload"}
    if workload.namespace:
        head["namespace"] = workload.namespace
    head["name"] = workload.name
    if workload.labels:
        head["labels"] = dict(workload.labels)
    if workload.annotations:
        head["annotations"] = dict(workload.annotations)
    return head | spec_values(workload.spec)


def spec_values(spec: WorkloadSpec) -> dict[str, Any]:
    """The fields of a specification that differ from their defaults."""
    values = spec.model_dump(mode="json", exclude_defaults=True)
    ordered = {name: values[name] for name in ("image", "replicas") if name in values} | values
    ordered.setdefault("replicas", spec.replicas)
    result = {"image": ordered.pop("image"), "replicas": ordered.pop("replicas")}
    result.update(ordered)
    for part in ("requests", "limits"):
        if part in result.get("resources", {}):
            result["resources"][part] = _amounts(result["resources"][part])
    rollout = result.get("rollout", {})
    for place, names in (
        (rollout, COUNT_FIELDS),
        *((step, ("replicas",)) for step in rollout.get("steps", ())),
    ):
        for name in names:
            if place.get(name, "").isdigit():
                place[name] = int(place[name])
    for volume in result.get("volumes", ()):
        for source in ("empty_dir", "tmpfs"):
            if volume.get(source) and "size_bytes" in volume[source]:
                volume[source]["size_bytes"] = format_bytes(volume[source]["size_bytes"])
    return result


def _amounts(values: dict[str, int]) -> dict[str, str]:
    return {
        AMOUNT_NAMES[name]: format_cpu(value) if name == "cpu_millicores" else format_bytes(value)
        for name, value in values.items()
    }


def dump_yaml(value: dict[str, Any]) -> str:
    """YAML 1.2 that older readers understand alike: what they would take for a number is quoted."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import SafeRepresenter

    class Representer(SafeRepresenter):
        """Writes texts with unusual line breaks in double quotes: plain ones would be folded."""

    def text(representer: Any, data: str) -> Any:
        style = '"' if _BREAKS.search(data) else None
        return representer.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Representer.add_representer(str, text)
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 4096
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue()
