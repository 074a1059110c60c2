"""Every limit of this room in one place, with its unit."""

from __future__ import annotations

#: Backends of one published port on one node.
MAX_BACKENDS = 10_000
#: Highest weight of a backend, and of all backends of a port together (the kernel counts in 32 bits).
MAX_WEIGHT = 1_000_000_000
MAX_TOTAL_WEIGHT = 2**31
#: Shares are exact up to so many ready replicas (their least common multiple), then within 0.01 %.
MAX_SCALE = 10_000_000
#: Turns of a port that are taken strictly one after the other; with more of them, and different
#: weights, chance decides: the table has a line for each backend then, not for each turn.
MAX_TURNS = 128
#: How long a replica that must end waits until nothing new can reach it; then it ends anyway.
LEAVE_WAIT_S = 5.0
#: How often the connections of a draining replica are counted.
DRAIN_LOOK_S = 0.01
#: Looks in a row without a connection before a replica counts as drained: one that began just
#: before the switch may still be on its way.
QUIET_LOOKS = 2
#: How often what is in force is compared with what should be.
INSPECTION_S = 60.0
#: Wait between tries when the kernel refuses the rules.
RETRY_BASE_S = 0.1
RETRY_CAP_S = 10.0
