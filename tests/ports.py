"""Ports for tests that must know a number before somebody listens there.

Below the range from which the kernel takes the near end of a connection: a number from that
range may be taken by anybody's next ``connect`` between the moment in which it is found free
and the one in which it is used.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import socket

FIRST = 20_000
EPHEMERAL = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports of every protocol and address that nobody uses; none is given out twice by one process."""
    found: list[int] = []
    while len(found) < count:
        number = next(_numbers)
        if _is_free(number):
            found.append(number)
    return found


def free_port() -> int:
    (number,) = free_ports(1)
    return number


def _is_free(number: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("", number))
            except OSError:
                return False
    return True


def _range() -> range:
    end = int(EPHEMERAL.read_text().split()[0])
    assert end - FIRST >= 1000, f"the kernel takes ports from {end} on: no room for those of tests"
    return range(FIRST, end)


# Begun elsewhere by each process, that two of them do not race for the same numbers.
_all = _range()
_numbers = (_all[(os.getpid() * 101 + step) % len(_all)] for step in itertools.count())
