"""What is kept beside the files of logs, so that they can be found and understood later. Blocking.

``about.json`` in a replica's directory says whose replica it was; ``run.json`` and
``exit.json`` in the directory of each run, when it began and how it ended. Called by
``store``; a file that is missing or damaged is as if nothing were known.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from cloudless.domain.replica import ExitStatus

log = logging.getLogger(__name__)

ABOUT = "about.json"
RUN = "run.json"
EXIT = "exit.json"


@dataclass(frozen=True, slots=True)
class LogAbout:
    """Whose logs they are. ``ended_ns``: when nothing was left of the replica, 0 as long as it is there."""

    replica_id: str
    namespace: str = ""
    name: str = ""
    ordinal: int = 0
    workload_id: str = ""
    revision: int = 0
    ended_ns: int = 0


class RunInfo(NamedTuple):
    """When a run began (0 when unknown), and how it ended, once somebody saw it."""

    started_ns: int
    exit: ExitStatus | None


def read_about(directory: Path) -> LogAbout | None:
    """Whose logs lie in a replica's directory."""
    found = _read(directory / ABOUT)
    try:
        about = LogAbout(**found)
    except TypeError:
        return None
    texts = (about.replica_id, about.namespace, about.name, about.workload_id)
    numbers = (about.ordinal, about.revision, about.ended_ns)
    good = all(isinstance(one, str) for one in texts) and all(isinstance(one, int) for one in numbers)
    return about if good and about.replica_id == directory.name else None


def write_about(directory: Path, about: LogAbout) -> None:
    """Keep whose logs they are; raises ``OSError``."""
    _write(directory / ABOUT, json.dumps(asdict(about)))


def read_run(directory: Path) -> RunInfo:
    """What is known of a run."""
    started_ns = _read(directory / RUN).get("started_ns")
    status = None
    try:
        text = (directory / EXIT).read_text()
        status = ExitStatus.model_validate_json(text)
    except (OSError, ValidationError, UnicodeDecodeError):
        pass  # it runs, or nobody saw its end
    return RunInfo(started_ns if isinstance(started_ns, int) else 0, status)


def write_run(directory: Path, started_ns: int) -> None:
    """Keep when a run began; raises ``OSError``."""
    _write(directory / RUN, json.dumps({"started_ns": started_ns}))


def write_exit(directory: Path, status: ExitStatus) -> None:
    """Keep how a run ended; raises ``OSError``."""
    _write(directory / EXIT, status.model_copy(update={"log_tail": ""}).model_dump_json())


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
