"""What log lines look like on a terminal: colours of replicas, and bytes made harmless.

``text`` uses it. Bytes are looked at in whole chunks first: most have nothing to change.
"""

from __future__ import annotations

import re
import zlib

from cloudless.cli.terminal import Terminal, neutral

#: Cyan, green, magenta, yellow, blue, and the bright ones; red looks like an error.
_COLORS = (36, 32, 35, 33, 34, 96, 92, 95, 93, 94)
#: Whatever is not printable ASCII, a tab or a line feed.
_SUSPICIOUS = re.compile(rb"[^\x20-\x7e\t\n]")
#: Sequences that only paint; without them the text reads as it was meant.
_PAINT = re.compile("\x1b\\[[0-9;:]*m")
#: At the end of what has come of a line: that whose look depends on what comes next. A carriage
#: return, which goes if the line ends there; a painting sequence or a letter that is cut.
_UNSETTLED = re.compile(
    rb"(?:\r(?:\x1b\[[0-9;:]*m)*)?"
    rb"(?:\x1b(?:\[[0-9;:]*)?|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})?\Z"
)
#: No more is held back than this: longer sequences paint nothing, and are shown as escapes.
_MAX_UNSETTLED_BYTES = 256


def color_of(replica: str) -> int:
    """The same colour for the same replica ("web/0"), always; neighbours differ.

    >>> len({color_of(f"web/{ordinal}") for ordinal in range(10)})
    10
    """
    name, _, ordinal = replica.rpartition("/")
    number = int(ordinal) if ordinal.isascii() and ordinal.isdigit() else zlib.crc32(ordinal.encode())
    return _COLORS[(zlib.crc32(name.encode()) + number) % len(_COLORS)]


def painted(terminal: Terminal, replica: str) -> str:
    """The name of a replica in its colour, when there are any."""
    return f"\x1b[{color_of(replica)}m{replica}\x1b[0m" if terminal.color else replica


def is_harmless(data: bytes) -> bool:
    """Whether a terminal shows these lines just as they are.

    >>> is_harmless(b"GET /\\t200\\n"), is_harmless(b"\\x1b[2J")
    (True, False)
    """
    return _SUSPICIOUS.search(data) is None


def settled_bytes(line: bytes) -> int:
    """How many bytes of a line that has not ended can be shown: what follows does not change their look.

    >>> settled_bytes(b"42 %\\r"), settled_bytes(b"red \\x1b[3"), settled_bytes("caf\xe9".encode()[:-1])
    (4, 4, 3)
    """
    found = _UNSETTLED.search(line)
    if found is None or len(line) - found.start() > _MAX_UNSETTLED_BYTES:
        return len(line)
    return found.start()


def harmless(line: bytes, encoding: str, *, is_end: bool = True) -> bytes:
    """A line that can do nothing to a terminal: colours go, other controls are shown as escapes.

    ``is_end`` False: its beginning, as far as it is settled.

    >>> harmless(b"\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07\\r", "utf-8")
    b'red \\\\x1b]0;title\\\\x07'
    """
    text = line.decode("utf-8", "replace")
    if not text.isprintable():
        text = _PAINT.sub("", text)
        text = neutral(text.removesuffix("\r") if is_end else text, tabs=True)
    return text.encode(encoding, "replace")
