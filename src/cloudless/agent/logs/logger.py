"""The process between one container and its log files; runs on its own, with nothing but Python.

containerd's shim starts it (``binary://``) with the container's output in file descriptors
3 and 4, and waits until 5 is closed. It must outlive the agent and containerd, must never
block or kill the container, and must stay small: there is one per container. So it imports
only what every Python has built in, ignores SIGTERM and reads until both outputs end, and
what it cannot write (disk full) it counts and says so in the log when it can write again.
It also holds the container's standard input open, where that has one: the only process that
is sure to live as long. SIGUSR1 makes it let go, so that the container reads the end.

A file is named ``<number>-<bytes the container wrote before it>.log``, a line in it is
``<time> <stream> <F|P> <bytes>``; P is a piece that no line feed followed (yet), a line
``<time> system G <n>`` stands for n lost bytes. When all is written, ``end`` is made.
"""

from __future__ import annotations

# The modules below os and signal: 1 MiB less in every one of these processes.
import _signal as signal  # type: ignore[import-not-found]
import posix as os
import select
import sys
import time

STREAMS = {3: b"stdout", 4: b"stderr"}
READY = 5
#: Three quarters of a full pipe are as fast as all of it, and leave the heap smaller.
READ_BYTES = 3 << 14
#: Longest piece of a line.
PIECE_BYTES = 1 << 14
#: What no line feed follows is logged after so long: a prompt, or the last words of a program
#: (the shim holds the pipes open until the container is deleted, so no end comes meanwhile).
PATIENCE_MS = 50
FILE_BYTES = 10 << 20
FILES = 5
#: A storm of logs must not take the machine from those who look after it.
NICE = 5


class Log:
    """The files of one directory; ``position`` counts what the container wrote, lost bytes too."""

    def __init__(self, directory: str, file_bytes: int, files: int) -> None:
        self.directory = directory
        self.file_bytes = file_bytes
        self.keep = files
        self.fd = -1
        self.size = self.position = self.lost = self.number = 0
        self.names: list[str] = []
        self.second = 0
        self.prefix = b""
        self.last_ns = 0
        try:
            self.resume()
        except (OSError, ValueError):
            self.names = []  # without its logger the container could not write at all

    def resume(self) -> None:
        """Go on after the files of an earlier process, if there are any."""
        self.names = sorted(name for name in os.listdir(self.directory) if name.endswith(".log"))
        if self.names:
            number, _, start = self.names[-1][:-4].partition("-")
            self.number, self.position = int(number), int(start)
            with open(self.directory + "/" + self.names[-1], "rb") as file:
                for line in file:
                    if line[31:37] == b"system":
                        self.position += int(line[40:])
                    elif len(line) > 40:
                        self.position += len(line) - 40 - (line[38:39] == b"P" and line[-1:] == b"\n")

    def rotate(self) -> None:
        """Begin the next file; the oldest goes first, so that a full disk has room for it."""
        while len(self.names) >= self.keep:
            try:  # noqa: SIM105 - contextlib would be one more module in every process
                os.unlink(self.directory + "/" + self.names[0])
            except FileNotFoundError:
                pass
            del self.names[0]
        name = f"{self.number + 1:010d}-{self.position - self.lost:016d}.log"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self.directory + "/" + name, flags, 0o640)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.size = fd, 0
        self.number += 1
        self.names.append(name)

    def put(self, lines: bytes, payload: int) -> None:
        """Write whole lines that hold ``payload`` bytes of the container's; what fails is counted."""
        if self.lost:
            lines = self.stamp(b"system") + b"G %d\n" % self.lost + lines
        try:
            if self.fd < 0 or (self.size and self.size + len(lines) > self.file_bytes):
                self.rotate()
            done = os.write(self.fd, lines)
            while done < len(lines):
                done += os.write(self.fd, memoryview(lines)[done:])
        except OSError:
            self.lost += payload
            self.untear()
        else:
            self.size += len(lines)
            self.lost = 0
        self.position += payload

    def untear(self) -> None:
        """Take back the half of a write that a full disk let through."""
        if self.fd >= 0:
            try:
                os.ftruncate(self.fd, self.size)
            except OSError:
                self.size = self.file_bytes  # the next write begins a new file

    def stamp(self, stream: bytes) -> bytes:
        """The head of a line: time (never before the last one), stream, space."""
        now = self.last_ns = max(time.time_ns(), self.last_ns)
        second, rest = divmod(now, 1_000_000_000)
        if second != self.second:
            self.second = second
            self.prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%b%09dZ %b " % (self.prefix, rest, stream)

    def end(self) -> None:
        """Say that no more will come."""
        if self.lost:
            self.put(b"", 0)
        try:  # noqa: SIM105
            os.close(os.open(self.directory + "/end", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
        except OSError:
            pass  # readers learn the end from the agent then


def take(log: Log, stream: bytes, data: bytes) -> bytes:
    """Log the whole lines in ``data``; the rest of it comes back, to be put before the next data."""
    end = data.rfind(b"\n") + 1
    if end:
        head = log.stamp(stream)
        if no_long_line(data, end):
            # One replace for thousands of lines; nothing here runs once per line.
            full = head + b"F "
            log.put(full + data[: end - 1].replace(b"\n", b"\n" + full) + b"\n", end)
        else:
            for line in data[: end - 1].split(b"\n"):
                cut = pieces(log, head, line)
                log.put(head + b"F " + line[cut:] + b"\n", len(line) - cut + 1)
        data = data[end:]
    if len(data) > PIECE_BYTES:
        data = data[pieces(log, log.stamp(stream), data) :]
    return data


def no_long_line(data: bytes, end: int) -> bool:
    """Whether every line that ends before ``end`` fits in one piece."""
    start = 0
    while end - start > PIECE_BYTES + 1:
        start = data.rfind(b"\n", start, start + PIECE_BYTES + 1) + 1
        if not start:
            return False
    return True


def pieces(log: Log, head: bytes, line: bytes) -> int:
    """Log full pieces of a long line, and answer where the last piece begins."""
    start = 0
    while len(line) - start > PIECE_BYTES:
        piece = line[start : start + PIECE_BYTES]
        log.put(head + b"P " + piece + b"\n", PIECE_BYTES)
        start += PIECE_BYTES
    return start


def hold(path: str) -> None:
    """Keep the writing end of a pipe open until SIGUSR1."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # nobody reads: the container has ended already
    held = [fd]

    def release(*_: object) -> None:
        while held:
            os.close(held.pop())

    signal.signal(signal.SIGUSR1, release)


def live_visibly(directory: str) -> None:
    """Hold a lock for as long as this process lives, so that the agent can tell when it died.

    Locked before it has its name: whoever finds the file unlocked may be sure.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        os.lockf(os.open(directory + "/alive.new", flags, 0o640), os.F_TLOCK, 0)
        os.rename(directory + "/alive.new", directory + "/alive")
    except OSError:
        pass  # then nobody can tell


def main(directory: str, limits: str) -> None:
    """Log until both outputs have ended.

    ``limits``: bytes of a file, "-", number of files, and perhaps "-" and the pipe that is the
    container's standard input; or empty. With such a pipe the container talks with people:
    what it writes is logged at once, line feed or not; else within ``PATIENCE_MS``.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    live_visibly(directory)
    file_bytes, _, files = limits.partition("-")
    files, _, pipe = files.partition("-")
    log = Log(directory, int(file_bytes or FILE_BYTES), int(files or FILES))
    log.put(b"", 0)  # makes the first file
    poll = select.poll()
    for fd in STREAMS:
        poll.register(fd, select.POLLIN)
    if pipe:
        hold(pipe)
    os.close(READY)
    copy(log, poll, 0.0 if pipe else PATIENCE_MS / 1000)
    log.end()


def copy(log: Log, poll: select.poll, patience_s: float) -> None:
    """Log what comes until both outputs have ended; nothing waits for its line feed any longer."""
    rest = dict.fromkeys(STREAMS, b"")
    #: Until when those bytes may wait; empty as long as whole lines come, which then costs nothing.
    due: dict[int, float] = {}
    while rest:
        wait_ms = (min(due.values()) - time.monotonic()) * 1000 if due else None
        for fd, _ in poll.poll(wait_ms if wait_ms is None or wait_ms > 0 else 0):
            try:
                data = os.read(fd, READ_BYTES)
            except OSError:
                data = b""
            if data:
                size = len(rest[fd])
                new = size + len(data)
                rest[fd] = take(log, STREAMS[fd], rest[fd] + data if size else data)
                if not rest[fd]:
                    due.pop(fd, None)
                elif not size or len(rest[fd]) != new:  # not the same bytes, and more
                    due[fd] = time.monotonic() + patience_s
                continue
            poll.unregister(fd)
            due.pop(fd, None)
            flush(log, fd, rest.pop(fd))
        if due:
            now = time.monotonic()
            for fd in [fd for fd, at in due.items() if at <= now]:
                del due[fd]
                flush(log, fd, rest[fd])
                rest[fd] = b""


def flush(log: Log, fd: int, last: bytes) -> None:
    """Log what has no line feed (yet)."""
    if last:
        log.put(log.stamp(STREAMS[fd]) + b"P " + last + b"\n", len(last))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
