"""``-o yaml``: a workload as the manifest that would make it, anything else as plain values.

``get -o yaml | apply -f -`` is no change: what the coordinator wrote itself appears as a
comment only (``-o json`` has all of it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloudless.cli.output.kinds import WORKLOADS, Kind
from cloudless.cli.terminal import Terminal, neutral
from cloudless.sdk.manifest.writing import dump_yaml, manifest_of
from cloudless.sdk.workload import Workload, phase_of


def write_yaml(terminal: Terminal, kind: Kind, items: Sequence[Any]) -> None:
    """One document per object."""
    for index, item in enumerate(items):
        if index:
            terminal.write("---\n")
        if kind is not WORKLOADS:
            terminal.write(dump_yaml(kind.plain(item)))
            continue
        status = item.status
        counts = f"{status.available_replicas}/{status.desired_replicas} available" if status else "no status"
        about = f"generation {item.generation}, {phase_of(item).lower()}, {counts}"
        terminal.write(f"# {neutral(item.id)}: {about}\n")
        terminal.write(dump_yaml(manifest_of(Workload.of(item))))
