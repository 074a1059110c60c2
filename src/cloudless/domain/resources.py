"""What a replica asks for and what it may use."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from cloudless.domain.model import Model
from cloudless.domain.quantity import Bytes, Millicores, format_bytes, format_cpu

#: Amounts by their fields, as manifests and people name them.
AMOUNT_NAMES = {"cpu_millicores": "cpu", "memory_bytes": "memory", "storage_bytes": "storage"}


class ResourceList(Model):
    """Amounts of CPU, memory and disk. Manifests may write ``cpu: 500m``, ``memory: 64Mi``."""

    cpu_millicores: Millicores = Field(default=0, description="Thousandths of a core.")
    memory_bytes: Bytes = Field(default=0, description="Bytes of memory.")
    storage_bytes: Bytes = Field(default=0, description="Bytes of disk.")

    @model_validator(mode="before")
    @classmethod
    def _short_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for long, short in AMOUNT_NAMES.items():
            if short in data:
                if long in data:
                    raise ValueError(f"give either {short} or {long}, not both")
                data[long] = data.pop(short)
                if (
                    short == "cpu"
                    and isinstance(data[long], int | float)
                    and not isinstance(data[long], bool)
                ):
                    data[long] = str(data[long])  # "cpu: 2" means two cores
        return data

    def __add__(self, other: ResourceList) -> ResourceList:
        return ResourceList.model_construct(
            cpu_millicores=self.cpu_millicores + other.cpu_millicores,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            storage_bytes=self.storage_bytes + other.storage_bytes,
        )

    def __sub__(self, other: ResourceList) -> ResourceList:
        return ResourceList.model_construct(
            cpu_millicores=self.cpu_millicores - other.cpu_millicores,
            memory_bytes=self.memory_bytes - other.memory_bytes,
            storage_bytes=self.storage_bytes - other.storage_bytes,
        )


class Resources(Model):
    """What placement reserves (requests) and what the kernel enforces (limits)."""

    requests: ResourceList = ResourceList()
    limits: ResourceList = ResourceList()

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Self:
        if self.limits.storage_bytes:
            raise ValueError(
                "limits.storage_bytes: not supported yet: a limit on disk use (requests are reserved)"
            )
        for name, shown in (("cpu_millicores", format_cpu), ("memory_bytes", format_bytes)):
            limit, request = getattr(self.limits, name), getattr(self.requests, name)
            if limit and request > limit:
                raise ValueError(f"requests.{name}: {shown(request)} is above limits.{name} ({shown(limit)})")
        if 0 < self.limits.memory_bytes < 6 * 2**20:
            raise ValueError("limits.memory_bytes: must be at least 6Mi; less cannot start a container")
        return self

    @property
    def reserved(self) -> ResourceList:
        """What placement counts: the requests, and the limits where nothing is requested."""
        return ResourceList.model_construct(
            cpu_millicores=self.requests.cpu_millicores or self.limits.cpu_millicores,
            memory_bytes=self.requests.memory_bytes or self.limits.memory_bytes,
            storage_bytes=self.requests.storage_bytes,
        )
