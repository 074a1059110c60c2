"""The files of one log: which there are, and where in them something begins. Blocking.

Files are numbered and never renamed, and a name says how many bytes the container had
written before the file; so a position stays true while files are rotated away, and what
is missing can be counted. Called by ``reader``, on a worker thread when it takes long.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cloudless.agent.logs.limits import CHUNK_BYTES, PIECE_BYTES
from cloudless.domain import loglines as lines
from cloudless.domain.loglines import MAX_JOINED_BYTES
from cloudless.domain.logrecord import LogCursor

#: Says of a line, with its head, whether it counts.
Keeps = Callable[[bytes], bool]

END = "end"
_SUFFIX = ".log"
#: Locked by the logger as long as it lives.
_ALIVE = "alive"
#: ``struct flock`` of the kernel: kind, whence, start, length, process.
_LOCK = "hhqqi"
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


def has_lost_its_logger(directory: Path) -> bool:
    """Whether the logger died before its work was done; False also when nobody can tell."""
    if has_ended(directory):
        return False
    try:
        if _logger(directory) is not None:
            return False
    except FileNotFoundError:
        return False
    return not has_ended(directory)  # it may have ended well while we looked


def has_busy_logger(directory: Path) -> bool:
    """Whether the logger has something to do now, or waits for a processor to do it; False when it sleeps.

    One that sleeps has read and written everything, but for the rest of a line that it holds back.
    """
    try:
        pid = _logger(directory)
        if pid is None:
            return False
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("S", "Z", "X")


def _logger(directory: Path) -> int | None:
    """The process that holds the log's lock; raises ``FileNotFoundError`` when there is none to hold."""
    fd = os.open(directory / _ALIVE, os.O_RDWR | os.O_CLOEXEC)
    try:
        found = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack(_LOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    kind, _, _, _, pid = struct.unpack(_LOCK, found)
    return None if kind == fcntl.F_UNLCK else pid


def close_for_dead_logger(directory: Path, now_ns: int) -> None:
    """Say at the end of a log that its logger died, and that no more will come; raises ``OSError``.

    Only when nobody else writes there. Half a line becomes a piece; half a head holds nothing.
    """
    known = segments(directory)
    if known:
        fd = os.open(known[-1].path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            begin = max(size - 2 * _LINE_BYTES, 0)
            data = os.pread(fd, size - begin, begin)
            rest = len(data) - data.rfind(b"\n") - 1
            end = size
            if rest > lines.HEAD_BYTES:
                os.pwrite(fd, b"P", size - rest + lines.HEAD_BYTES - 2)
                end += os.pwrite(fd, b"\n", size)
            elif rest:
                end -= rest
                os.ftruncate(fd, end)
            os.pwrite(fd, lines.time_text(now_ns) + lines.LOGGER_LOST, end)
        finally:
            os.close(fd)
    os.close(os.open(directory / END, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))


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


def first_time(directory: Path) -> bytes:
    """The time of the first line there is; empty when there is none. Raises ``FileNotFoundError``."""
    for segment in segments(directory):
        first = _read(segment.path, 0, lines.TIME_BYTES)
        if first:
            return first
    return b""


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


def end_before(directory: Path, when: bytes, end: End) -> End:
    """Where the log ended before ``when``, if that is before ``end``. Raises ``FileNotFoundError``."""
    place = find_since(directory, when)
    return end if place is None else min(end, End(place.sequence, place.offset))


class Tail(NamedTuple):
    """Where the last lines begin (None without files), and how many are wanted of an earlier log."""

    cursor: LogCursor | None
    missing: int


def find_tail(directory: Path, count: int, keeps: Keeps, end: End | None = None) -> Tail:
    """The last ``count`` lines that ``keeps`` (given them with their heads) lets through.

    Pieces of a line count once. ``end`` is where the log shall end, if not where it ends now.
    """
    known = [one for one in segments(directory) if end is None or one.sequence <= end.sequence]
    if not count:
        last = known[-1] if known else None
        size = 0 if last is None else _whole_lines(last, end)
        return Tail(None if last is None else cursor_at(last, size), 0)
    for segment in reversed(known):
        size_bytes = os.stat(segment.path).st_size
        if end is not None and segment.sequence == end.sequence:
            size_bytes = min(size_bytes, end.size_bytes)
        count, offset = _tail_of(segment, size_bytes, count, keeps, is_last=segment is known[-1])
        if count == 0:
            return Tail(cursor_at(segment, offset), 0)
    return Tail(start_of(known[0]) if known else None, count)


def _whole_lines(segment: Segment, end: End | None) -> int:
    """How long a file is, up to its last line feed."""
    size = os.stat(segment.path).st_size if end is None else end.size_bytes
    begin = max(size - _LINE_BYTES, 0)
    return begin + _read(segment.path, begin, size - begin).rfind(b"\n") + 1


def _tail_of(
    segment: Segment, size_bytes: int, count: int, keeps: Keeps, *, is_last: bool
) -> tuple[int, int]:
    """How many lines are still wanted before this file, and where those found begin.

    A line begins after the full line before it of the same stream, so that its pieces come along.
    """
    pieces_left = MAX_JOINED_BYTES // PIECE_BYTES
    begin, stream = -1, b""
    for at, line in backwards(segment.path, size_bytes):
        if begin < 0:
            begin = at + len(line) + 1
        if line[31:37] == b"system" or not keeps(line):
            continue
        piece = line[38:39] == b"P"
        if count == 0 and (not piece or line[31:37] != stream or not pieces_left):
            return 0, begin
        if not piece or (is_last and not stream):  # the very last line may lack its line feed
            count -= 1
        pieces_left -= piece
        begin, stream = at, line[31:37]
    return count, max(begin, 0)


def backwards(path: str, end: int) -> Iterator[tuple[int, bytes]]:
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
