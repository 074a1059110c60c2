"""The files of one log: which there are, and where in them something begins. Blocking.

Files are numbered and never renamed, and a name says how many bytes the container had
written before the file; so a position stays true while files are rotated away, and what
is missing can be counted. Called by ``reader``, on a worker thread when it takes long.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from cloudless.agent.logs import lines
from cloudless.agent.logs.limits import CHUNK_BYTES, MAX_JOINED_BYTES, PIECE_BYTES
from cloudless.agent.logs.record import LogCursor

END = "end"
_SUFFIX = ".log"
#: Longest whole line in a file.
_LINE_BYTES = PIECE_BYTES + lines.HEAD_BYTES + 1


class Segment(NamedTuple):
    """One file: its number, what the container wrote before it, where it is."""

    sequence: int
    start: int
    path: str


class End(NamedTuple):
    """How far a log goes now: its newest file, and the bytes in it."""

    sequence: int
    size_bytes: int


def find_end(directory: Path) -> End:
    """Where the log ends now; files are numbered from 1."""
    while known := segments(directory):
        try:
            return End(known[-1].sequence, os.stat(known[-1].path).st_size)
        except FileNotFoundError:
            continue  # rotated away, or the whole log goes: look again
    return End(0, 0)


def segments(directory: Path) -> list[Segment]:
    """The files of a log, oldest first; none when the directory is gone."""
    found = []
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        number, dash, start = name.removesuffix(_SUFFIX).partition("-")
        if name.endswith(_SUFFIX) and dash and number.isdigit() and start.isdigit():
            found.append(Segment(int(number), int(start), str(directory / name)))
    return sorted(found)


def has_ended(directory: Path) -> bool:
    """Whether the logger said that no more will come."""
    return os.path.exists(directory / END)


def exists(directory: Path) -> bool:
    """Whether the log was not deleted."""
    return directory.is_dir()


def size_bytes(directory: Path) -> int:
    """What the files of a log take on disk."""
    total = 0
    for entry in os.scandir(directory):
        if entry.is_file(follow_symlinks=False):
            total += entry.stat(follow_symlinks=False).st_size
    return total


def start_of(segment: Segment) -> LogCursor:
    """The begin of a file."""
    return LogCursor(segment.sequence, 0, segment.start)


def cursor_at(segment: Segment, offset: int) -> LogCursor:
    """The position of a line's begin; reads the file up to there (1 ms for 10 MiB)."""
    position = segment.start
    with open(segment.path, "rb") as file:
        rest, left = b"", offset
        while left > 0:
            data = file.read(min(left, CHUNK_BYTES))
            if not data:
                break
            left -= len(data)
            data = rest + data
            end = data.rfind(b"\n") + 1
            position += lines.written_bytes(data[:end])
            rest = data[end:]
    return LogCursor(segment.sequence, offset, position)


def find_since(directory: Path, when: bytes) -> LogCursor | None:
    """Where the first line not before ``when`` is, or would be; None when there is no file."""
    known = segments(directory)
    chosen = None
    for segment in known:
        first = _read(segment.path, 0, lines.TIME_BYTES)
        if chosen is not None and (not first or first >= when):
            break
        chosen = segment
    if chosen is None:
        return None
    low, high = 0, os.stat(chosen.path).st_size
    while high - low > CHUNK_BYTES:
        middle = (low + high) // 2
        data = _read(chosen.path, middle, 2 * _LINE_BYTES)
        begin = middle + data.find(b"\n") + 1
        if begin == middle or begin >= high:
            break
        if data[begin - middle :][: lines.TIME_BYTES] < when:
            low = begin
        else:
            high = begin
    data = _read(chosen.path, low, high - low)
    return cursor_at(chosen, low + lines.find_time(data[: data.rfind(b"\n") + 1], when))


def find_tail(
    directory: Path, count: int, streams: Collection[str], end: End | None = None
) -> LogCursor | None:
    """Where the last ``count`` lines begin, pieces of a line counted once; None without files.

    ``end`` is where the log shall end, if not where it ends now.
    """
    known = [one for one in segments(directory) if end is None or one.sequence <= end.sequence]
    if not known:
        return None
    for segment in reversed(known):
        size_bytes = os.stat(segment.path).st_size
        if end is not None and segment.sequence == end.sequence:
            size_bytes = min(size_bytes, end.size_bytes)
        count, offset = _tail_of(segment, size_bytes, count, streams, is_last=segment is known[-1])
        if count == 0:
            return cursor_at(segment, offset)
    return start_of(known[0])


def _tail_of(
    segment: Segment, size_bytes: int, count: int, streams: Collection[str], *, is_last: bool
) -> tuple[int, int]:
    """How many lines are still wanted before this file, and where those found begin.

    A line begins after the full line before it of the same stream, so that its pieces come along.
    """
    wanted = {stream.encode() for stream in streams}
    pieces_left = MAX_JOINED_BYTES // PIECE_BYTES
    begin, stream = -1, b""
    for at, line in _backwards(segment.path, size_bytes):
        if begin < 0:
            begin = at + len(line) + 1
        if line[31:37] not in wanted:
            continue
        piece = line[38:39] == b"P"
        if count == 0 and (not piece or line[31:37] != stream or not pieces_left):
            return 0, begin
        if not piece or (is_last and not stream):  # the very last line may lack its line feed
            count -= 1
        pieces_left -= piece
        begin, stream = at, line[31:37]
    return count, max(begin, 0)


def _backwards(path: str, end: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines before ``end``, last to first, each with its offset and without its line feed."""
    rest: bytes | None = None  # the begin of what was read last, whose line began earlier
    while end > 0:
        size = min(end, CHUNK_BYTES // 4)
        end -= size
        data = _read(path, end, size)
        if rest is None:
            data = data[: data.rfind(b"\n") + 1]  # after it comes a line that is being written
        else:
            data += rest
        head = 0 if end == 0 else data.find(b"\n") + 1
        rest, at = data[:head], end + len(data)
        for line in reversed(data[head:].split(b"\n")[:-1]):
            at -= len(line) + 1
            yield at, line


def _read(path: str, offset: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
