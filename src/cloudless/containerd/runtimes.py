"""Runtime classes: the name in a workload's spec -> the OCI runtime that runs it.

All of them run under containerd's runc shim, which calls any OCI runtime by the name
of its binary. ``probe`` says which classes this node has, and why it lacks others;
the agent calls it at its start and reports the answer.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloudless.api.containerd.runc.v1 import Options
from cloudless.api.google.protobuf import Any as AnyMessage

RUNC_SHIM = "io.containerd.runc.v2"
RUNC_OPTIONS_TYPE = "containerd.runc.v1.Options"

#: Where the kernel shows cgroup v2 beside v1; crun refuses such a host.
HYBRID_CGROUP = pathlib.Path("/sys/fs/cgroup/unified")


@dataclass(frozen=True)
class Runtime:
    """A shim and, unless empty, the OCI runtime's binary that it shall call (a path)."""

    name: str
    shim: str = RUNC_SHIM
    binary: str = ""

    def options(self) -> AnyMessage | None:
        """The shim's options for the container record and the task; ``None``: its defaults."""
        if not self.binary:
            return None
        return AnyMessage(type_url=RUNC_OPTIONS_TYPE, value=bytes(Options(binary_name=self.binary)))


#: The default: whatever runc the shim finds.
RUNC = Runtime("runc")

#: gVisor refuses its own network stack outside of a sandbox; "host" here means the
#: network namespace that the spec names, so the container is still on its own.
RUNSC_WRAPPER = '#!/bin/sh\nexec {runsc} --network=host "$@"\n'


@dataclass(frozen=True)
class Missing:
    """A class that this node lacks, and why."""

    reason: str


def probe(
    wrapper_dir: pathlib.Path, which: Callable[[str], str | None] = shutil.which
) -> Mapping[str, Runtime | Missing]:
    """What each known class is on this node; may write a wrapper script into ``wrapper_dir``."""
    found: dict[str, Runtime | Missing] = {}
    found["runc"] = RUNC if which("runc") else Missing("runc is not installed")
    crun = which("crun")
    if crun is None:
        found["crun"] = Missing("crun is not installed")
    elif HYBRID_CGROUP.is_mount():
        found["crun"] = Missing("crun does not run where cgroup v1 and v2 are mixed")
    else:
        found["crun"] = Runtime("crun", binary=crun)
    runsc = which("runsc")
    if runsc is None:
        found["runsc"] = Missing("runsc is not installed")
    else:
        found["runsc"] = Runtime("runsc", binary=_write_wrapper(wrapper_dir, runsc))
    return found


def _write_wrapper(folder: pathlib.Path, runsc: str) -> str:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / "runsc"
    fresh = folder / "runsc.new"
    fresh.write_text(RUNSC_WRAPPER.format(runsc=runsc))
    fresh.chmod(0o755)
    os.replace(fresh, path)
    return str(path)
