"""List the revisions of a workload, newest first; the one that replicas are made from has a star.

With --revision the journal of that revision's rollout: what was seen and decided, when and why."""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from cloudless.cli import exits
from cloudless.cli.changing import add_output_option
from cloudless.cli.context import Context
from cloudless.cli.output.formats import Format, parse_format, write
from cloudless.cli.output.kinds import REVISIONS
from cloudless.cli.output.table import GAP, Cell, cut, display_width, lines_of
from cloudless.cli.output.words import age, phase_cell
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral

if TYPE_CHECKING:
    import datetime

    from cloudless import api
    from cloudless.sdk.client import Client
    from cloudless.sdk.journal import PastRollout

#: On a terminal the column of changes leaves this to the message, and keeps this for itself.
MIN_MESSAGE_WIDTH = 20
MIN_CHANGE_WIDTH = 20
#: Where the text of a journal begins, and its least width.
_TEXT_AT = 31
_MIN_TEXT = 30


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="the workload")
    parser.add_argument("--revision", metavar="N", type=int, help="show this one's journal")
    parser.add_argument("--no-headers", action="store_true", help="leave out the titles of the table")
    add_output_option(parser)


async def run(context: Context) -> int:
    """Show revisions, or one's journal."""
    form = parse_format(context.arguments.output)
    if context.arguments.revision is not None and context.arguments.revision < 1:
        raise UsageError(f"revisions are numbered from 1, not {context.arguments.revision}")
    async with context.client() as client:
        from cloudless.cli.naming import suggesting, workload_only

        name = workload_only(context.arguments.name)
        async with suggesting(client, name):
            if context.arguments.revision is None:
                await _list(context, client, name, form)
            else:
                past = await client.rollout_of(name, context.arguments.revision)
                _show_past(context, name, past, form)
    return exits.OK


async def _list(context: Context, client: Client, name: str, form: Format) -> None:
    revisions = [item.message for item in await client.history(name)]
    now = context.clock.now()
    if form.name not in ("table", "wide"):
        write(context.out, REVISIONS, revisions, form, now)
        return
    status = (await client.get(name)).status
    runs = status.rollout.target_revision if status.rollout is not None else status.revision
    rows = [_row(item, runs, now, oldest=item is revisions[-1]) for item in revisions]
    header = ["REVISION", "PHASE", "WHEN", "BY", "CHANGE", "MESSAGE"]
    if form.name == "wide":
        header += ["IMAGE", "DIGEST"]
        for row, item in zip(rows, revisions, strict=True):
            row += [Cell(neutral(item.spec.image if item.spec is not None else "")), Cell(item.image_digest)]
    if context.out.is_terminal and form.name == "table":
        _shorten(header, rows, context.out.width)
    for line in lines_of(header, rows, context.out, with_header=not context.arguments.no_headers):
        context.out.write(line + "\n")


def _row(item: api.Revision, runs: int, now: datetime.datetime, *, oldest: bool) -> list[Cell]:
    from cloudless.sdk.objects import enum_name

    return [
        Cell(f"{item.number} *" if item.number == runs else str(item.number)),
        phase_cell(enum_name(item.phase)),
        Cell(age(item.created_at, now)),
        Cell(item.author),
        Cell(neutral("; ".join(item.changes)) or ("" if oldest else "restart")),
        Cell(item.message),
    ]


def _shorten(header: list[str], rows: list[list[Cell]], width: int) -> None:
    """Cut the changes so that a line fits."""
    before = [
        max(display_width(cell) for cell in (header[at], *(row[at].text for row in rows))) for at in range(4)
    ]
    room = width - sum(before) - len(GAP) * 5 - MIN_MESSAGE_WIDTH
    for row in rows:
        row[4] = Cell(cut(row[4].text, max(room, MIN_CHANGE_WIDTH)))


def _show_past(context: Context, name: str, past: PastRollout, form: Format) -> None:
    if form.name not in ("table", "wide"):
        write_past(context, past, form)
        return
    out = context.out
    for index, line in enumerate(head_lines(name, past)):
        out.line(out.paint(line, "bold") if not index else f"  {line}")
    if not past.message.journal:
        out.line("  its journal is empty")
        return
    out.line()
    for line in journal_lines(past.message.journal, out):
        out.line(line)


def write_past(context: Context, past: PastRollout, form: Format) -> None:
    """The revision with its journal as values."""
    from cloudless.cli.output.kinds import Kind
    from cloudless.cli.output.plain import plain

    def whole(message: Any) -> dict[str, Any]:
        return {"kind": "RolloutHistory", **plain(message)}

    kind = Kind("history", ("history",), (), lambda item: f"revision/{item.revision.number}", whole)
    write(context.out, kind, [past.message], form, context.clock.now(), single=True)


def head_lines(name: str, past: PastRollout) -> list[str]:
    """What was rolled out, by whom, and how it ended."""
    from cloudless.cli.output.plain import time_text
    from cloudless.sdk.objects import enum_name

    item = past.revision.message
    journal = past.message.journal
    phase = phase_cell(enum_name(item.phase)).text or (
        phase_cell(enum_name(journal[-1].phase)).text if journal else ""
    )
    took = ""
    if journal and journal[0].at is not None and item.ended_at is not None:
        took = f" after {(item.ended_at - journal[0].at).total_seconds():.1f} s"
    lines = [f"workload/{neutral(name)}  revision {item.number}  {phase}{took}"]
    by = f" by {neutral(item.author)}" if item.author else ""
    if item.created_at is not None:
        lines.append(f"made     {time_text(item.created_at.replace(microsecond=0))}{by}")
    if item.message:
        lines.append(f"because  {neutral(item.message)}")
    if item.image_digest:
        lines.append(
            f"image    {neutral(item.spec.image if item.spec is not None else '')} {item.image_digest}"
        )
    lines += [f"changed  {neutral(change)}" for change in item.changes]
    return lines


def journal_lines(journal: list[api.JournalEntry], out: Terminal) -> list[str]:
    """The timeline: time, since the beginning, verb, and what was seen and decided.

    On a terminal texts are wrapped below themselves; on a pipe an entry is one line.
    """
    first = journal[0].at
    width = max(out.width - _TEXT_AT - 1, _MIN_TEXT)
    lines = [out.paint(f"{'TIME':<10}{'OFFSET':>9}  {'VERB':<10}WHAT", "dim")]
    for entry in journal:
        at = f"{entry.at:%H:%M:%S}" if entry.at is not None else ""
        offset = f"+{_offset(entry, first)}"
        head = f"{at:<10}{offset:>9}  {neutral(entry.verb):<10}"
        seen, decided, because = neutral(entry.seen), neutral(entry.decided), neutral(entry.because)
        arrow = "\u2192" if out.is_terminal and out.draws else "->"
        what = f" {arrow} ".join(part for part in (seen, decided) if part)
        if not out.is_terminal:
            lines.append(f"{head}{what}{f' ({because})' if because else ''}")
            continue
        if display_width(what) > width and seen and decided:
            texts = [(part, "") for text in (seen, f"{arrow} {decided}") for part in _wrapped(text, width)]
        else:
            texts = [(part, "") for part in _wrapped(what, width)]
        texts += [(part, "dim") for part in _wrapped(because, width)]
        for index, (text, style) in enumerate(texts or [("", "")]):
            lines.append((head if not index else " " * _TEXT_AT) + out.paint(text, style))
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    if display_width(text) <= width:
        return [text] if text else []
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _offset(entry: api.JournalEntry, first: datetime.datetime | None) -> str:
    """Since the beginning, to a tenth of a second while that says something.

    >>> from cloudless import api as a; import datetime as d
    >>> at = d.datetime(2026, 1, 2, tzinfo=d.UTC)
    >>> [_offset(a.JournalEntry(at=at + d.timedelta(seconds=s)), at) for s in (0, 1.25, 75.5, 4000)]
    ['0.0s', '1.2s', '1m15.5s', '1h6m']
    """
    if entry.at is None or first is None:
        return ""
    total_s = max((entry.at - first).total_seconds(), 0.0)
    if total_s < 60:
        return f"{total_s:.1f}s"
    minutes, seconds = divmod(total_s, 60)
    if minutes < 60:
        return f"{minutes:.0f}m{seconds:.1f}s"
    return f"{minutes // 60:.0f}h{minutes % 60:.0f}m"
