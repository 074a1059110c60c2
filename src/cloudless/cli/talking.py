"""A program elsewhere at our own standard streams: what ``exec`` and ``attach`` share.

The program's end is ours. With a terminal the keys go to it raw, the terminal's size
follows, and the terminal is as it was when we leave, however we leave.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NoReturn

from cloudless.aio.supervise import Supervisor
from cloudless.cli import exits
from cloudless.cli.rawmode import HELP_TEXT, EscapeFilter, RawMode, size_of
from cloudless.cli.streams import InputStream, OutputStream
from cloudless.domain.errors import CloudlessError
from cloudless.sdk.exec import ExecExit, ExecProcess

STDIN, STDOUT, STDERR = 0, 1, 2


class Left(Exception):
    """The user has left with ``~.``, or we were told to end: ``code`` is our exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def talk(process: ExecProcess, *, stdin: bool, end_stdin: bool = True, ends: bool = True) -> ExecExit:
    """Carry all streams until the program ends. Raises ``Left``, ``BrokenPipeError``.

    ``end_stdin`` False: the end of our input is not told to the program. ``ends``: when we leave, it ends.
    """
    with ExitStack() as stack:
        out = stack.enter_context(closing(OutputStream(STDOUT)))
        err = stack.enter_context(closing(OutputStream(STDERR)))
        raw = process.tty and stdin
        if raw:
            stack.enter_context(RawMode(STDIN))
        async with Supervisor("talk") as tasks:
            left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            if stdin:
                keys = stack.enter_context(closing(InputStream(STDIN)))
                tasks.start("input", _send(process, keys, out, left, raw=raw, end_stdin=end_stdin, ends=ends))
            if process.tty:
                stack.enter_context(_following_size(tasks, process))
            stack.enter_context(_told_to_end(left, raw=raw))
            show = tasks.start("output", _show(process, out, err))
            await asyncio.wait({show, left}, return_when=asyncio.FIRST_COMPLETED)
            if left.done() and not show.done():
                if raw:
                    out.end_line()  # what comes next is not the program's
                raise Left(left.result())
            left.cancel()
            if (failure := await show) is not None:
                raise failure
            return await process.wait()


async def _show(process: ExecProcess, out: OutputStream, err: OutputStream) -> Exception | None:
    """Returns what ended it before the program's end."""
    try:
        async for name, data in process.output():
            await (out if name == "stdout" else err).write(data)
    except (CloudlessError, OSError) as error:
        return error
    return None


async def _send(
    process: ExecProcess,
    keys: InputStream,
    out: OutputStream,
    left: asyncio.Future[int],
    *,
    raw: bool,
    end_stdin: bool,
    ends: bool,
) -> None:
    escapes = EscapeFilter()
    try:
        while data := await keys.read():
            if not raw:
                await process.stdin.write(data)
                continue
            typed = escapes.feed(data)
            await process.stdin.write(typed.data)
            if typed.help:
                await out.write(HELP_TEXT % (b"ends" if ends else b"goes on"))
            if typed.leave:
                _leave(left, exits.INTERRUPTED)
                return
    except OSError:
        # Our terminal has gone away: there is nobody left to type.
        if raw:
            _leave(left, exits.INTERRUPTED)
            return
    if end_stdin:
        await process.stdin.close()


@contextmanager
def _following_size(tasks: Supervisor, process: ExecProcess) -> Iterator[None]:
    """Tell the program whenever our terminal is resized."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    async def follow() -> NoReturn:
        while True:
            await changed.wait()
            changed.clear()
            size = size_of(STDOUT) or size_of(STDIN)
            if size is not None:
                await process.resize(*size)

    # It may have been resized since the program was started.
    changed.set()
    tasks.start("size", follow())
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextmanager
def _told_to_end(left: asyncio.Future[int], *, raw: bool) -> Iterator[None]:
    """A signal that would end us at once would leave a raw terminal behind."""
    if not raw:
        yield
        return
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, _leave, left, 128 + number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _leave(left: asyncio.Future[int], code: int) -> None:
    if not left.done():
        left.set_result(code)
