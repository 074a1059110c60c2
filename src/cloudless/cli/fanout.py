"""One program in several replicas at once: lines that say where they come from.

``exec --all`` uses it; the worst exit code counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from cloudless.cli import exits
from cloudless.cli.logs.painting import painted
from cloudless.cli.streams import OutputStream
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain.errors import CloudlessError
from cloudless.sdk.exec import ExecProcess

#: A line that is longer is shown in pieces.
MAX_LINE_BYTES = 16 * 1024
#: Replicas that run the program at the same time.
AT_ONCE = 32
STDOUT, STDERR = 1, 2


class Fanout:
    """``names`` of all replicas, for prefixes of one width; output of programs is text on a terminal."""

    def __init__(self, out: Terminal, err: Terminal, names: list[str]) -> None:
        self._terminals = {"stdout": out, "stderr": err}
        self._width = max(map(len, names))
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def run(self, processes: Sequence[tuple[str, Callable[[], ExecProcess]]]) -> int:
        """Run all; returns the worst exit code. Raises ``BrokenPipeError``."""
        codes: list[int] = []
        with ExitStack() as stack:
            streams = {
                "stdout": stack.enter_context(closing(OutputStream(STDOUT))),
                "stderr": stack.enter_context(closing(OutputStream(STDERR))),
            }

            async def one(name: str, start: Callable[[], ExecProcess]) -> None:
                async with self._slots:
                    codes.append(await self._one(name, start(), streams))

            try:
                async with asyncio.TaskGroup() as group:
                    for name, start in processes:
                        group.create_task(one(name, start))
            except* BrokenPipeError:
                raise BrokenPipeError from None
        return max(codes, default=exits.OK)

    async def _one(self, name: str, process: ExecProcess, streams: dict[str, OutputStream]) -> int:
        waiting = {"stdout": b"", "stderr": b""}

        async def write(stream: str, lines: list[bytes]) -> None:
            if lines:
                head = self._head(stream, name)
                text = b"".join(head + self._shown(stream, line) + b"\n" for line in lines)
                await streams[stream].write(text)

        try:
            async with process:
                async for stream, data in process.output():
                    *lines, rest = (waiting[stream] + data).split(b"\n")
                    if len(rest) > MAX_LINE_BYTES:
                        lines, rest = [*lines, rest], b""
                    waiting[stream] = rest
                    await write(stream, lines)
                for stream, rest in waiting.items():
                    await write(stream, [rest] if rest else [])
                end = await process.wait()
        except CloudlessError as error:
            await write("stderr", [f"error: {error}".encode()])
            return exits.EXEC_FAILED
        if end.message:
            await write("stderr", [f"[{end.message}]".encode()])
        return exits.of_program(end.exit_code, end.reason)

    def _head(self, stream: str, name: str) -> bytes:
        terminal = self._terminals[stream]
        return f"{painted(terminal, name)}{' ' * (self._width - len(name))} | ".encode()

    def _shown(self, stream: str, line: bytes) -> bytes:
        if not self._terminals[stream].is_terminal:
            return line
        return neutral(line.decode("utf-8", "replace").removesuffix("\r"), tabs=True).encode()
