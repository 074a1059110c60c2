"""Copy files and folders between this machine and a replica.

NAME:PATH is a path in a replica of the workload NAME (NAME/ORDINAL for one of them); one
side is such a path, the other is a local one, or - for a tar archive on standard input or
output. A destination that is a folder takes the source in, any other names the copy. A
source that ends with /. means what is in the folder. The image has to have tar."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.naming import Named, on_target, parse_name
from cloudless.cli.parsing import UsageError, byte_count
from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.copying.copier import Copied
    from cloudless.sdk.workload import Workload

#: Members that were left out and are named.
MAX_SHOWN = 20
#: Progress is painted this often, in seconds.
PAINT_S = 0.2
PIECE_BYTES = 256 * 1024


class Remote(NamedTuple):
    """A path in a replica."""

    named: Named
    path: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("source", metavar="FROM", help="NAME:PATH, a local path, or -")
    parser.add_argument("destination", metavar="TO", help="a local path, NAME:PATH, or -")
    parser.add_argument("--replica", metavar="WHICH", default="", help="ordinal, or a unique prefix of an id")
    parser.add_argument(
        "--max-size",
        metavar="SIZE",
        type=byte_count,
        help="most that a copy to this machine may write, 10Gi by default",
    )
    parser.add_argument(
        "--all-links", action="store_true", help="also make links that lead out of what is copied"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


async def run(context: Context) -> int:
    """Copy one way or the other."""
    arguments = context.arguments
    source, destination = parse_place(arguments.source), parse_place(arguments.destination)
    if isinstance(source, Remote) == isinstance(destination, Remote):
        raise UsageError(
            "one side is NAME:PATH, the other one is here",
            hint="from replica to replica: cloudless cp web:/data - | cloudless cp - other:/data",
        )
    remote = source if isinstance(source, Remote) else destination
    assert isinstance(remote, Remote)
    downwards = isinstance(source, Remote)
    if not downwards and (arguments.max_size is not None or arguments.all_links):
        raise UsageError("--max-size and --all-links are for copies to this machine")
    async with context.client() as client:

        async def find(name: str, replica: str) -> tuple[Workload, str]:
            return await client.get(name), replica

        word = "/".join(filter(None, remote.named))
        workload, which = await on_target(client, word, arguments.replica, find)
        shown = Shown(context.err, remote.path, quiet=arguments.quiet)
        options = Options(
            client,
            workload.name,
            {
                "namespace": workload.namespace,
                "replica": which,
                "on_progress": shown.progress,
            },
        )
        if "-" in (source, destination):
            return await _archive(context, options, remote.path, downwards=downwards)
        with shown:
            if isinstance(source, Remote):
                copied = await client.copy_from(
                    options.name,
                    source.path,
                    str(destination),
                    max_bytes=arguments.max_size,
                    all_links=arguments.all_links,
                    **options.where,
                )
            else:
                copied = await client.copy_to(options.name, source, remote.path, **options.where)
    return shown.outcome(copied)


class Options(NamedTuple):
    """What every call of the client takes."""

    client: Client
    name: str
    where: dict[str, Any]


async def _archive(context: Context, options: Options, path: str, *, downwards: bool) -> int:
    """A tar archive on standard output, or from standard input."""
    where = {key: value for key, value in options.where.items() if key != "on_progress"}
    if not downwards:
        await options.client.write_archive(options.name, _stdin(), path, **where)
        return exits.OK
    if context.out.is_terminal:
        raise UsageError("an archive is no text for a terminal", hint="send it on: > files.tar, or | tar t")
    out = sys.stdout.buffer
    pieces = options.client.read_archive(options.name, path, **where)
    async with aclosing(pieces):
        async for piece in pieces:
            out.write(piece)
    out.flush()
    return exits.OK


async def _stdin() -> AsyncIterator[bytes]:
    stdin: Any = sys.stdin.buffer
    while piece := await asyncio.to_thread(stdin.read1, PIECE_BYTES):
        yield piece


def parse_place(word: str) -> Remote | str:
    """A path in a replica, or a local one.

    What begins with "/" or "." is local, whatever follows.

    >>> parse_place("shop/web/0:/etc"), parse_place("./a:b"), parse_place("-")
    (Remote(named=Named(workload='shop/web', replica='0'), path='/etc'), './a:b', '-')
    """
    name, colon, path = word.partition(":")
    if not colon or word.startswith(("/", ".")):
        if not word:
            raise UsageError("an empty path names nothing")
        return word
    if not name or not path:
        raise UsageError(f"{word!r} names no path in a replica", hint="write NAME:PATH, for example web:/etc")
    return Remote(parse_name(name), path)


class Shown:
    """Progress on a terminal, and what is said at the end; use as ``with`` while it goes on."""

    def __init__(self, terminal: Terminal, path: str, *, quiet: bool) -> None:
        self._terminal = terminal
        self._path = neutral(path)
        self._quiet = quiet
        self._painted_s = 0.0
        self._painted = False

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def progress(self, size_bytes: int) -> None:
        """So many bytes so far."""
        if self._quiet or not self._terminal.can_repaint:
            return
        now_s = asyncio.get_running_loop().time()
        if now_s - self._painted_s >= PAINT_S:
            self._painted_s, self._painted = now_s, True
            self._terminal.write(f"\r{self._path}  {size_text(size_bytes)}\x1b[K")
            self._terminal.stream.flush()

    def outcome(self, copied: Copied) -> int:
        """Say what was left out; the exit code."""
        for one in copied.left_out[:MAX_SHOWN]:
            self._terminal.line(f"left out: {neutral(one.name)}: {neutral(one.why)}")
        more = copied.left_out_count - min(len(copied.left_out), MAX_SHOWN)
        if more > 0:
            self._terminal.line(f"left out: {more} more")
        if self._terminal.is_terminal and not self._quiet:
            files = "1 file" if copied.files == 1 else f"{copied.files} files"
            self._terminal.line(f"copied {files}, {size_text(copied.size_bytes)} ({neutral(copied.replica)})")
        return exits.ERROR if copied.left_out_count else exits.OK

    def _clear(self) -> None:
        if self._painted:
            self._terminal.write("\r\x1b[K")
            self._painted = False


def size_text(size_bytes: int) -> str:
    """A size for people.

    >>> size_text(900), size_text(12_900_000)
    ('900 B', '12.3 MiB')
    """
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
