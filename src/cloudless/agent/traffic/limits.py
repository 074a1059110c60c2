"""Every limit of this room in one place, with its unit."""

from __future__ import annotations

#: Backends of one published port on one node.
MAX_BACKENDS = 1000
#: A backend with this weight gets so many times the connections of one with weight 1.
MAX_WEIGHT = 100
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
