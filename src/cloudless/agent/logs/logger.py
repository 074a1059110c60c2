"""The process between one container and its log files; runs on its own, with nothing but Python.

containerd's shim starts it (``binary://``) with the container's output in file descriptors
3 and 4, and waits until 5 is closed. It must outlive the agent and containerd, must never
block or kill the container, and must stay small: there is one per container. So it imports
only what every Python has built in, ignores SIGTERM and reads until both outputs end, and
what it cannot write (disk full) it counts and says so in the log when it can write again.

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
READ_BYTES = 1 << 16
#: Longest piece of a line.
PIECE_BYTES = 1 << 14
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


def main(directory: str, limits: str) -> None:
    """Log until both outputs have ended. ``limits``: bytes of a file, "-", number of files; or empty."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    file_bytes, _, files = limits.partition("-")
    log = Log(directory, int(file_bytes or FILE_BYTES), int(files or FILES))
    log.put(b"", 0)  # makes the first file
    rest = dict.fromkeys(STREAMS, b"")
    poll = select.poll()
    for fd in STREAMS:
        poll.register(fd, select.POLLIN)
    os.close(READY)
    while rest:
        for fd, _ in poll.poll():
            try:
                data = os.read(fd, READ_BYTES)
            except OSError:
                data = b""
            if data:
                rest[fd] = take(log, STREAMS[fd], rest[fd] + data if rest[fd] else data)
                continue
            poll.unregister(fd)
            last = rest.pop(fd)
            if last:
                log.put(log.stamp(STREAMS[fd]) + b"P " + last + b"\n", len(last))
    log.end()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
