"""Which attachment has which address and ports: one small file each, durable.

The lease is written before anything is made in the kernel and removed after everything
is gone, so that whatever a kill leaves behind has a lease or a name that leads to it. A
file that cannot be read is set aside, never trusted; its namespace is then a leftover.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cloudless.agent.network.port import HostPort, check_attachment
from cloudless.domain.errors import CloudlessError

log = logging.getLogger(__name__)

_SUFFIX = ".lease"
_RANGE = "range"


@dataclass(frozen=True, slots=True)
class Lease:
    """What one attachment was given; ``address`` None means the host's network."""

    id: str
    hostname: str
    address: str | None
    host_ports: tuple[HostPort, ...]


class Leases:
    """The leases in one directory; for one thread of one process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._leases: dict[str, Lease] = {}

    def open(self) -> None:
        """Read the directory (made if absent)."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._leases.clear()
        for path in sorted(self._directory.iterdir()):
            if path.suffix == _SUFFIX:
                self._read(path)
            elif path.suffix == ".new":
                path.unlink(missing_ok=True)  # a killed attempt to write

    def get(self, attachment_id: str) -> Lease | None:
        """The lease of an attachment."""
        return self._leases.get(attachment_id)

    def all(self) -> tuple[Lease, ...]:
        """Every lease, by id."""
        return tuple(lease for _, lease in sorted(self._leases.items()))

    def put(self, lease: Lease) -> None:
        """Keep ``lease``, on disk when this returns. Raises ``OSError``."""
        self._write(lease.id + _SUFFIX, json.dumps(asdict(lease)))
        self._leases[lease.id] = lease

    def drop(self, attachment_id: str) -> None:
        """Forget a lease; a power cut may bring it back, which does no harm."""
        (self._directory / (attachment_id + _SUFFIX)).unlink(missing_ok=True)
        self._leases.pop(attachment_id, None)

    def saved_range(self) -> ipaddress.IPv4Network | None:
        """The address range that the leases come from, if one was saved."""
        with contextlib.suppress(OSError, ValueError):
            return ipaddress.IPv4Network((self._directory / _RANGE).read_text())
        return None

    def save_range(self, network: ipaddress.IPv4Network) -> None:
        """Keep the range for the next start. Raises ``OSError``."""
        self._write(_RANGE, str(network))

    def _read(self, path: Path) -> None:
        try:
            fields = json.loads(path.read_text())
            ports = tuple(HostPort(**port) for port in fields.pop("host_ports"))
            lease = Lease(**fields, host_ports=ports)
            check_attachment(lease.id, lease.hostname, lease.host_ports)
            if lease.address is not None:
                ipaddress.IPv4Address(lease.address)
            if path.name != lease.id + _SUFFIX:
                raise ValueError("the file's name is not the lease's id")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, CloudlessError) as error:
            log.warning(
                "a lease cannot be read and is set aside", extra={"path": str(path), "error": str(error)}
            )
            path.replace(path.with_suffix(".bad"))
            return
        self._leases[lease.id] = lease

    def _write(self, name: str, text: str) -> None:
        path = self._directory / name
        fresh = self._directory / (name + ".new")
        with fresh.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
