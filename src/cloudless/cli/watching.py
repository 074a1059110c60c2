"""``get -w``: a table that repaints itself, or one line per change.

On a pipe a line is written only when something that the line shows has changed (ages do
not count); JSON is one object per event: ``{"type": ..., "object": {...}}``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from cloudless.cli.context import Context
from cloudless.cli.output.formats import Format, columns_of, json_line
from cloudless.cli.output.kinds import EVENTS, REPLICAS, WORKLOADS, Column, Kind
from cloudless.cli.output.table import Cell, Row, lines_of
from cloudless.cli.output.table import format_row as format_cells
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    from cloudless.sdk.client import Client

AGE = "AGE"


async def watch(context: Context, client: Client, kind: Kind, names: Sequence[str], form: Format) -> int:
    """Show changes until somebody stops us."""
    if len(names) > 1:
        raise UsageError("only one name can be watched")
    if form.name not in ("table", "wide", "json", "name"):
        raise UsageError(f"-o {form.name} does not go with --watch", hint="use table, wide, json or name")
    view = _view(context, kind, form)
    name = names[0] if names else ""
    if kind is EVENTS:
        async for event in _events(context, client, name):
            view.change("ADDED", event.id, event)
        return 0
    async for changes in _changes(context, client, kind, name):
        for change, key, item in changes:
            view.change(change, key, item)
        view.settle()
    return 0


async def _events(context: Context, client: Client, name: str) -> AsyncIterator[Any]:
    listed = await client.events(name, namespace=context.namespace)
    for event in listed:
        yield event.message
    follow = client.watch_events(name, namespace=context.namespace, since=listed.resource_version)
    async with follow as events:
        async for event in events:
            yield event.message


Changes = list[tuple[str, str, Any]]


async def _changes(context: Context, client: Client, kind: Kind, name: str) -> AsyncIterator[Changes]:
    """Batches of (type, key, message) of workloads, or of the replicas inside of them."""
    from cloudless.cli.naming import parse_name

    wanted = parse_name(name) if name else None
    space, short = context.namespace, ""
    if wanted is not None:
        prefix, _, short = wanted.workload.rpartition("/")
        space = prefix or space
        first = await client.get(short, space)
        short = first.name
    replicas: dict[str, dict[str, Any]] = {}
    watching = client.watch(namespace=space, selector=context.arguments.selector, name=short)
    async with watching as changes:
        async for change in changes:
            message = change.workload.message
            if kind is WORKLOADS:
                yield [(change.type, message.id, message)]
            elif kind is REPLICAS:
                status = None if change.type == "DELETED" else message.status
                now = {
                    replica.id: replica
                    for replica in (status.replicas if status is not None else ())
                    if wanted is None or wanted.replica in ("", str(replica.ordinal))
                }
                yield _differences(replicas.get(message.id, {}), now)
                replicas[message.id] = now


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Changes:
    gone = [("DELETED", key, item) for key, item in before.items() if key not in now]
    there = [
        ("MODIFIED" if key in before else "ADDED", key, item)
        for key, item in now.items()
        if before.get(key) != item
    ]
    return gone + there


def _view(context: Context, kind: Kind, form: Format) -> View:
    terminal = context.out
    if form.name == "json":
        return JsonView(terminal, kind)
    if form.name == "name":
        return NameView(terminal, kind)
    columns = columns_of(kind, form, with_namespace=context.namespace == "")
    header = not context.arguments.no_headers
    if terminal.can_repaint and kind is not EVENTS:
        return PaintedView(context, kind, form, header)
    return LineView(context, columns, header)


class View:
    """Where changes are shown. ``settle`` is called when those that came together are told."""

    def change(self, change: str, key: str, item: Any) -> None:
        """Take one change."""
        raise NotImplementedError

    def settle(self) -> None:
        """Bring the screen up to date."""


class JsonView(View):
    """One JSON object per event."""

    def __init__(self, terminal: Terminal, kind: Kind) -> None:
        self._terminal = terminal
        self._kind = kind

    def change(self, change: str, key: str, item: Any) -> None:
        self._terminal.write(json_line(self._kind, item, type=change) + "\n")
        self._terminal.stream.flush()


class NameView(View):
    """The name of whatever changed."""

    def __init__(self, terminal: Terminal, kind: Kind) -> None:
        self._terminal = terminal
        self._kind = kind

    def change(self, change: str, key: str, item: Any) -> None:
        self._terminal.write(neutral(self._kind.name_of(item)) + "\n")
        self._terminal.stream.flush()


class LineView(View):
    """A header, then a line per change of anything that the line shows."""

    def __init__(self, context: Context, columns: Sequence[Column], header: bool) -> None:
        self._terminal = context.out
        self._clock = context.clock
        self._columns = columns
        self._told: dict[str, tuple[str, ...]] = {}
        self._waiting: list[list[Cell]] = []
        self._widths = [len(column.title) for column in columns]
        if header:
            self._waiting.append([Cell(column.title, "dim") for column in columns])

    def change(self, change: str, key: str, item: Any) -> None:
        now = self._clock.now()
        cells = [_harmless(column.read(item, now)) for column in self._columns]
        if change == "DELETED":
            cells = [
                Cell("Deleted", "dim") if c.title == "STATE" else cell
                for c, cell in zip(self._columns, cells, strict=True)
            ]
        shown = tuple(cell.text for c, cell in zip(self._columns, cells, strict=True) if c.title != AGE)
        if change != "DELETED" and self._told.get(key) == shown:
            return
        self._told[key] = shown
        if change == "DELETED":
            del self._told[key]
        self._waiting.append(cells)
        if self._columns[-1].title == "MESSAGE":
            self.settle()

    def settle(self) -> None:
        for cells in self._waiting:
            self._widths = [
                max(width, len(cell.text)) for width, cell in zip(self._widths, cells, strict=True)
            ]
        for cells in self._waiting:
            self._terminal.write(format_cells(cells, self._widths, self._terminal) + "\n")
        self._waiting.clear()
        self._terminal.stream.flush()


class PaintedView(View):
    """The whole table, repainted in place; what is gone disappears."""

    def __init__(self, context: Context, kind: Kind, form: Format, header: bool) -> None:
        self._terminal = context.out
        self._clock = context.clock
        self._kind = kind
        self._columns = columns_of(kind, form, with_namespace=context.namespace == "")
        self._header = header
        self._items: dict[str, Any] = {}
        self._painted = 0

    def change(self, change: str, key: str, item: Any) -> None:
        if change == "DELETED":
            self._items.pop(key, None)
        else:
            self._items[key] = item

    def settle(self) -> None:
        now = self._clock.now()
        items = sorted(self._items.values(), key=lambda item: self._kind.name_of(item))
        rows: list[Row] = [[column.read(item, now) for column in self._columns] for item in items]
        titles = [column.title for column in self._columns]
        lines = lines_of(titles, rows, self._terminal, with_header=self._header)
        room = self._terminal.height - 2
        if len(lines) > room:
            lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more"]
        if self._painted:
            self._terminal.write(f"\x1b[{self._painted}A\r\x1b[J")
        self._terminal.write("".join(line + "\n" for line in lines))
        self._terminal.stream.flush()
        self._painted = len(lines)


def _harmless(cell: str | Cell) -> Cell:
    given = cell if isinstance(cell, Cell) else Cell(cell)
    return Cell(neutral(given.text) or "-", given.style)
