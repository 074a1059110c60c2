"""Did the kernel kill something in a container for want of memory? Asked of its control group.

containerd's event about it may come after the exit, or never; the group's own counter
is there until the task is deleted.
"""

from __future__ import annotations

import re
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
#: Where the counter lies in each hierarchy, below the group's path: version 1, version 2.
_PLACES = (("memory", "memory.oom_control"), ("", "memory.events"))
_COUNTER = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def group_of(node_id: str, container_id: str) -> str:
    """The control group of a container of ours, from the root of the hierarchy."""
    return f"/cloudless/{node_id}/{container_id}"


def killed_for_memory(group: str, root: Path = CGROUPS) -> bool:
    """Whether the group's counter is above zero; False when there is no such group."""
    return memory_kills(group, root) > 0


def memory_kills(group: str, root: Path = CGROUPS) -> int:
    """How many processes of a group were killed so; 0 when there is no such group."""
    for hierarchy, name in _PLACES:
        try:
            found = _COUNTER.search((root / hierarchy / group.lstrip("/") / name).read_text())
        except OSError:
            continue
        if found is not None:
            return int(found[1])
    return 0
