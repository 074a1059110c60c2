"""Runtime classes: the name in a workload's spec -> the OCI runtime that runs it.

All of them run under containerd's runc shim, which calls any OCI runtime by the name
of its binary. ``probe`` says which classes this node has, and why it lacks others;
the agent calls it at its start and reports the answer.
"""

from __future__ import annotations

import os
import pathlib
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloudless.api.containerd.runc.v1 import Options
from cloudless.api.google.protobuf import Any as AnyMessage
from cloudless.containerd.execgroups import PREFIX, Hierarchy

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


#: Whatever runc the shim finds; ``probe`` gives one that keeps executed processes together.
RUNC = Runtime("runc")

#: What the shim cannot ask runc for: a control group for an executed process, known by the
#: name of its pid file, and a standard input (a pipe that waits under the container's id).
RUNC_WRAPPER = """#!/bin/sh
runc={runc} inputs={inputs}
group= creates=
for word; do
    case ${{word##*/}} in
    {prefix}*.pid) group=${{word##*/}} group=${{group%.pid}} ;;
    create) creates=1 ;;
    esac
done
if [ "$group" ]; then
    for word; do
        shift
        set -- "$@" "$word"
        [ "$word" = exec ] && set -- "$@" --cgroup "{argument}$group"
    done
elif [ "$creates" ] && [ -p "$inputs/$word" ]; then
    exec "$runc" "$@" <"$inputs/$word"
fi
exec "$runc" "$@"
"""
#: Beside the wrappers: pipes that become the standard input of containers, by their ids.
INPUTS = "inputs"

#: gVisor refuses its own network stack outside of a sandbox; "host" here means the
#: network namespace that the spec names, so the container is still on its own.
RUNSC_WRAPPER = '#!/bin/sh\nexec {runsc} --network=host "$@"\n'


@dataclass(frozen=True)
class Missing:
    """A class that this node lacks, and why."""

    reason: str


def probe(
    wrapper_dir: pathlib.Path,
    which: Callable[[str], str | None] = shutil.which,
    groups: Hierarchy | None = None,
) -> Mapping[str, Runtime | Missing]:
    """What each known class is on this node; may write wrapper scripts into ``wrapper_dir``.

    ``groups`` is where executed processes get groups of their own, if anywhere.
    """
    found: dict[str, Runtime | Missing] = {}
    runc = which("runc")
    if runc is None:
        found["runc"] = Missing("runc is not installed")
    else:
        found["runc"] = Runtime("runc", binary=_write_runc(wrapper_dir, runc, groups))
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
        text = RUNSC_WRAPPER.format(runsc=shlex.quote(runsc))
        found["runsc"] = Runtime("runsc", binary=_write_wrapper(wrapper_dir, "runsc", text))
    return found


def _write_runc(folder: pathlib.Path, runc: str, groups: Hierarchy | None) -> str:
    (folder / INPUTS).mkdir(mode=0o700, parents=True, exist_ok=True)
    argument = groups.argument if groups is not None else ""
    text = RUNC_WRAPPER.format(
        prefix=PREFIX if groups is not None else "@",
        argument=argument,
        inputs=shlex.quote(str(folder / INPUTS)),
        runc=shlex.quote(runc),
    )
    return _write_wrapper(folder, "runc", text)


def _write_wrapper(folder: pathlib.Path, name: str, text: str) -> str:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / name
    fresh = folder / f"{name}.new"
    fresh.write_text(text)
    fresh.chmod(0o755)
    os.replace(fresh, path)
    return str(path)
