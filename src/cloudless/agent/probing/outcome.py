"""What a probe attempt is told and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """Whether the attempt succeeded, and what was seen, for a person (``HTTP 503``)."""

    ok: bool
    message: str


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a replica can be reached: its address, and the namespace to reach it in.

    ``netns_path`` None means the host's own network.
    """

    address: str
    netns_path: str | None


#: Runs a command in the replica's container and answers its exit code.
RunCommand = Callable[[tuple[str, ...]], Awaitable[int]]
