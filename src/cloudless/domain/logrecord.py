"""One line of a log, and the positions that readers resume from.

The agent makes both from files, the coordinator passes positions on, the SDK gives lines
to its user. Nothing here reads anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

#: Follows the number of a run that is known to have ended.
_EXITED = "x"
#: What may become of the rest of a line, for stdout and stderr each.
_REST = frozenset(a + b for a in "pd-" for b in "pd-") - {"--"}


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line, or a piece of a long one (``partial``: the rest comes in the next record).

    ``data`` has no line feed and may be any bytes.
    """

    timestamp_ns: int
    stream: Literal["stdout", "stderr"]
    partial: bool
    data: bytes


class LogCursor(NamedTuple):
    """Where a reader stands: file number, offset in that file, bytes the container wrote before it.

    Opaque to everybody else; ``str`` and ``parse`` carry it over a wire.

    >>> LogCursor.parse(str(LogCursor(3, 120, 4096)))
    LogCursor(sequence=3, offset=120, position=4096)
    """

    sequence: int
    offset: int
    position: int

    def __str__(self) -> str:
        return f"{self.sequence}-{self.offset}-{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote; raises ``ValueError``."""
        return cls(*_numbers(text, 3))


class SourceCursor(NamedTuple):
    """Where a reader of a replica stands: in which run, where in its log, and what behind it was read.

    File number 0 is the place before the run's begin is told. With ``before`` (a time as
    lines carry it), lines behind the place that are older were passed on too, and
    ``passed`` lines of just that time. ``exited``: that the run ended was told already.

    With patterns: ``held`` is where the oldest line begins that was not decided yet, so that
    reading begins there, though all else before the place was passed on; ``rest`` is what
    becomes of lines that were decided and go on (see ``logjudge.LineJudge.rest``).

    >>> SourceCursor.parse("2x.3-120-4096") == SourceCursor(2, LogCursor(3, 120, 4096), exited=True)
    True
    >>> SourceCursor.parse("2.3-120-4096~3-80-4060!p-").held
    LogCursor(sequence=3, offset=80, position=4060)
    """

    run: int
    at: LogCursor
    before: bytes = b""
    passed: int = 0
    exited: bool = False
    held: LogCursor | None = None
    rest: str = ""

    def __str__(self) -> str:
        text = f"{self.run}{_EXITED if self.exited else ''}.{self.at}"
        if self.held is not None:
            text += f"~{self.held}"
        if self.rest:
            text += f"!{self.rest}"
        return f"{text}@{self.before.decode('ascii')}+{self.passed}" if self.before else text

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote; raises ``ValueError``."""
        place, _, passed = text.partition("@")
        before, _, count = passed.partition("+")
        place, mark, rest = place.partition("!")
        place, tilde, held = place.partition("~")
        run, dot, at = place.partition(".")
        good = before.isascii() and len(before) in (0, 30) and bool(before) == bool(count)
        if not dot or not good or (mark and rest not in _REST):
            raise ValueError(f"not a log cursor: {text[:80]!r}")
        number = _numbers(count, 1)[0] if count else 0
        exited = run.endswith(_EXITED)
        run = run.removesuffix(_EXITED)
        return cls(
            _numbers(run, 1)[0],
            LogCursor.parse(at),
            before.encode(),
            number,
            exited,
            LogCursor.parse(held) if tilde else None,
            rest,
        )


def _numbers(text: str, count: int) -> list[int]:
    parts = text.split("-")
    good = all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts)
    if len(parts) != count or not good:
        raise ValueError(f"not a log cursor: {text[:80]!r}")
    return [int(part) for part in parts]
