"""Undo a node: remove all that Cloudless made on this machine for one data directory.

For ``cloudless reset``, while nothing serves from that directory. Containers, network,
rules, mounts, control groups and a private containerd go, then the directory itself. Of a
containerd that Cloudless did not start, the images go that this node brought there and nobody
else uses; nothing that is not ours is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloudless.agent import identity
from cloudless.agent.config import AgentConfig
from cloudless.agent.daemon import choose
from cloudless.aio.clock import Clock
from cloudless.containerd import execgroups
from cloudless.containerd.client import DEFAULT_NAMESPACE, ContainerdClient
from cloudless.containerd.images import is_tag
from cloudless.domain.errors import Fatal

#: Longest time for removing everything.
RESET_TIMEOUT_S = 120.0
#: Containers that are removed at the same time.
AT_ONCE = 8
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PARENT = "cloudless"


@dataclass
class Report:
    """One line for each kind of thing that was removed, and for what is left, and why."""

    removed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


async def reset(config: AgentConfig, clock: Clock, new_id: Callable[[], str]) -> Report:
    """Remove everything.

    Raises ``DataDirTaken`` while an agent runs, ``Fatal`` when something cannot be removed.
    Running it again goes on where it was stopped.
    """
    report = Report()
    if not config.data_dir.exists():
        return report
    async with asyncio.timeout(RESET_TIMEOUT_S):
        if identity.stored_node_id(config.folder):
            with identity.locked(config.folder):
                await _reset_node(config, clock, new_id, report)
    report.removed += _remove_folder(config.data_dir)
    report.removed += _remove_cgroups(CGROUPS)
    return report


async def _reset_node(config: AgentConfig, clock: Clock, new_id: Callable[[], str], report: Report) -> None:
    from cloudless.agent.network.kernel import KernelNetwork
    from cloudless.agent.runtime.containerd import ContainerdRuntime
    from cloudless.agent.traffic.kernel import KernelTraffic
    from cloudless.containerd.shims import end_shims

    node_id = identity.stored_node_id(config.folder)  # read only: the disk may be full
    chosen = await choose(config, clock, new_id)
    client = ContainerdClient(chosen.socket, clock=clock, new_id=new_id)
    runtime = ContainerdRuntime(client, node_id=node_id, folder=config.folder, clock=clock, new_id=new_id)
    done = report.removed
    try:
        slots = asyncio.Semaphore(AT_ONCE)

        async def delete(container_id: str) -> None:
            async with slots:
                await runtime.delete(container_id)

        async with asyncio.TaskGroup() as group:
            containers = await runtime.list()
            for container in containers:
                group.create_task(delete(container.id))
        done.append(f"{len(containers)} containers")
        if chosen.daemon is None:
            await _remove_images(client, node_id, report)
    finally:
        await runtime.close()
    network = KernelNetwork(str(config.folder), config.folder / "network", network_range=config.network_range)
    try:
        removed = await network.collect(())
        done.append(f"{len(removed)} network attachments")
    finally:
        await network.close()
    traffic = KernelTraffic(str(config.folder))
    try:
        done.append(f"{len(await traffic.read())} published ports")
        await traffic.switch({})
    finally:
        await traffic.close()
    if chosen.daemon is not None:
        await chosen.daemon.stop()
        await asyncio.to_thread(end_shims, chosen.daemon.socket)
        done.append("the private containerd")


async def _remove_images(client: ContainerdClient, node_id: str, report: Report) -> None:
    """Of a containerd that others use as well: what this node brought, unless somebody runs it."""
    gone, kept = await client.image_owners.remove(node_id)
    report.removed.append(f"{sum(map(is_tag, gone))} images from {client.socket}")
    report.left += [f"image {name}: a container that is not ours uses it" for name in filter(is_tag, kept)]
    others = [one.name for one in await client.images.list() if is_tag(one.name) and one.name not in kept]
    if others:
        see = f"ctr --address {client.socket} --namespace {DEFAULT_NAMESPACE} images ls"
        report.left.append(f"{len(others)} images that this node did not bring to {client.socket} ({see})")


def _remove_folder(folder: Path) -> list[str]:
    """Remove a directory, but never through a mount."""
    for mount in sorted(_mounts_below(folder.resolve()), reverse=True):
        subprocess.run(["umount", mount], check=False, capture_output=True)
    left = list(_mounts_below(folder.resolve()))
    if left:
        raise Fatal(
            f"{left[0]} is still mounted", hint="see who uses it with fuser -vm, then run reset again"
        )
    try:
        if folder.is_mount():  # the operator's own: emptied, and left to the operator
            for path in folder.iterdir():
                _remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        else:
            _remove_tree(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Fatal(f"cannot remove {folder}: {error}", hint="run reset again as root") from None
    return [str(folder)]


def _remove_tree(folder: Path) -> None:
    """Also when somebody removes files in it meanwhile. Raises ``FileNotFoundError`` when it is not there."""

    def failed(_: object, path: str, why: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(why[1], FileNotFoundError) or Path(path) == folder:
            raise why[1]

    shutil.rmtree(folder, onerror=failed)


def _mounts_below(folder: Path) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape")
        if place.startswith(f"{folder}/"):
            yield place


def _remove_cgroups(root: Path) -> list[str]:
    """Remove our parent groups where nothing is left in them."""
    removed = False
    for parent in [root / CGROUP_PARENT, *root.glob(f"*/{CGROUP_PARENT}")]:
        if not parent.is_dir():
            continue
        with contextlib.suppress(FileNotFoundError):  # another node's groups go while we look
            for group in sorted((path for path in parent.rglob("*") if path.is_dir()), reverse=True):
                if group.name.startswith(execgroups.PREFIX):
                    continue  # our own went with their containers; another node fills this one just now
                with contextlib.suppress(OSError):  # somebody else's containers live in it
                    group.rmdir()
        with contextlib.suppress(OSError):
            parent.rmdir()
            removed = True
    return ["control groups"] if removed else []
