"""Names that mark things in the kernel as this node's own. Pure.

Several agents may run on one machine, each with its own data directory; the mark is a
digest of what is unique to the agent, so that none ever touches the others' things.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

#: The interface inside a replica's namespace.
REPLICA_INTERFACE = "eth0"


@dataclass(frozen=True, slots=True)
class Names:
    """Names for the node with this 8-digit mark; interfaces stay within 15 characters.

    >>> names = Names("00c0ffee")
    >>> names.bridge, names.table, names.veth(258), names.offset_of("v00c0ffee00102")
    ('cl-00c0ffee', 'cloudless_00c0ffee', 'v00c0ffee00102', 258)
    """

    mark: str

    @classmethod
    def of(cls, node_key: str) -> Names:
        """Names of the node that ``node_key`` (any text that is unique on the machine) stands for."""
        return cls(hashlib.blake2s(node_key.encode(), digest_size=4).hexdigest())

    @property
    def bridge(self) -> str:
        """The bridge that all replicas of the node hang on."""
        return f"cl-{self.mark}"

    @property
    def table(self) -> str:
        """The nftables table with the node's rules."""
        return f"cloudless_{self.mark}"

    @property
    def bridge_mac(self) -> str:
        """A fixed address, locally administered: else the bridge takes that of a port, and changes it."""
        return "02:5c:" + ":".join(self.mark[i : i + 2] for i in range(0, 8, 2))

    @property
    def doomed_group(self) -> int:
        """Interface group for what is to be deleted in one go."""
        return int(self.mark, 16) & 0x7FFFFFFF | 1

    def veth(self, offset: int) -> str:
        """The host's end of the pair whose replica has the range's address number ``offset``."""
        return f"v{self.mark}{offset:05x}"

    def offset_of(self, interface: str) -> int | None:
        """The number in a name that ``veth`` made; None for interfaces that are not ours."""
        prefix, digits = interface[:9], interface[9:]
        if prefix != f"v{self.mark}" or len(digits) != 5:
            return None
        try:
            return int(digits, 16)
        except ValueError:
            return None


def replica_mac(address: int) -> str:
    """Derived from the address, so that a reused address needs no new neighbour entry.

    >>> replica_mac(0x0AD50002)
    '0a:5c:0a:d5:00:02'
    """
    return "0a:5c:" + ":".join(f"{byte:02x}" for byte in address.to_bytes(4, "big"))
