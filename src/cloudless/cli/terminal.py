"""What a stream can show: colour, width, letters beyond ASCII, repainting.

Colour: ``--color``, else NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, else whether the stream is
a terminal that knows colours. Repainting happens on terminals only. Text that comes from
elsewhere goes through ``neutral`` before it reaches a person.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Literal, TextIO

ColorChoice = Literal["auto", "always", "never"]
_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
#: C0 and C1 controls, DEL, and the invisible signs that turn the direction of text.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_CONTROLS_BUT_TAB = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
DEFAULT_WIDTH = 80
DEFAULT_HEIGHT = 24


class Terminal:
    """One output stream and what it can do."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str], color: ColorChoice = "auto") -> None:
        self.stream = stream
        self.is_terminal = _is_terminal(stream)
        self.can_repaint = self.is_terminal and environ.get("TERM", "") not in ("", "dumb")
        self.color = _wants_color(color, environ, self.can_repaint)
        encoding = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
        self.unicode = encoding.startswith("utf")
        #: Whether bars and arrows may be drawn with signs beyond ASCII.
        self.draws = self.unicode and _says_utf8(environ)

    @property
    def width(self) -> int:
        """Columns of the terminal; asked each time, it may be resized."""
        if not self.is_terminal:
            return DEFAULT_WIDTH
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or DEFAULT_WIDTH
        except (OSError, ValueError):
            return DEFAULT_WIDTH

    @property
    def height(self) -> int:
        """Lines of the terminal."""
        try:
            return os.get_terminal_size(self.stream.fileno()).lines or DEFAULT_HEIGHT
        except (OSError, ValueError):
            return DEFAULT_HEIGHT

    def write(self, text: str) -> None:
        """Write text as it is; characters that the encoding lacks become ``?``."""
        if not self.unicode:
            text = text.encode(self.stream.encoding or "ascii", "replace").decode(
                self.stream.encoding or "ascii"
            )
        self.stream.write(text)

    def line(self, text: str = "") -> None:
        """Write one line and flush it on a terminal."""
        self.write(text + "\n")
        if self.is_terminal:
            self.stream.flush()

    def paint(self, text: str, *styles: str) -> str:
        """``text`` in colours when there are any."""
        if not self.color or not text:
            return text
        codes = ";".join(_STYLES[style] for style in styles if style)
        return f"\x1b[{codes}m{text}\x1b[0m" if codes else text


def neutral(text: str, *, tabs: bool = False) -> str:
    """Text without any control character: they are shown as escapes.

    >>> neutral("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    pattern = _CONTROLS_BUT_TAB if tabs else _CONTROLS
    if text.isprintable():
        return text
    return pattern.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    named = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    return named or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _says_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the user's locale is one of UTF-8: the interpreter takes that for granted in "C".

    >>> _says_utf8({"LANG": "en_US.UTF-8"}), _says_utf8({"LC_ALL": "C", "LANG": "en_US.UTF-8"})
    (True, False)
    """
    named, language = environ.get("LC_ALL") or environ.get("LC_CTYPE"), environ.get("LANG", "")
    if named == "C.UTF-8" and not environ.get("LC_ALL") and language in ("", "C", "POSIX"):
        return False  # set by the interpreter, not by the user
    return "utf" in (named or language).lower()


def _wants_color(choice: ColorChoice, environ: Mapping[str, str], default: bool) -> bool:
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR") or environ.get("CLICOLOR_FORCE"):
        return (environ.get("FORCE_COLOR") or environ.get("CLICOLOR_FORCE")) != "0"
    return default
