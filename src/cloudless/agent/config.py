"""What an operator decides about a node; the defaults suit one machine.

``cli.serve`` makes it from flags, environment and a file; ``main.agent`` takes it.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from cloudless.domain.address import Address
from cloudless.domain.model import Model
from cloudless.domain.names import AbsolutePath, Labels, Name
from cloudless.domain.node import Taint
from cloudless.domain.ports import Ipv4Address

DEFAULT_AGENT_ADDRESS = "127.0.0.1:9092"
DEFAULT_COORDINATOR_ADDRESS = "127.0.0.1:8080"


def default_node_name() -> str:
    """The machine's name, made fit for a DNS label."""
    name = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname().lower())
    return name.encode("ascii", "ignore").decode()[:63].strip("-") or "node"


class LogSettings(Model):
    """How much is kept of each run's log, and of the logs of replicas that are gone."""

    keep_dead_s: Annotated[float, Field(ge=0)] = 7 * 24 * 3600.0
    keep_dead_bytes: Annotated[int, Field(ge=0)] = 1024**3
    #: A file is at least as large as what is written to it at once.
    file_bytes: Annotated[int, Field(ge=256 * 1024, le=1024**3)] = 10 * 1024**2
    files: Annotated[int, Field(ge=2, le=100)] = 5


class ImageSettings(Model):
    """Percent of the disk in use above which unused images go, and down to which."""

    high_percent: Annotated[int, Field(ge=1, le=100)] = 85
    low_percent: Annotated[int, Field(ge=0, le=100)] = 75

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low_percent > self.high_percent:
            raise ValueError("low_percent must not be above high_percent")
        return self


class AgentConfig(Model):
    """Settings of one agent. ``containerd``: "auto", "private", or the path of a socket.

    ``auto`` uses the system's containerd when one answers, and else a private one. Nothing
    of the node is open to workloads unless it is allowed here.
    """

    data_dir: Path
    node_name: Name = Field(default_factory=default_node_name)
    region: str = Field(default="", max_length=63)
    zone: str = Field(default="", max_length=63)
    labels: Labels = {}
    taints: tuple[Taint, ...] = ()
    coordinator_address: Address = DEFAULT_COORDINATOR_ADDRESS
    agent_address: Address = DEFAULT_AGENT_ADDRESS
    containerd: str = "auto"
    #: The address that other machines reach this node's replicas and ports by.
    node_address: str = "127.0.0.1"
    #: Where ports are published besides loopback when a workload names no address.
    publish_addresses: Annotated[tuple[Ipv4Address, ...], Field(max_length=16)] = ()
    network_range: str | None = None
    host_paths: tuple[AbsolutePath, ...] = ()
    allow_privileged: bool = False
    allow_host_namespaces: bool = False
    seccomp_dir: Path | None = None
    logs: LogSettings = LogSettings()
    images: ImageSettings = ImageSettings()

    @field_validator("containerd")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("auto", "private") and not value.startswith("/"):
            raise ValueError('must be "auto", "private", or the absolute path of a socket')
        return value

    @field_validator("network_range")
    @classmethod
    def _is_range(cls, value: str | None) -> str | None:
        if value is not None:
            ipaddress.IPv4Network(value)
        return value

    @property
    def folder(self) -> Path:
        """Everything of the agent but the private containerd lies here."""
        return self.data_dir.absolute() / "agent"

    @property
    def private_folders(self) -> tuple[Path, ...]:
        """What no workload may mount: state, sockets and keys to the node."""
        own = (self.data_dir.absolute(), Path("/run/cloudless"), Path("/run/containerd"))
        return (*own, Path(self.containerd).parent) if self.containerd.startswith("/") else own

    @property
    def seccomp_folder(self) -> Path:
        """Where profiles of type LOCALHOST are looked for."""
        return self.seccomp_dir if self.seccomp_dir is not None else self.folder / "seccomp"
