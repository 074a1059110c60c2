"""Specifications and resources on the wire."""

from __future__ import annotations

from cloudless import api
from cloudless.domain.resources import ResourceList
from cloudless.domain.workload import WorkloadSpec
from cloudless.wire.mirror import from_wire, to_wire


def spec_to_wire(spec: WorkloadSpec) -> api.WorkloadSpec:
    """The message of a specification; defaults that nobody changed are left out."""
    return to_wire(spec, api.WorkloadSpec)


def spec_from_wire(message: api.WorkloadSpec, path: str = "spec") -> WorkloadSpec:
    """Validate a specification; raises ``Invalid`` with every field that is wrong."""
    return from_wire(message, WorkloadSpec, path)


def resource_list_to_wire(amounts: ResourceList) -> api.ResourceList:
    """Amounts as a message; negative amounts (an overcommitted node) are kept."""
    return to_wire(amounts, api.ResourceList)


def resource_list_from_wire(message: api.ResourceList, path: str = "resources") -> ResourceList:
    """Validate amounts; raises ``Invalid``."""
    return from_wire(message, ResourceList, path)
