from __future__ import annotations

import asyncio
import os
import pathlib

import pytest

from cloudless.containerd import limits
from cloudless.containerd.fifos import FifoReader, FifoWriter, StdinClosed


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    return fifo


async def test_no_writer_yet_is_not_the_end(path: pathlib.Path) -> None:
    reader = FifoReader(path)
    reading = asyncio.ensure_future(reader.read())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asyncio.shield(reading)
    assert not reader.is_hung_up()
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"data")
    assert await reading == b"data"
    os.write(writer, b"rest")
    assert reader.unread_bytes() == 4
    os.close(writer)
    assert reader.is_hung_up()
    assert await reader.read() == b"rest"
    assert await reader.read() == b""
    assert reader.ended.is_set()
    reader.close()


async def test_a_program_that_writes_much_is_read_in_large_pieces(path: pathlib.Path) -> None:
    reader = FifoReader(path)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    data = os.urandom(300_000)
    assert os.write(writer, data) == limits.FIFO_BYTES
    assert await reader.read() == data[: limits.FIFO_BYTES]
    os.close(writer)
    assert await reader.read() == b""
    reader.close()


async def test_a_slow_reader_holds_back_the_writer(path: pathlib.Path) -> None:
    writer = FifoWriter(path)
    reading_end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.started()
    data = os.urandom(300_000)
    writing = asyncio.ensure_future(writer.write(data))
    got = bytearray()
    async with asyncio.timeout(10):
        while len(got) < len(data):
            await asyncio.sleep(0)
            try:
                got += os.read(reading_end, 10_000)
            except BlockingIOError:
                continue
        await writing
    assert got == data
    os.close(reading_end)
    with pytest.raises(StdinClosed):
        await writer.write(b"x")
    writer.close()
    with pytest.raises(StdinClosed):
        await writer.write(b"x")


async def test_a_process_that_never_read(path: pathlib.Path) -> None:
    writer = FifoWriter(path)
    writer.started()
    with pytest.raises(StdinClosed):
        await writer.write(b"x")


async def test_a_reader_that_comes_late_gets_everything(path: pathlib.Path) -> None:
    writer = FifoWriter(path)
    writer.started()
    writing = asyncio.ensure_future(writer.write(b"all"))
    await asyncio.sleep(0)
    assert not writing.done()
    reading_end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await writing
    assert os.read(reading_end, 10) == b"all"
    os.close(reading_end)
    with pytest.raises(StdinClosed):
        await writer.write(b"x")
    writer.close()


async def test_the_first_chunk_waits_for_no_more(path: pathlib.Path) -> None:
    reader = FifoReader(path)
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"abcdef")
    assert await reader.read(4) == b"abcd"
    assert await reader.read(4) == b"ef"
    os.close(writer)
    reader.close()
    assert await reader.read() == b""
