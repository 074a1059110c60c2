"""Lines on a screen before their end has come: prompts, and progress that is written bit by bit.

Such a line is shown when its rest does not come within a short time, and goes on where it
stands. When something else has to be shown first it is broken off, and goes on in a line of
its own later; both places are marked. ``text`` uses this; nothing here waits or writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from cloudless.cli.logs.painting import harmless, settled_bytes
from cloudless.domain.loglines import HEAD_BYTES
from cloudless.sdk.logbatch import LineKey, PieceJoiner, line_key
from cloudless.sdk.logentry import LogOrigin

#: How long the rest of a line is waited for before its beginning is shown.
PARTIAL_AFTER_S = 0.2
#: The same for a line that was broken off: several progress bars must not flood the screen.
BROKEN_OFF_AFTER_S = 1.0
#: What is due so soon is due now: timers are not exact.
_SOON_S = 0.001


@dataclass(slots=True)
class _Begun:
    """A line that was taken from the joiner before its end."""

    origin: LogOrigin
    #: The head of its latest piece.
    head: bytes = b""
    #: What has come and cannot be shown yet: a control sequence or a letter that is cut.
    held: bytes = b""
    is_shown: bool = False


class Rest(NamedTuple):
    """The rest of a line that had begun before; ``is_first``: nothing of it was shown so far."""

    key: LineKey
    before: bytes
    body: bytes
    is_first: bool


class PartialLines:
    """The lines of one stream of logs that have no end yet.

    ``before`` gives what stands before a line of an origin, by the line's head; ``mark`` says
    that a line goes on elsewhere. With ``after_s`` None no line is shown before its end.
    """

    def __init__(
        self,
        joiner: PieceJoiner,
        before: Callable[[LogOrigin, bytes], bytes],
        monotonic: Callable[[], float],
        *,
        mark: bytes,
        encoding: str,
        after_s: float | None,
    ) -> None:
        self._joiner = joiner
        self._before = before
        self._monotonic = monotonic
        self._mark = mark
        self._encoding = encoding
        self._after_s = after_s
        self._begun: dict[LineKey, _Begun] = {}
        #: Since when a line waits in the joiner, with its first piece there, by which it is known.
        self._since: dict[LineKey, tuple[bytes, float]] = {}
        #: How many rests are among the items that are to be put next.
        self._rests = 0
        #: The line that the cursor stands in.
        self._cursor: LineKey | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the end of a line has to be looked for that is not in the joiner any more."""
        return bool(self._begun)

    @property
    def is_within_line(self) -> bool:
        """Whether the cursor stands in a line."""
        return self._cursor is not None

    def wait_s(self) -> float | None:
        """In how many seconds ``overdue`` has something to show; None: not before more comes."""
        if not self._since:
            return None
        return max(min(self._due_s(key) for key in self._since) - self._monotonic(), 0.0)

    def overdue(self) -> bytes:
        """Shows what has waited long enough."""
        end_s = self._monotonic() + _SOON_S
        due = sorted((first, key) for key, (first, _) in self._since.items() if self._due_s(key) <= end_s)
        return b"".join([self._show(key) for _, key in due])

    def goes_on(self) -> bytes:
        """To be called after each batch: what follows in the line at the cursor; the others begin to wait."""
        if self._after_s is None:
            return b""
        now_s, waiting = self._monotonic(), self._joiner.waiting()
        before, self._since = self._since, {}
        for key, first in waiting.items():
            known = before.get(key)
            self._since[key] = known if known is not None and known[0] is first else (first, now_s)
        return self._show(self._cursor) if self._cursor in waiting else b""

    def continued(
        self, origin: LogOrigin, raws: Sequence[bytes], lines: list[bytes]
    ) -> Sequence[bytes | Rest]:
        """``lines``, which show ``raws``, with the rest of a line instead of each that had begun before."""
        if not self._begun:
            return lines
        items: list[bytes | Rest] = [*lines]
        for key in self._keys(origin.container_id):
            place = next((place for place, raw in enumerate(raws) if line_key(origin, raw) == key), None)
            if place is not None:
                items[place] = self._rest(key, raws[place])
        return items

    def broken_off(self, run: str) -> list[tuple[bytes, Rest]]:
        """The lines of a run, or of all if empty, whose rest will not come; each with its head."""
        return [(self._begun[key].head, self._rest(key, self._begun[key].head)) for key in self._keys(run)]

    def put(self, items: Sequence[bytes | Rest]) -> bytes:
        """Whole lines and rests of lines as they follow each other on the screen."""
        if not self._rests:
            return self.break_off() + b"".join(cast(Sequence[bytes], items)) if items else b""
        self._rests = 0
        shown = []
        for item in items:
            if not isinstance(item, Rest):
                shown += [self.break_off(), item]
            elif item.key == self._cursor:
                self._cursor = None
                shown += [item.body, b"\n"]
            elif item.body or item.is_first:
                mark = b"" if item.is_first else self._mark
                shown += [self.break_off(), item.before, mark, item.body, b"\n"]
        return b"".join(shown)

    def break_off(self) -> bytes:
        """What ends the line at the cursor, if there is one, so that something else can be shown."""
        if self._cursor is None:
            return b""
        self._cursor = None
        return self._mark + b"\n"

    def _keys(self, run: str) -> list[LineKey]:
        return [key for key in self._begun if run in ("", key[0])]

    def _due_s(self, key: LineKey) -> float:
        begun = self._begun.get(key)
        after_s = self._after_s or 0.0
        if begun is not None and begun.is_shown:
            after_s = max(after_s, BROKEN_OFF_AFTER_S)
        return self._since[key][1] + after_s

    def _show(self, key: LineKey) -> bytes:
        """Brings all that is there of a line to the screen."""
        self._since.pop(key, None)
        line = self._joiner.take(key)
        begun = self._begun.setdefault(key, _Begun(line.origin))
        data = begun.held + line.data
        end = settled_bytes(data)
        begun.head, begun.held = line.raw[:HEAD_BYTES], data[end:]
        body = harmless(data[:end], self._encoding, is_end=False)
        if not body or key == self._cursor:
            return body
        shown = self.break_off() + self._before(line.origin, line.raw)
        shown += self._mark if begun.is_shown else b""
        self._cursor, begun.is_shown = key, True
        return shown + body

    def _rest(self, key: LineKey, raw: bytes) -> Rest:
        self._rests += 1
        begun = self._begun.pop(key)
        body = harmless(begun.held + raw[HEAD_BYTES:], self._encoding)
        return Rest(key, self._before(begun.origin, raw), body, not begun.is_shown)
