"""Counts the TCP connections inside a network namespace. Blocking; for a worker thread.

The kernel's own table is read, so that connections count which the program has not
accepted yet, and those whose last bytes are not acknowledged.
"""

from __future__ import annotations

from pathlib import Path

from cloudless.agent.network import namespace

#: States in /proc/net/tcp in which a peer still waits for something: ESTABLISHED, SYN_RECV,
#: FIN_WAIT1, CLOSE_WAIT (it only stopped sending), LAST_ACK, CLOSING.
_UNFINISHED = frozenset({"01", "03", "04", "08", "09", "0B"})


def count(netns_path: str, ports: frozenset[int]) -> int:
    """Unfinished connections to ``ports`` in the namespace; 0 when it is gone."""
    try:
        with namespace.inside(netns_path):
            tables = [Path(f"/proc/thread-self/net/{name}") for name in ("tcp", "tcp6")]
            texts = [table.read_text() for table in tables if table.exists()]
    except FileNotFoundError:
        return 0
    return sum(unfinished(text, ports) for text in texts)


def unfinished(table: str, ports: frozenset[int]) -> int:
    """Rows of a table like ``/proc/net/tcp`` that are unfinished connections to ``ports``. Pure.

    >>> listening = "0: 00000000:1F90 00000000:0000 0A 0:0 00:0 0 0 0 1 1"
    >>> established = "1: 0200D50A:1F90 0100D50A:D431 01 0:0 00:0 0 0 0 2 1"
    >>> unfinished("\\n".join(["header", listening, established]), frozenset({8080}))
    1
    """
    found = 0
    for line in table.splitlines()[1:]:
        fields = line.split(maxsplit=4)
        found += fields[3] in _UNFINISHED and int(fields[1].rpartition(":")[2], 16) in ports
    return found
