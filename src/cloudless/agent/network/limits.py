"""Every limit of this room in one place, with its unit."""

from __future__ import annotations

import ipaddress

#: Bytes of one packet on the bridge and the replicas' interfaces.
MTU_BYTES = 1500
#: Longest attachment id: it is a file name and part of error messages.
MAX_ID_LENGTH = 128
#: Host ports of one attachment.
MAX_HOST_PORTS = 256
#: A range must leave the host part between these widths (in bits of prefix).
MIN_PREFIX_LENGTH, MAX_PREFIX_LENGTH = 12, 28
#: How long the kernel may take to answer one request.
KERNEL_ANSWER_S = 5.0
#: Largest answer that one read from the kernel takes.
KERNEL_READ_BYTES = 256 * 1024
#: Resolvers kept from the host's resolv.conf (the C library reads no more).
MAX_NAMESERVERS = 3
#: Used when the host names no resolver that a replica can reach.
FALLBACK_NAMESERVERS = ("1.1.1.1", "8.8.8.8")
#: Largest resolv.conf of the host that is read.
MAX_RESOLV_CONF_BYTES = 64 * 1024

#: Ranges to choose from when none is set: the first that no route of the host touches.
#: They lie away from the usual ones of docker (172.16/12), podman (10.88), flannel (10.244),
#: k3s (10.42, 10.43), kubernetes services (10.96) and weave (10.32).
DEFAULT_RANGES = tuple(ipaddress.IPv4Network(f"10.{second}.0.0/16") for second in range(213, 233))
