"""The logger's own logic, in this process; the whole program is tested in tests/integration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudless.agent.logs import files, logger
from cloudless.domain import loglines as lines


class ListLog(logger.Log):
    """Keeps what is put instead of writing it."""

    def __init__(self) -> None:
        super().__init__("/nonexistent", 1000, 3)
        self.text = b""

    def put(self, lines: bytes, payload: int) -> None:
        self.text += lines
        self.position += payload


def rebuilt(text: bytes) -> bytes:
    return b"".join(record.data + (b"" if record.partial else b"\n") for record in lines.parse(text))


def piece_sizes(text: bytes) -> list[tuple[int, bool]]:
    return [(len(record.data), record.partial) for record in lines.parse(text)]


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=20) | st.integers(0, 40_000).map(lambda size: b"y" * size), max_size=12),
    st.integers(1, 70_000),
)
def test_what_goes_in_comes_out(given_lines: list[bytes], read_bytes: int) -> None:
    data = b"\n".join(given_lines)
    log, rest = ListLog(), b""
    for start in range(0, len(data), read_bytes):
        rest = logger.take(log, b"stdout", rest + data[start : start + read_bytes])
    assert rebuilt(log.text) + rest == data
    assert log.position == len(data) - len(rest) == lines.written_bytes(log.text)
    assert all(size <= logger.PIECE_BYTES for size, _ in piece_sizes(log.text))


def test_a_line_of_just_one_piece_is_whole() -> None:
    log = ListLog()
    assert logger.take(log, b"stdout", b"x" * logger.PIECE_BYTES + b"\n") == b""
    assert piece_sizes(log.text) == [(logger.PIECE_BYTES, False)]


def test_a_longer_line_is_split() -> None:
    log = ListLog()
    logger.take(log, b"stderr", b"x" * (2 * logger.PIECE_BYTES + 1) + b"\n")
    assert piece_sizes(log.text) == [(logger.PIECE_BYTES, True), (logger.PIECE_BYTES, True), (1, False)]


def test_time_never_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5_000_000_000, 4_000_000_000])
    log = ListLog()
    monkeypatch.setattr(logger.time, "time_ns", lambda: next(times))
    assert log.stamp(b"stdout") == log.stamp(b"stdout") == b"1970-01-01T00:00:05.000000000Z stdout "


@pytest.fixture
def small(tmp_path: Path) -> Iterator[logger.Log]:
    log = logger.Log(str(tmp_path), 500, 3)
    yield log
    if log.fd >= 0:
        logger.os.close(log.fd)


def test_rotation_keeps_the_newest_files(small: logger.Log, tmp_path: Path) -> None:
    for number in range(100):
        logger.take(small, b"stdout", b"line %03d\n" % number)
    kept = files.segments(tmp_path)
    assert len(kept) == 3
    assert all(Path(segment.path).stat().st_size <= 500 for segment in kept)
    text = b"".join(Path(segment.path).read_bytes() for segment in kept)
    assert kept[0].start + lines.written_bytes(text) == 900
    assert rebuilt(text).endswith(b"line 098\nline 099\n")


def test_a_second_logger_goes_on(small: logger.Log, tmp_path: Path) -> None:
    logger.take(small, b"stdout", b"one\ntwo\n")
    second = logger.Log(str(tmp_path), 500, 3)
    logger.take(second, b"stdout", b"three\n")
    logger.os.close(second.fd)
    assert [(one.sequence, one.start) for one in files.segments(tmp_path)] == [(1, 0), (2, 8)]


def test_what_cannot_be_written_is_counted(
    small: logger.Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger.take(small, b"stdout", b"before\n")
    with monkeypatch.context() as patch:
        patch.setattr(logger.os, "write", _until_full(logger.os.write))
        logger.take(small, b"stdout", b"lost 1\n")
        logger.take(small, b"stdout", b"lost 2\n")
    logger.take(small, b"stdout", b"after\n")
    text = Path(files.segments(tmp_path)[0].path).read_bytes()
    assert rebuilt(text) == b"before\nafter\n"
    loss = lines.first_notice(text)
    assert loss is not None
    assert loss.lost_bytes == 14
    assert lines.written_bytes(text) == small.position == 27


def _until_full(write: object) -> object:
    """A disk that takes ten bytes of each write and then no more."""
    taken = False

    def full(fd: int, data: bytes) -> int:
        nonlocal taken
        if not taken:
            taken = True
            return write(fd, data[:10])  # type: ignore[operator]
        taken = False
        raise OSError(28, "No space left on device")

    return full


def test_a_directory_that_is_gone_only_loses_lines(tmp_path: Path) -> None:
    log = logger.Log(str(tmp_path / "nowhere"), 500, 3)
    logger.take(log, b"stdout", b"lost\n")
    assert log.lost == log.position == 5
    (tmp_path / "nowhere").mkdir()
    logger.take(log, b"stdout", b"kept\n")
    logger.os.close(log.fd)
    segment = files.segments(tmp_path / "nowhere")[0]
    assert segment.start == 0
    assert lines.first_notice(Path(segment.path).read_bytes()) is not None
