"""A terminal handed over to a program elsewhere: raw mode, its size, and the way out.

What is typed goes to the program as it is, Ctrl-C too. ``~.`` at the beginning of a line
leaves, ``~?`` tells so, and ``~~`` is one ``~``.
"""

from __future__ import annotations

import os
import termios
import tty
from types import TracebackType
from typing import Any, NamedTuple, Self

ESCAPE = ord("~")
LEAVE = ord(".")
HELP = ord("?")
_LINE_ENDS = b"\r\n"
HELP_TEXT = b"\r\n~. leaves (the program %b), ~~ sends ~, ~? shows this; each after Enter\r\n"


class RawMode:
    """The terminal at ``fd`` is raw for the length of the block, and as before after it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        tty.setraw(self._fd, termios.TCSADRAIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def size_of(fd: int) -> tuple[int, int] | None:
    """(rows, columns) of a terminal; None when it does not know."""
    try:
        size = os.get_terminal_size(fd)
    except OSError:
        return None
    return (size.lines, size.columns) if size.lines > 0 and size.columns > 0 else None


class Typed(NamedTuple):
    """What is to be sent; ``leave``: nothing more; ``help``: the user asked what can be done."""

    data: bytes
    leave: bool = False
    help: bool = False


class EscapeFilter:
    """Finds escapes in what is typed, wherever reads cut it.

    >>> keys = EscapeFilter()
    >>> keys.feed(b"ls~.\\r~")
    Typed(data=b'ls~.\\r', leave=False, help=False)
    >>> keys.feed(b".never sent")
    Typed(data=b'', leave=True, help=False)
    """

    def __init__(self) -> None:
        self._at_line_start = True
        self._escaped = False

    def feed(self, data: bytes) -> Typed:
        """What to do with the next keys."""
        sent, wants_help = bytearray(), False
        for key in data:
            if self._escaped:
                self._escaped = False
                if key == LEAVE:
                    return Typed(bytes(sent), leave=True)
                if key == HELP:
                    wants_help = True
                    continue
                sent.append(ESCAPE)
                if key == ESCAPE:
                    self._at_line_start = False
                    continue
            elif key == ESCAPE and self._at_line_start:
                self._escaped = True
                continue
            sent.append(key)
            self._at_line_start = key in _LINE_ENDS
        return Typed(bytes(sent), help=wants_help)
