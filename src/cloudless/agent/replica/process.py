"""What a container's first process is: command, environment, directory, stop signal. Pure.

The specification is laid over the image's defaults as people of this field expect: a
command replaces the entrypoint and drops the image's arguments, args replace those.
"""

from __future__ import annotations

import datetime
import re
import signal
from collections.abc import Mapping

from cloudless.agent.runtime.port import LocalImage
from cloudless.domain.errors import Invalid
from cloudless.domain.replica import Assignment, ExitStatus
from cloudless.domain.workload import WorkloadSpec

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_HOSTNAME_LENGTH = 63


def argv(spec: WorkloadSpec, image: LocalImage) -> tuple[str, ...]:
    """Program and arguments; raises ``Invalid`` when neither side names any.

    >>> image = LocalImage("app", "sha256:0", entrypoint=("/run",), command=("serve",))
    >>> argv(WorkloadSpec(image="app", command=("sh",)), image)
    ('sh',)
    >>> argv(WorkloadSpec(image="app", args=("stop",)), image)
    ('/run', 'stop')
    """
    if spec.command:
        return (*spec.command, *spec.args)
    words = (*image.entrypoint, *(spec.args or image.command))
    if not words:
        raise Invalid.field("spec.command", f"is required: the image {spec.image} names no command")
    return words


def environment(
    spec: WorkloadSpec, image: LocalImage, hostname: str, own: Mapping[str, str]
) -> tuple[str, ...]:
    """``K=V`` entries: the path and the host name, the image's, our ``own``, the specification's last.

    >>> image = LocalImage("app", "", env=("A=1", "PATH=/b"))
    >>> environment(WorkloadSpec(image="app", env={"A": "2"}), image, "h", {"CLOUDLESS_NODE": "n"})
    ('PATH=/b', 'HOSTNAME=h', 'A=2', 'CLOUDLESS_NODE=n')
    """
    merged = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    for entry in image.env:
        key, _, value = entry.partition("=")
        merged[key] = value
    merged.update(own)
    merged.update(spec.env)
    return tuple(f"{key}={value}" for key, value in merged.items())


def own_environment(assignment: Assignment, node_name: str) -> dict[str, str]:
    """Variables that tell every container which replica it is.

    >>> spec = WorkloadSpec(image="app")
    >>> own_environment(Assignment(replica_id="r1", workload_id="w", namespace="default", name="web",
    ...                            ordinal=2, revision=7, spec=spec), "n1")["CLOUDLESS_REPLICA"]
    'web/2'
    """
    return {
        "CLOUDLESS_NAMESPACE": assignment.namespace,
        "CLOUDLESS_WORKLOAD": assignment.name,
        "CLOUDLESS_REPLICA": f"{assignment.name}/{assignment.ordinal}",
        "CLOUDLESS_REPLICA_ID": assignment.replica_id,
        "CLOUDLESS_REVISION": str(assignment.revision),
        "CLOUDLESS_NODE": node_name,
    }


def working_dir(spec: WorkloadSpec, image: LocalImage) -> str:
    """Where the process begins; always absolute."""
    chosen = spec.working_dir or image.working_dir or "/"
    return chosen if chosen.startswith("/") else f"/{chosen}"


def hostname(assignment: Assignment) -> str:
    """The replica's host name: the workload's name and the replica's number.

    >>> spec = WorkloadSpec(image="app")
    >>> hostname(Assignment(replica_id="r", workload_id="w", namespace="default", name="web", ordinal=2,
    ...                     revision=1, spec=spec))
    'web-2'
    """
    number = f"-{assignment.ordinal}"
    return assignment.name[: MAX_HOSTNAME_LENGTH - len(number)].rstrip("-") + number


def stop_signal(spec: WorkloadSpec | None, image_signal: str) -> int:
    """The number of the signal that asks the process to end; SIGTERM when nothing else is known.

    >>> stop_signal(None, "SIGQUIT"), stop_signal(None, "9"), stop_signal(None, "nonsense")
    (3, 9, 15)
    """
    for name in (spec.stop_signal if spec is not None else "", image_signal):
        number = _signal_number(name)
        if number is not None:
            return number
    return int(signal.SIGTERM)


def exit_status(
    exit_code: int | None, at: datetime.datetime, *, oom_killed: bool, reason: str = "", log_tail: str = ""
) -> ExitStatus:
    """How a container ended, as status shows it. A code of 128 + n means signal n.

    >>> status = exit_status(137, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), oom_killed=True)
    >>> status.code, status.signal, status.reason
    (137, 9, 'OOMKilled')
    """
    if exit_code is None:
        return ExitStatus(code=255, finished_at=at, reason=reason or "Lost", log_tail=log_tail)
    number = exit_code - 128 if 128 < exit_code <= 128 + signal.NSIG else 0
    if not reason:
        reason = "OOMKilled" if oom_killed and exit_code else "Completed" if exit_code == 0 else "Error"
    return ExitStatus(
        code=exit_code,
        signal=number,
        oom_killed=oom_killed,
        finished_at=at,
        reason=reason,
        log_tail=log_tail,
    )


def describe_exit(status: ExitStatus) -> str:
    """One phrase about an exit.

    >>> describe_exit(ExitStatus(code=137, signal=9, finished_at=datetime.datetime(2026, 1, 1)))
    'ended by signal 9 (SIGKILL)'
    """
    if status.reason == "Lost":
        return "was lost by the container runtime"
    if status.oom_killed:
        return f"ended with exit code {status.code} (out of memory)"
    if status.signal:
        known = status.signal in set(signal.Signals)
        return f"ended by signal {status.signal}" + (
            f" ({signal.Signals(status.signal).name})" if known else ""
        )
    return f"ended with exit code {status.code}"


def _signal_number(name: str) -> int | None:
    if name.isascii() and name.isdigit():
        return int(name) if 0 < int(name) < signal.NSIG else None
    found = re.fullmatch(r"(?:SIG)?RTMIN(?:\+(\d{1,2}))?", name)
    if found is not None:
        return int(signal.SIGRTMIN) + int(found[1] or 0)
    full = name if name.startswith("SIG") else f"SIG{name}"
    return int(signal.Signals[full]) if full in signal.Signals.__members__ else None
