"""Counts what a program that serves holds: in its process, in containerd, in the kernel, on disk.

Two counts of a program that rests are compared; what has grown between them has leaked.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
from collections import Counter

from tests.integration.conftest import open_client
from tests.integration.program.served import Served, processes

from cloudless.agent.network.names import Names

#: Tasks that serve whoever is connected just now; the census itself is one of them.
PASSING = ("WebServer.answer",)


def pss_bytes(pid: int) -> int:
    """Memory of one process, its share of what is shared included."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


async def count(served: Served) -> dict[str, int]:
    """Everything that must not grow, by name; memory is apart (``memory``)."""
    assert served.process is not None
    found: Counter[str] = Counter()
    for name, pid in (("serve", served.process.pid), ("containerd", served.containerd_pid())):
        found[f"{name} fds"] = len(os.listdir(f"/proc/{pid}/fd"))
        found[f"{name} children"] = len(_children(pid))
    for owner, number in json.loads(served.http("/health")[1])["process"]["tasks"].items():
        if owner not in PASSING:
            found[f"tasks of {owner}"] = number
    found += _processes(served)
    found += _kernel(served)
    found += _files(served.data_dir)
    return dict(found + await _in_containerd(served))


def memory(served: Served) -> dict[str, int]:
    """Bytes (PSS) of both processes."""
    assert served.process is not None
    return {"serve": pss_bytes(served.process.pid), "containerd": pss_bytes(served.containerd_pid())}


def grown(before: dict[str, int], after: dict[str, int], allowed: dict[str, int] | None = None) -> list[str]:
    """One line for each count that is higher than it was, and by more than is ``allowed``."""
    return [
        f"{name}: {before.get(name, 0)} -> {number}"
        for name, number in sorted(after.items())
        if number > before.get(name, 0) + (allowed or {}).get(name, 0)
    ]


def _processes(served: Served) -> Counter[str]:
    found: Counter[str] = Counter()
    for _, words in processes():
        if str(served.data_dir) in " ".join(words):
            found[f"processes {pathlib.Path(words[0]).name}"] += 1
    return found


def _children(pid: int) -> list[str]:
    """State and name of each child; a zombie is one too."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            head, _, rest = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid:
            found.append(f"{state} {head}")
    return found


def _kernel(served: Served) -> Counter[str]:
    names = Names.of(str(served.data_dir / "agent"))
    found: Counter[str] = Counter()
    found["interfaces"] = sum(names.mark in path.name for path in pathlib.Path("/sys/class/net").iterdir())
    for folder in (pathlib.Path("/run/cloudless"), pathlib.Path("/var/run/netns")):
        for path in folder.rglob("*"):
            if names.mark in str(path) or served.node_id in str(path):
                found["paths in /run"] += 1
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    found["mounts"] = sum(str(served.data_dir) in line or names.mark in line for line in mounts)
    for tree in pathlib.Path("/sys/fs/cgroup").glob("*"):
        for group in (tree / "cloudless" / served.node_id, tree / served.node_id):
            found["cgroups"] += sum(path.is_dir() for path in group.rglob("*")) if group.is_dir() else 0
    tables = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    inside = False
    for line in tables.splitlines():
        if line.startswith("table"):
            inside = names.mark in line
        found["nft lines"] += inside
        found["nft elements"] += inside and line.count(" : ")
    return found


def _files(data_dir: pathlib.Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for folder, _, files in os.walk(data_dir):
        parts = pathlib.Path(folder).relative_to(data_dir).parts
        if parts[:1] == ("containerd",):
            found["files of containerd"] += len(files)
            continue
        where = "/".join(parts[:2]) or "."
        found[f"files in {where}"] += len(files)
        found[f"folders in {where}"] += 1
    return found


async def _in_containerd(served: Served) -> Counter[str]:
    found: Counter[str] = Counter()
    async with open_client(served.socket) as client:
        found["containers"] = len(await client.containers.list())
        found["tasks in containerd"] = len(await client.tasks.list())
        found["ingests"] = len(await client.content.ingests())
    for kind, words in {
        "snapshots": ("snapshots", "ls"),
        "leases": ("leases", "ls", "-q"),
        "content": ("content", "ls", "-q"),
        "images": ("images", "ls", "-q"),
    }.items():
        command = ["ctr", "-a", str(served.socket), "-n", "k8s.io", *words]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found[kind] = len(lines)
    return found
